"""A bundle from one side to the other, through the command line, with a docker client that records what it is asked."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kfp_hybrid import __version__, images
from kfp_hybrid.bundle import third_party
from kfp_hybrid.bundle.contents import our_images
from kfp_hybrid.cli import main
from kfp_hybrid.package import Package
from kfp_hybrid.profiles import KubeflowProfile
from kfp_hybrid.sources import pipeline_names

MANIFESTS = Path(__file__).parents[4] / "manifests"
SITE = "registry.internal:5000"
TENSORFLOW_FILE = f"images/tensorflow-{__version__}.tar"
OUR_PATHS = {f"kfp-hybrid/{name}:{__version__}" for name in images.names()}


def run(*arguments):
    return CliRunner().invoke(main, ["bundle", *map(str, arguments)])


def texts(folder):
    return {file: file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def damaged(made, tmp_path):
    """A copy of the bundle with one flipped byte in an image."""
    folder = tmp_path / "bundle"
    shutil.copytree(made.folder, folder)
    file = folder / TENSORFLOW_FILE
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    return folder


def test_it_holds_every_image_of_ours_and_of_others(made, request):
    index = json.loads((made.folder / "bundle.json").read_text())
    others = third_party.read(request.path.parents[4] / "manifests/images.yaml")
    assert {image["path"] for image in index["images"]} == OUR_PATHS | {other.path for other in others}
    assert all((made.folder / image["file"]).is_file() for image in index["images"])
    digests = {image["path"]: image["digest"] for image in index["images"]}
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", digests[other.path]) for other in others)


def test_it_holds_a_list_of_what_is_in_each_of_our_images(made):
    for name in images.names():
        sbom = json.loads((made.folder / f"sbom/{name}-{__version__}.cdx.json").read_text())
        assert sbom == {"bomFormat": "CycloneDX", "of": images.image(name), "program": True}


def test_its_manifests_and_packages_name_no_registry_but_that_of_the_site(made):
    for part in ("manifests", "packages"):
        for file, text in texts(made.folder / part).items():
            for host in ("ghcr.io", "quay.io", "docker.io/"):
                assert host not in text, file
    used = {
        step.image for name in pipeline_names() for step in Package.load(made.folder / f"packages/{name}.yaml").steps()
    }
    assert used and used <= {f"{SITE}/{path}" for path in OUR_PATHS}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
@pytest.mark.parametrize(
    "folder",
    ["overlays/airgapped", "overlays/airgapped/trainer", "overlays/airgapped/serving", "pipelines/native"],
)
def test_its_manifests_build(made, folder):
    command = ["kubectl", "kustomize", made.folder / "manifests" / folder]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"image: {SITE}/kfp-hybrid/" in built


def test_its_wheels_install_without_an_index(made, tmp_path):
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", made.folder / "wheels",
               "--target", target, f"kfp-hybrid=={__version__}"]  # fmt: skip
    environ = {name: value for name, value in made.environ.items() if not name.startswith("PIP_")}
    subprocess.run(command, check=True, capture_output=True, env=environ)
    code = "import kfp_hybrid; print(kfp_hybrid.__version__, kfp_hybrid.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(target)}, capture_output=True, text=True
    )
    assert done.stdout.split() == [__version__, str(target / "kfp_hybrid/__init__.py")]


def test_it_is_checked_and_pushed_into_a_registry_from_an_empty_docker(made, docker):
    assert run("verify", made.folder).output.startswith(f"{made.folder} is as it was made")
    loaded = run("load", made.folder, "--registry", SITE)
    assert loaded.exit_code == 0, loaded.output
    index = json.loads((made.folder / "bundle.json").read_text())
    assert set(docker.read("pushed.json")) == {f"{SITE}/{image['path']}" for image in index["images"]}
    assert docker.read("pushed.json")[f"{SITE}/kfp-hybrid/tensorflow:{__version__}"] == "the image tensorflow"
    applied = re.findall(r"kubectl apply -k site/manifests/(\S+)", loaded.output)
    assert applied == ["overlays/airgapped", "overlays/airgapped/trainer", "overlays/airgapped/serving"]


def test_a_registry_with_another_name_gets_manifests_and_packages_of_its_own(made, docker, tmp_path):
    refused = run("load", made.folder, "--registry", "harbor.example.com/ml")
    assert refused.exit_code == 1 and "give a new folder for them with -o" in refused.output
    assert docker.calls() == []
    loaded = run("load", made.folder, "--registry", "harbor.example.com/ml", "-o", tmp_path / "site")
    assert loaded.exit_code == 0, loaded.output
    assert f"harbor.example.com/ml/kfp-hybrid/deployment:{__version__}" in docker.read("pushed.json")
    for part in ("manifests", "packages"):
        site = texts(tmp_path / "site" / part)
        assert len(site) == len(texts(made.folder / part))
        assert all(SITE not in text for text in site.values())
    steps = Package.load(tmp_path / "site/packages/hello.yaml").steps()
    assert all(step.image.startswith("harbor.example.com/ml/kfp-hybrid/") for step in steps)


def test_of_a_damaged_bundle_nothing_is_loaded(damaged, docker):
    for arguments in (["verify", damaged], ["load", damaged, "--registry", SITE]):
        refused = run(*arguments)
        assert refused.exit_code == 1
        assert f"{TENSORFLOW_FILE} is damaged or truncated" in refused.output
    assert docker.calls() == []


def test_a_registry_that_refuses_an_image_is_said_with_its_name(made, docker):
    docker.will("push-denied")
    refused = run("load", made.folder, "--registry", SITE)
    assert refused.exit_code == 1
    assert f"cannot push {SITE}/kfp-hybrid/deployment:{__version__}: denied" in refused.output


def test_made_again_over_the_damaged_one_only_what_is_damaged_is_made(made, damaged):
    again = [str(damaged) if part == str(made.folder) else part for part in made.command]
    done = subprocess.run(again, env=made.environ, capture_output=True, text=True, check=True).stdout
    assert f"wrote {TENSORFLOW_FILE}" in done
    for name in ("deployment", "validation"):
        assert f"kept  images/{name}-{__version__}.tar" in done
    assert run("verify", damaged).exit_code == 0


def test_without_an_image_of_others_the_message_names_it(docker, tmp_path):
    for name in images.names():
        docker.have(images.image(name))
    refused = run("create", "-o", tmp_path / "bundle")
    assert refused.exit_code == 1
    assert "cannot pull ghcr.io/chrislusf/seaweedfs" in refused.output and "--without-third-party" in refused.output
    assert not docker.calls("save"), "gigabytes are written only when all images are there"


def test_without_an_image_of_ours_the_message_says_how_to_build_it(docker, tmp_path):
    refused = run("create", "-o", tmp_path / "bundle")
    assert refused.exit_code == 1
    assert "build it: scripts/images.sh build deployment" in refused.output


@pytest.fixture
def kfp_manifests(tmp_path):
    """A folder as scripts/kfp-manifests.sh writes it, in small."""
    folder = tmp_path / "kfp"
    folder.mkdir()
    (folder / "cluster-scoped.yaml").write_text("kind: Namespace\nmetadata:\n  name: kubeflow\n")
    (folder / "kfp.yaml").write_text("image: ghcr.io/kubeflow/kfp-frontend:2.17.0\n---\nimage: mysql:8.4\n")
    return folder


@pytest.fixture
def with_our_images(docker):
    for name in images.names():
        docker.have(images.image(name))
    return docker


def test_kubeflow_pipelines_comes_along_when_its_manifests_are_given(with_our_images, kfp_manifests, tmp_path):
    create = ["create", "-o", tmp_path / "bundle", "--registry", SITE, "--kfp-manifests", kfp_manifests]
    assert run(*create, "--without-third-party").exit_code == 0
    moved = (tmp_path / "bundle/kubeflow-pipelines/kfp.yaml").read_text()
    assert moved == f"image: {SITE}/kubeflow/kfp-frontend:2.17.0\n---\nimage: {SITE}/library/mysql:8.4\n"
    loaded = run("load", tmp_path / "bundle", "--registry", "other.example.com", "-o", tmp_path / "site")
    assert loaded.exit_code == 0, loaded.output
    folder = tmp_path / "site/kubeflow-pipelines"
    assert "image: other.example.com/library/mysql:8.4" in (folder / "kfp.yaml").read_text()
    applied = re.findall(r"kubectl apply --server-side --force-conflicts -f (\S+)", loaded.output)
    assert applied == [f"{folder}/cluster-scoped.yaml", f"{folder}/kfp.yaml"]


def test_with_its_manifests_the_images_of_kubeflow_pipelines_are_wanted_too(with_our_images, kfp_manifests, tmp_path):
    for other in third_party.read(MANIFESTS / "images.yaml"):
        with_our_images.offer(other.reference, other.name)
    refused = run("create", "-o", tmp_path / "bundle", "--kfp-manifests", kfp_manifests)
    assert refused.exit_code == 1 and "cannot pull ghcr.io/kubeflow/kfp-api-server:2.17.0" in refused.output


def test_without_its_manifests_nothing_is_said_of_installing_kubeflow_pipelines(made, docker):
    assert "kubeflow-pipelines" not in run("load", made.folder, "--registry", SITE).output
    assert not (made.folder / "kubeflow-pipelines").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda folder: (folder / "kfp.yaml").write_text("image: quay.io/x/new:1\n"),
            "quay.io/x/new:1, which is not in",
        ),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "scripts/kfp-manifests.sh"),
        (lambda folder: (folder / "kfp.yaml").write_bytes(b"\xff"), "cannot read"),
    ],
)
def test_manifests_that_cannot_be_moved_are_refused_before_any_image_is_taken(
    with_our_images, kfp_manifests, tmp_path, change, message
):
    change(kfp_manifests)
    refused = run("create", "-o", tmp_path / "bundle", "--kfp-manifests", kfp_manifests)
    assert refused.exit_code == 1 and message in refused.output
    assert not with_our_images.calls("save")


@pytest.mark.parametrize("registry", ["https://registry.example.com", "registry.example.com/", "a b", "UPPER/x", "x:y"])
def test_what_is_no_registry_is_refused(made, registry):
    refused = run("load", made.folder, "--registry", registry)
    assert refused.exit_code == 2 and "is no registry" in refused.output


def test_a_target_of_the_profiles_gives_the_packages_its_settings(docker, tmp_path):
    config = tmp_path / "kfp-hybrid.toml"
    config.write_text(
        '[targets.plant]\nkind = "kubeflow"\nauth = { kind = "kubeconfig" }\nregistry = "elsewhere.example.com/x"\n'
        'pull_secrets = ["plant-registry"]\nimages = { tensorflow = "9-gpu", validation = "sha256:' + "a" * 64 + '" }\n'
        '[targets.cloud]\nkind = "vertex"\nproject = "a-project"\nlocation = "europe-west4"\npipeline_root = "gs://a-bucket/c"\n'
    )
    options = ["create", "-o", tmp_path / "bundle", "--config", config, "--registry", "site.example.com", "--target"]
    refused = run(*options, "cloud")
    assert refused.exit_code == 1 and "cloud is no Kubeflow target" in refused.output
    docker.have(images.DEPLOYMENT)
    docker.have(images.SERVING)
    refused = run(*options, "plant")  # it stops at the image that is not there
    assert f"cannot pull {images.REGISTRY}/tensorflow:9-gpu" in refused.output
    assert "build it: scripts/images.sh build tensorflow-gpu" in refused.output
    package = Package.load(tmp_path / "bundle/packages/train_and_publish.yaml")
    assert {step.image for step in package.steps()} == {
        f"site.example.com/kfp-hybrid/deployment:{__version__}",
        "site.example.com/kfp-hybrid/tensorflow:9-gpu",
        f"site.example.com/kfp-hybrid/validation:{__version__}",
    }
    assert "plant-registry" in package.text


def test_a_variant_that_packages_ask_for_is_needed_too(tmp_path):
    profile = KubeflowProfile(kind="kubeflow", auth={"kind": "kubeconfig"}, registry=f"{SITE}/kfp-hybrid")
    text = f"image: {SITE}/kfp-hybrid/tensorflow:1-gpu\nimage: other.{SITE}/kfp-hybrid/none:1\nimage: {SITE}/none:1\n"
    (tmp_path / "package.yaml").write_text(text)
    assert set(our_images(tmp_path, profile)) == OUR_PATHS | {"kfp-hybrid/tensorflow:1-gpu"}
