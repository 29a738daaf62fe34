"""KH4: what steps run, and in which images."""

import functools
import subprocess
import sys

import pytest
import uv
from kfp import dsl
from rich.console import Console

from kfp_hybrid import images
from kfp_hybrid.errors import UserError
from kfp_hybrid.targets.local import LocalTarget

step = functools.partial(dsl.component, base_image=images.DEPLOYMENT, install_kfp_package=False)


def pipeline_of(component):
    @dsl.pipeline(name="p")
    def pipeline():
        component()

    return pipeline


def python_in(image, **options):
    @dsl.component(base_image=image, **{"install_kfp_package": False, **options})
    def work():
        pass

    return pipeline_of(work)


def container_of(image):
    @dsl.container_component
    def work():
        return dsl.ContainerSpec(image=image, command=["true"])

    return pipeline_of(work)


def refusal(package, tmp_path):
    """What the local target says to a package before it starts anything."""
    with pytest.raises(UserError) as refused:
        LocalTarget(tmp_path / "cache", folder=tmp_path / "runs").run(package, {}, Console(quiet=True))
    return str(refused.value)


# KH401 container-component


def test_a_container_component_is_an_error_of_a_local_run(broken, package, tmp_path):
    pipeline = container_of(images.DEPLOYMENT)
    assert broken(pipeline) == {("KH401", "work", "local", "error")}
    assert "is a container component" in refusal(package(pipeline), tmp_path)


def test_a_python_component_in_an_image_of_this_collection_is_fine(broken):
    assert broken(python_in(images.VALIDATION)) == set()  # none of KH401, KH402, KH403, KH404


# KH402 image-lock


def test_an_image_without_a_lock_file_is_an_error_of_a_local_run(broken, package, tmp_path):
    pipeline = python_in("python:3.11")
    assert broken(pipeline) == {("KH402", "work", "local", "error")}
    assert "has no lock file" in refusal(package(pipeline), tmp_path)


@pytest.mark.parametrize(
    "image", ["registry.example:5000/ml/tensorflow:2.0", "mirror.example/deployment@sha256:" + "0" * 64]
)
def test_an_image_of_this_collection_from_a_mirror_is_fine(broken, image):
    assert broken(python_in(image)) == set()  # neither KH402 nor KH403


# KH403 image-tag


@pytest.mark.parametrize("image", ["busybox", "busybox:latest", "registry.example:5000/busybox"])
def test_an_image_that_can_change_is_a_warning_on_clusters(broken, image):
    found = {finding for finding in broken(container_of(image)) if finding[0] == "KH403"}
    assert found == {("KH403", "work", "kubeflow", "warning"), ("KH403", "work", "vertex", "warning")}


@pytest.mark.parametrize(
    "image",
    [
        "busybox:1.37",
        "registry.example:5000/busybox:1.37",
        f"busybox@sha256:{'0' * 64}",
        f"busybox:latest@sha256:{'0' * 64}",
    ],
)
def test_an_image_with_a_version_or_a_digest_is_fine(broken, image):
    assert {rule for rule, *_ in broken(container_of(image))} == {"KH401"}  # so KH403 is not among them


# KH404 runtime-install


@pytest.mark.parametrize("options", [{"install_kfp_package": True}, {"packages_to_install": ["six==1.17.0"]}])
def test_installing_with_pip_when_a_step_starts_is_an_error_of_a_local_run_and_a_warning_elsewhere(broken, options):
    assert broken(python_in(images.DEPLOYMENT, **options)) == {
        ("KH404", "work", "local", "error"),
        ("KH404", "work", "kubeflow", "warning"),
        ("KH404", "work", "vertex", "warning"),
    }


def test_the_environment_of_an_image_has_no_pip(tmp_path):
    """Made as the local target makes one: this is why the rule is an error there."""
    subprocess.run([uv.find_uv_bin(), "venv", "--quiet", "--python", sys.executable, str(tmp_path / "env")], check=True)
    done = subprocess.run([tmp_path / "env/bin/python", "-m", "pip", "--version"], capture_output=True, text=True)
    assert "No module named pip" in done.stderr


def test_code_that_only_speaks_of_pip_is_fine(broken):
    @step()
    def work():
        """Do not pip install anything here."""
        print("pip install six")

    assert broken(pipeline_of(work)) == set()  # so KH404 is not among them


# KH405 google-cloud-only


def test_a_google_cloud_component_is_an_error_off_vertex(broken):
    model = pytest.importorskip(
        "google_cloud_pipeline_components.v1.model", reason="the extra [vertex] is not installed"
    )

    @dsl.pipeline(name="p")
    def pipeline(project: str):
        model.ModelUploadOp(display_name="m", project=project)

    found = broken(pipeline)
    assert found == {("KH405", "model-upload", "local", "error"), ("KH405", "model-upload", "kubeflow", "error")}


def test_the_image_of_google_cloud_components_is_an_error_off_vertex(broken):
    image = "gcr.io/ml-pipeline/google-cloud-pipeline-components:2.22.0"
    assert broken(container_of(image)) == {("KH405", "work", "local", "error"), ("KH405", "work", "kubeflow", "error")}


def test_a_custom_job_is_an_error_off_vertex(broken, package):
    compiled = package(container_of("busybox:1.37"))
    # kfp 2 writes no such executor any more; packages of older compilers have one
    executors = {"exec-work": {"customJob": {"customJob": {"jobSpec": {"workerPoolSpecs": []}}}}}
    compiled.spec.deployment_spec.update({"executors": executors})
    assert broken(compiled) == {("KH405", "work", "local", "error"), ("KH405", "work", "kubeflow", "error")}


def test_a_container_that_is_not_of_google_cloud_pipeline_components_is_fine(broken):
    found = broken(container_of("registry.example/tools/google-cloud-sdk:500"), ["kubeflow", "vertex"])
    assert found == set()  # so KH405 is not among them
