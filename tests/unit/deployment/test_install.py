"""The Jobs of manifests/ run in this image: it has what they import, and the packages that they upload."""

import subprocess
import sys

import pytest

from kfp_hybrid import __version__, images, install


@pytest.mark.parametrize("command", ["pipelines", "buckets"])
def test_the_image_has_what_the_installer_imports(command):
    done = subprocess.run(
        [sys.executable, "-m", "kfp_hybrid.install", command, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_image_has_the_packages_and_they_name_the_images_of_the_target():
    found = list(install.packages(install.PACKAGES, {"registry": "registry.internal:5000/ml"}))
    assert "hello" in {documents[0]["pipelineInfo"]["name"] for documents in found}
    assert images.REGISTRY not in str(found)


def test_the_variant_with_cuda_is_that_of_the_target_too(tmp_path):
    (tmp_path / "package.yaml").write_text(f"image: {images.TENSORFLOW_GPU}\n")
    found = list(install.packages(tmp_path, {"registry": "registry.internal:5000/ml"}))
    assert found == [[{"image": f"registry.internal:5000/ml/tensorflow:{__version__}-gpu"}]]


def test_a_server_that_is_not_there_is_reported_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(install, "RETRY_SECONDS", 0.1)
    profile = tmp_path / "kfp-hybrid.toml"
    profile.write_text('[targets.onprem]\nkind = "kubeflow"\n')
    with pytest.raises(install.StepError, match=r"could not upload \S+ to http://127.0.0.1:1: NewConnectionError"):
        install.upload_pipelines("http://127.0.0.1:1", profile)
