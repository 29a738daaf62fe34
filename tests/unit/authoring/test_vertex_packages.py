"""Packages for Vertex AI."""

import hashlib
import os
import subprocess
import sys

import pytest
import yaml
from kfp import dsl, kubernetes

from kfp_hybrid import __version__, images
from kfp_hybrid.errors import UserError
from kfp_hybrid.lint import ERROR, lint
from kfp_hybrid.package import Package
from kfp_hybrid.profiles import Resources, VertexProfile
from kfp_hybrid.targets.local import LocalTarget
from kfp_hybrid.targets.vertex import VertexTarget

REGISTRY = "europe-west4-docker.pkg.dev/ml-production/ml"
OURS = f"{REGISTRY}/tensorflow:{__version__}"


def open_target(**settings):
    profile = VertexProfile(**{
        "kind": "vertex", "project": "ml-production", "location": "europe-west4",
        "pipeline_root": "gs://ml-production-pipelines/root", "registry": REGISTRY, **settings,
    })  # fmt: skip
    return VertexTarget("cloud", profile, lambda name: Resources())


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def train(text: str) -> str:
    """Train on this ✓ and on that 🚀."""
    return text


@dsl.component(base_image=f"example.com/{images.TENSORFLOW}", install_kfp_package=False)
def mirrored(text: str) -> str:
    return text


@dsl.component(base_image=f"{images.TENSORFLOW}-rc1", install_kfp_package=False)
def candidate(text: str) -> str:
    return text


@dsl.container_component
def start_job(text: str):
    job = '{"worker_pool_specs": [{"container_spec": {"image_uri": "' + images.TENSORFLOW + '"}}]}'
    return dsl.ContainerSpec(image="gcr.io/ml-pipeline/components:2", command=["launch"], args=["--payload", job, text])


@dsl.pipeline(name="many-images", description="All kinds of images ✓ 🚀.")
def many_images(text: str = "x"):
    trained = train(text=text).set_caching_options(False)
    with dsl.If(trained.output == "x"):
        train(text="again")
    mirrored(text=text)
    candidate(text=text)
    start_job(text=text)


def compile_for(target, file, pipeline=many_images):
    target.compile(pipeline, file)
    return yaml.safe_load(file.read_text("utf-8"))


@pytest.fixture
def containers(tmp_path):
    """The containers of a package, by the component's name."""

    def read(**settings):
        executors = compile_for(open_target(**settings), tmp_path / "package.yaml")["deploymentSpec"]["executors"]
        return {name.removeprefix("exec-"): executor["container"] for name, executor in executors.items()}

    return read


def test_steps_run_in_the_images_of_the_profile(containers):
    assert containers()["train"]["image"] == OURS


@pytest.mark.parametrize("version, image", [
    ("1.4.0", f"{REGISTRY}/tensorflow:1.4.0"),
    (f"sha256:{'4f' * 32}", f"{REGISTRY}/tensorflow@sha256:{'4f' * 32}"),
])  # fmt: skip
def test_an_image_can_have_another_version(containers, version, image):
    assert containers(images={"tensorflow": version})["train"]["image"] == image


def test_images_from_elsewhere_are_left_alone(containers):
    found = containers()
    assert found["mirrored"]["image"] == f"example.com/{images.TENSORFLOW}"
    assert found["candidate"]["image"] == f"{images.TENSORFLOW}-rc1"
    assert found["start-job"]["image"] == "gcr.io/ml-pipeline/components:2"


def test_the_image_of_a_custom_job_is_that_of_the_profile(containers):
    assert f'"image_uri": "{OURS}"' in containers()["start-job"]["args"][1]


@dsl.pipeline(name="ours-only", description="Images of this collection ✓ 🚀.")
def ours_only(text: str = "x"):
    start_job(text=train(text=text).output)


def test_nothing_but_images_differs_from_what_runs_here(tmp_path):
    here, there = tmp_path / "here.yaml", tmp_path / "there.yaml"
    compile_for(LocalTarget(tmp_path), here, ours_only)
    compile_for(open_target(), there, ours_only)
    assert here.read_text("utf-8").replace(images.TENSORFLOW, OURS) == there.read_text("utf-8")


def test_the_package_passes_the_linter(tmp_path):
    compile_for(open_target(), tmp_path / "package.yaml")
    findings = lint(Package.load(tmp_path / "package.yaml"), ["vertex"])
    assert not [finding for finding in findings if finding.level == ERROR]


def test_settings_for_kubernetes_are_refused(tmp_path):
    @dsl.pipeline(name="with-a-volume")
    def with_a_volume():
        kubernetes.use_secret_as_env(train(text="x"), "a-secret", {"key": "VARIABLE"})

    with pytest.raises(UserError, match=r"the pipeline with-a-volume calls kfp.kubernetes .*; leave them to target"):
        open_target().compile(with_a_volume, tmp_path / "package.yaml")
    assert not (tmp_path / "package.yaml").exists()


def test_compiling_twice_gives_the_same_bytes_and_leaves_the_pipeline_alone(tmp_path):
    first, again = tmp_path / "first.yaml", tmp_path / "again.yaml"
    compile_for(open_target(registry="elsewhere.example.com/ml"), again)
    compile_for(open_target(), first)
    compile_for(open_target(), again)
    assert first.read_bytes() == again.read_bytes()


def test_the_bytes_do_not_depend_on_the_process(tmp_path):
    config = tmp_path / "kfp-hybrid.toml"
    config.write_text(
        '[targets.cloud]\nkind = "vertex"\nproject = "ml-production"\nlocation = "europe-west4"\n'
        'pipeline_root = "gs://ml-production-pipelines"\n'
    )
    digests = set()
    for seed in ("1", "2"):
        file = tmp_path / f"{seed}.yaml"
        command = ["compile", "hello", "--target", "cloud", "--config", str(config), "-o", str(file)]
        program = "from kfp_hybrid.cli import main; main()"
        subprocess.run(
            [sys.executable, "-c", program, *command], env={**os.environ, "PYTHONHASHSEED": seed}, check=True
        )
        digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*package.yaml: .*; give another file with -o"):
        open_target().compile(many_images, tmp_path / "file" / "package.yaml")


@pytest.mark.parametrize("module", ["google.cloud.aiplatform", "google_cloud_pipeline_components"])
def test_a_target_without_its_clients_says_how_to_install_them(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"the target cloud needs .*: pip install 'kfp-hybrid\[vertex\]'"):
        open_target()


def test_opening_a_target_imports_no_client_of_google_cloud():
    program = (
        "import sys, kfp_hybrid.targets.vertex as v\n"
        "heavy = {'google.cloud.aiplatform', 'google.cloud.aiplatform_v1', 'google_cloud_pipeline_components'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"
