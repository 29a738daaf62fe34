"""What the installer of manifests/ does, against an installation on this machine and a real S3 server."""

import logging
import sys
from pathlib import Path

import pytest
import yaml

from kfp_hybrid import __version__, images, install
from kfp_hybrid.sources import pipeline_names
from kfp_hybrid.step import StepError

sys.path.insert(0, str(Path(__file__).parents[2] / "servers"))

from s3_server import ACCESS_KEY, SECRET_KEY, serve_s3

UPLOAD, CREATE = "POST /apis/v2beta1/pipelines/upload_version", "POST /apis/v2beta1/pipelines"


@pytest.fixture
def profile(tmp_path):
    """Writes a profile."""

    def write(**keys):
        lines = ["[targets.onprem]", 'kind = "kubeflow"', *(f'{key} = "{value}"' for key, value in keys.items())]
        file = tmp_path / "kfp-hybrid.toml"
        file.write_text("\n".join(lines))
        return file

    return write


@pytest.fixture
def one_package(tmp_path):
    """A folder with the smallest of the released packages."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "hello.yaml").write_text((install.PACKAGES / "hello.yaml").read_text())
    return folder


def images_of(version):
    executors = version["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    return {executor["container"]["image"] for executor in executors.values() if "container" in executor}


def test_every_released_pipeline_is_uploaded_as_a_version_of_the_release(installation, profile):
    install.upload_pipelines(installation.url, profile())
    assert len(installation.pipelines) == len(pipeline_names())
    assert {each["display_name"] for each in installation.versions.values()} == {__version__}
    assert all(pipeline["description"] for pipeline in installation.pipelines.values())


def test_doing_it_again_changes_nothing(installation, profile, caplog):
    install.upload_pipelines(installation.url, profile())
    before = dict(installation.pipelines), dict(installation.versions)
    caplog.set_level(logging.INFO)
    install.upload_pipelines(installation.url, profile())
    assert (installation.pipelines, installation.versions) == before
    assert f"hello {__version__} is there already" in caplog.messages


def test_images_come_from_the_registry_of_the_profile_wherever_a_package_names_them(installation, profile):
    install.upload_pipelines(installation.url, profile(registry="registry.internal:5000/ml"))
    for version in installation.versions.values():
        assert all(image.startswith("registry.internal:5000/ml/") for image in images_of(version))
        assert images.REGISTRY not in yaml.safe_dump(version)


def test_a_version_of_an_image_in_the_profile_is_taken(installation, profile, one_package):
    file = profile()
    file.write_text(file.read_text() + '\n[targets.onprem.images]\ndeployment = "sha256:' + "4f" * 32 + '"\n')
    install.upload_pipelines(installation.url, file, one_package)
    (version,) = installation.versions.values()
    assert images_of(version) == {f"{images.REGISTRY}/deployment@sha256:{'4f' * 32}"}


def test_the_next_release_is_another_version_of_the_same_pipeline(installation, profile, one_package):
    for release in ("0.1.0", "0.2.0"):
        install.upload_pipelines(installation.url, profile(), one_package, release)
    assert len(installation.pipelines) == 1
    assert [each["display_name"] for each in installation.versions.values()] == ["0.1.0", "0.2.0"]


def test_a_version_that_runs_something_else_is_left_alone_and_reported(installation, profile, one_package):
    install.upload_pipelines(installation.url, profile(), one_package)
    with pytest.raises(StepError, match=r"pipeline hello has a version .* whose steps are others"):
        install.upload_pipelines(installation.url, profile(registry="elsewhere.internal/ml"), one_package)
    assert len(installation.versions) == 1


@pytest.mark.parametrize("request_", [UPLOAD, CREATE])
def test_a_lost_answer_makes_nothing_twice(installation, profile, one_package, request_):
    installation.fail(request_, cut=True, after=True)
    install.upload_pipelines(installation.url, profile(), one_package)
    assert len(installation.pipelines) == len(installation.versions) == 1


def test_a_busy_server_is_asked_again(installation, profile, one_package, caplog):
    installation.fail("GET /apis/v2beta1/pipelines", status=503)
    install.upload_pipelines(installation.url, profile(), one_package)
    assert len(installation.versions) == 1
    assert "HTTP status 503" in caplog.text


def test_a_pod_signs_in_with_its_token_and_uploads_to_its_namespace(installation, profile, one_package, tmp_path):
    installation.namespaces = {"team-a"}
    installation.token = "of-the-pod"
    token = tmp_path / "token"
    token.write_text("of-the-pod\n")
    (documents,) = install.packages(one_package, {})
    server = install.Server(installation.url, "team-a", token)
    assert server.register("hello", "", documents, __version__) is True
    assert server.register("hello", "", documents, __version__) is False
    (pipeline,) = installation.pipelines.values()
    assert pipeline["namespace"] == "team-a"


def test_a_refusal_is_reported_in_one_line_with_what_the_server_said(installation, profile, one_package):
    installation.namespaces = {"team-a"}
    with pytest.raises(StepError, match=r"look for the pipeline hello: the server answers 403: .*namespace team-b"):
        install.upload_pipelines(installation.url, profile(namespace="team-b"), one_package)


def test_a_server_that_is_another_is_noticed(serve, profile, one_package):
    elsewhere = serve(lambda request: (200, "<html>Welcome</html>"))
    with pytest.raises(StepError, match="does not answer like Kubeflow Pipelines"):
        install.upload_pipelines(elsewhere.url, profile(), one_package)


def test_a_profile_without_one_kubeflow_target_is_refused(tmp_path):
    file = tmp_path / "kfp-hybrid.toml"
    file.write_text("")
    with pytest.raises(StepError, match="must have one target of kind kubeflow, not 0"):
        install.upload_pipelines("http://127.0.0.1:1", file)


def test_buckets_are_made_once_and_a_wrong_key_is_reported_without_showing_it(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    with serve_s3(tmp_path / "store") as server:
        for name, value in {
            "S3_ENDPOINT": server.url, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        install.make_buckets(["mlpipeline", "models"])
        install.make_buckets(["mlpipeline", "models"])
        assert {path.name for path in server.folder.iterdir()} == {"mlpipeline", "models"}
        assert caplog.messages == [
            "made bucket mlpipeline", "made bucket models",
            "bucket mlpipeline is there already", "bucket models is there already",
        ]  # fmt: skip
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-key")
        with pytest.raises(StepError, match="could not make the bucket models") as refused:
            install.make_buckets(["models"])
        assert "not-the-key" not in str(refused.value) + caplog.text
