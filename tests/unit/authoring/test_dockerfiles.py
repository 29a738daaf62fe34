"""What the Dockerfile promises, and what `scripts/images.sh` asks of Docker; `tests/images` tests the built images."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import kfp
import pytest

from kfp_hybrid import __version__, images

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "components" / "images"


def instructions():
    """The Dockerfile's instructions with their lines joined, one list per stage; the first holds what precedes FROM."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    stages = [[]]
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("FROM"):
            stages.append([])
        stages[-1].append(line)
    return stages


def pins(file):
    return dict(re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", file.read_text(), re.M))


def test_the_base_image_can_be_replaced():
    before, *stages = instructions()
    assert before == ["ARG BASE_IMAGE=python:3.11-slim-bookworm"]
    names = {stage[0].split()[3] for stage in stages if " AS " in stage[0]}
    assert {stage[0].split()[1] for stage in stages} <= {"${BASE_IMAGE}", *names}


def test_the_last_stage_runs_nothing_and_takes_packages_before_code():
    last = instructions()[-1]
    assert last[0] == "FROM base"
    assert not [line for line in last if line.startswith("RUN")]
    copies = [line for line in last if line.startswith("COPY")]
    assert [copy.split()[1] for copy in copies] == ["--from=packages", "--from=project"]


def test_what_changes_with_every_commit_comes_after_all_layers():
    last = instructions()[-1]
    label = next(number for number, line in enumerate(last) if line.startswith("LABEL"))
    arguments = [number for number, line in enumerate(last) if line.startswith("ARG")]
    copies = [number for number, line in enumerate(last) if line.startswith("COPY")]
    assert max(copies) < min(arguments) < label


def test_the_user_is_the_one_that_targets_ask_for():
    assert f"USER {images.USER}:{images.USER}" in instructions()[-1]


def test_secrets_are_mounted_where_packages_are_fetched_and_nowhere_else():
    for stage in instructions()[1:]:
        for line in stage:
            if "/run/secrets" in line or "--mount=type=secret" in line:
                assert line.startswith("RUN --mount=type=secret") and stage[0].endswith("AS packages")
            assert not re.match(r"(ARG|ENV)\b.*(TOKEN|PASSWORD|INDEX|CERT)", line)


def test_the_packages_do_not_depend_on_the_source():
    packages = next(stage for stage in instructions() if stage[0].endswith("AS packages"))
    copied = " ".join(line for line in packages if line.startswith("COPY"))
    assert set(copied.split()) - {"COPY", "/locks/"} == {
        "components/images/build.txt", "components/images/kfp.txt", "components/images/${IMAGE}/${LOCK}"
    }  # fmt: skip


def test_the_build_sees_the_source_and_no_more():
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().split("\n")
    assert "*" in ignored
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        word for stage in instructions() for line in stage if line.startswith("COPY") and "--from" not in line
        for word in line.split()[1:-1]
    }  # fmt: skip
    assert {path.split("/")[0] for path in copied} == allowed


def test_the_images_carry_the_kfp_that_compiles_the_packages():
    assert pins(FOLDER / "kfp.txt") == {"kfp": kfp.__version__}


def test_the_gpu_lock_differs_in_nvidias_libraries_alone():
    plain, gpu = (pins(FOLDER / "tensorflow" / name) for name in ("requirements.txt", "requirements-gpu.txt"))
    assert plain.items() <= gpu.items(), "lock requirements-gpu.txt again; its first lines say how"
    assert all(name.startswith("nvidia-") for name in set(gpu) - set(plain))
    assert {"nvidia-cudnn-cu12", "nvidia-cublas-cu12"} <= set(gpu)


@pytest.mark.parametrize("lock", sorted(FOLDER.glob("*/requirements*.txt")), ids=lambda lock: f"{lock.parent.name}")
def test_every_pin_has_hashes(lock):
    requirements = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.M)[1:]
    assert requirements
    assert all("--hash=sha256:" in requirement for requirement in requirements)


# ------------------------------------------------------------------------------------------------------ the scripts


@pytest.fixture
def script(tmp_path):
    """Runs images.sh with a docker that writes down its calls; `buildx` and `built` say what that docker has."""
    stub = tmp_path / "docker"
    stub.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/calls
case "$1 $2" in
  "--version ") echo "Docker version $VERSION, build 0" ;;
  "buildx version") exit $NO_BUILDX ;;
  "image inspect") exit $NOT_BUILT ;;
esac
for word in "$@"; do
  case $word in id=index,src=*) cp "${{word#id=index,src=}}" {tmp_path}/index ;; esac
done
"""
    )
    stub.chmod(0o755)

    def run(*arguments, version="27.0.1", buildx=True, built=False, **environ):
        (tmp_path / "calls").unlink(missing_ok=True)
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
        settings = {"DOCKER": str(stub), "VERSION": version, "NO_BUILDX": str(int(not buildx)),
                    "NOT_BUILT": str(int(not built))}  # fmt: skip
        done = subprocess.run(
            ["bash", str(ROOT / "scripts/images.sh"), *arguments],
            env={**kept, **settings, **environ}, capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip
        done.calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        return done

    return run


def build_call(done):
    (call,) = [call for call in done.calls if "components/images/Dockerfile" in call]
    return call


def test_list_names_every_image_by_its_reference(script):
    done = script("list")
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()[1:]}
    assert {name: listed[name] for name in images.names()} == {name: images.image(name) for name in images.names()}
    assert listed["tensorflow-gpu"] == f"{images.REGISTRY}/tensorflow:{__version__}-gpu"


def test_build_passes_the_image_its_lock_and_the_labels(script):
    call = build_call(script("build", "validation"))
    assert call.startswith("buildx build --load ")
    assert f"-t {images.VALIDATION}" in call
    for argument in ("IMAGE=validation", "LOCK=requirements.txt", f"VERSION={__version__}"):
        assert f"--build-arg {argument}" in call
    assert re.search(r"--build-arg REVISION=[0-9a-f]{40}", call)
    assert re.search(r"--build-arg LOCK_SHA256=[0-9a-f]{64}\b", call)


def test_build_of_the_gpu_variant_takes_its_own_lock_and_tag(script):
    call = build_call(script("build", "tensorflow-gpu"))
    assert "--build-arg IMAGE=tensorflow --build-arg LOCK=requirements-gpu.txt" in call
    assert f"-t {images.TENSORFLOW}-gpu" in call


def test_build_leaves_the_large_gpu_variant_to_those_who_name_it(script):
    done = script("build")
    assert sorted(re.findall(r"-t \S+/(\S+):", "\n".join(done.calls))) == images.names()
    assert "-gpu" not in "\n".join(done.calls)


def test_build_takes_base_registry_certificates_and_index_from_the_environment(script, tmp_path):
    done = script("build", "deployment", BASE_IMAGE="mirror.example/python:3.11", REGISTRY="mirror.example/ml",
                  CA_CERTIFICATES="/etc/hosts", PIP_INDEX_URL="https://me:secret@mirror.example/simple")  # fmt: skip
    call = build_call(done)
    assert "--build-arg BASE_IMAGE=mirror.example/python:3.11" in call
    assert f"-t mirror.example/ml/deployment:{__version__}" in call
    assert "--secret id=ca,src=/etc/hosts" in call
    assert (tmp_path / "index").read_text() == "https://me:secret@mirror.example/simple"
    assert "secret@" not in "\n".join(done.calls) + done.stdout + done.stderr


def test_an_old_client_without_buildx_builds_with_its_own_buildkit(script):
    assert build_call(script("build", "deployment", version="20.10.24+dfsg1", buildx=False)).startswith("build ")


def test_a_client_that_cannot_build_with_secrets_is_refused(script):
    done = script("build", "deployment", version="28.2.2", buildx=False)
    assert done.returncode == 1
    assert "docker-buildx" in done.stderr and not [call for call in done.calls if "Dockerfile" in call]


def test_push_pushes_what_is_built(script):
    done = script("push", "deployment", built=True)
    assert f"push {images.DEPLOYMENT}" in done.calls


def test_push_for_several_platforms_says_which_image_cannot_have_them(script):
    done = script("push", "tensorflow", "validation", PLATFORMS="linux/amd64,linux/arm64")
    assert done.returncode == 0, done.stderr
    calls = [call for call in done.calls if "--push" in call]
    assert "--platform linux/amd64,linux/arm64 --push" in calls[0] and images.TENSORFLOW in calls[0]
    assert "--platform linux/amd64 --push" in calls[1] and images.VALIDATION in calls[1]
    (line,) = done.stderr.splitlines()
    assert line.startswith("validation: linux/amd64 instead of") and "no wheel for Linux on arm64" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["build", "nonsense"], "there is no image nonsense; there are: deployment"), (["nonsense"], "usage:"),
     ([], "usage:"), (["sbom", "deployment"], "scripts/images.sh build deployment")],
)  # fmt: skip
def test_a_wrong_call_is_answered_with_one_line(script, arguments, message):
    done = script(*arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and message in line


def test_the_sbom_program_runs_where_there_is_only_python_and_dpkg():
    if not shutil.which("dpkg-query"):
        pytest.skip("this is no Debian")
    program = ROOT / "scripts" / "image_sbom.py"
    done = subprocess.run(["python3", "-I", str(program), "image:1"], capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    references = [component["bom-ref"] for component in document["components"]]
    assert len(references) == len(set(references)) > 50
