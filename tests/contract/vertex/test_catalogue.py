"""Registering packages: a template repository of Artifact Registry, or Cloud Storage."""

import math

import pytest
from fake_google import REPOSITORY

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package
from kfp_hybrid.targets.vertex import catalogue

UPLOAD = "POST /ml-production/pipelines"
OBJECT = "root/packages/greet/1.0.0.yaml"
WRITE = "POST /upload/storage/v1/b/*/o"


@pytest.fixture
def with_templates(server, open_target):
    return open_target(template_repository=REPOSITORY)


@pytest.fixture
def changed(package):
    """Another content under the same name."""
    return Package(package.spec, package.text.replace("backwards", "twice"))


def test_a_package_becomes_a_template_tagged_with_its_version(google, with_templates, package):
    done = with_templates.register(package, version="1.0.0")
    assert (done.name, done.version, done.new) == ("greet", "1.0.0", True)
    assert done.url == f"{REPOSITORY}/greet/1.0.0"
    assert google.templates.versions[google.templates.tags["greet/1.0.0"]] == package.text.encode()


def test_the_same_template_again_changes_nothing(server, with_templates, package):
    first = with_templates.register(package, version="1.0.0")
    again = with_templates.register(package, version="1.0.0")
    assert (again.url, again.new) == (first.url, False)
    assert len(server.sent(UPLOAD)) == 1


def test_a_template_is_never_overwritten(google, with_templates, package, changed):
    with_templates.register(package, version="1.0.0")
    with pytest.raises(UserError, match=r"greet/1.0.0 is there with another content; register .* another --version"):
        with_templates.register(changed, version="1.0.0")
    assert google.templates.versions[google.templates.tags["greet/1.0.0"]] == package.text.encode()
    assert with_templates.register(changed, version="1.0.1").new


@pytest.mark.parametrize("fault", [{"status": 503}, {"cut": True}])
def test_uploading_a_template_is_tried_again(google, server, with_templates, package, no_pauses, fault):
    server.fail(UPLOAD, after=True, **fault)
    assert with_templates.register(package, version="1.0.0").new
    assert len(google.templates.versions) == 1


def test_a_refused_template_is_one_line_with_the_role(server, with_templates, package):
    server.fail(UPLOAD, status=403, body={"error": {"message": "Permission denied."}}, times=math.inf)
    with pytest.raises(UserError, match=r"^cannot upload the template: 403 .*; ask for roles/artifactregistry.writer"):
        with_templates.register(package, version="1.0.0")


def test_a_missing_repository_is_one_line(server, open_target, package):
    target = open_target(template_repository=f"{REPOSITORY}-old")
    server.fail("POST /ml-production/pipelines-old", status=404, body={"error": {"message": "No repository."}})
    with pytest.raises(UserError, match=r"cannot upload the template: 404 No repository; see that project"):
        target.register(package, version="1.0.0")


def test_a_repository_that_never_answers_is_given_up_on(server, open_target, package, monkeypatch):
    monkeypatch.setattr(catalogue, "TIMEOUT", 0.1)
    server.fail("GET /ml-production/pipelines/*", seconds=300, times=math.inf)
    with pytest.raises(UserError, match=r"cannot look for the template: .*no answer within"):
        open_target(template_repository=REPOSITORY, patience=0.2).register(package, version="1.0.0")


def test_another_kind_of_repository_is_refused(server, open_target, package):
    target = open_target(template_repository="https://europe-west4-docker.pkg.dev/ml-production/ml")
    with pytest.raises(UserError, match="is no repository of Artifact Registry for pipelines; it looks like https://"):
        target.register(package, version="1.0.0")


# --------------------------------------------------------------------------------------------------- Cloud Storage


def test_without_a_repository_a_package_goes_to_the_pipeline_root(google, target, package):
    done = target.register(package, version="1.0.0")
    assert (done.name, done.version, done.new) == ("greet", "1.0.0", True)
    assert done.url == f"gs://ml-production-pipelines/{OBJECT}"
    assert google.bucket.objects == {OBJECT: package.text.encode()}


@pytest.mark.parametrize("root, name", [
    ("gs://ml-production-pipelines", "packages/greet/1.0.0.yaml"),
    ("gs://ml-production-pipelines/a/b/", "a/b/packages/greet/1.0.0.yaml"),
])  # fmt: skip
def test_any_pipeline_root_will_do(google, server, open_target, package, root, name):
    assert open_target(pipeline_root=root).register(package, version="1.0.0").new
    assert list(google.bucket.objects) == [name]


def test_the_same_package_again_changes_nothing(server, target, package):
    target.register(package, version="1.0.0")
    assert not target.register(package, version="1.0.0").new
    assert len(server.sent(WRITE)) == 1


def test_a_package_is_never_overwritten(google, target, package, changed):
    target.register(package, version="1.0.0")
    with pytest.raises(UserError, match=r"1.0.0.yaml is there with another content; register .* another --version"):
        target.register(changed, version="1.0.0")
    assert google.bucket.objects == {OBJECT: package.text.encode()}


def test_of_two_that_register_at_once_the_second_does_not_overwrite(google, server, target, package):
    server.fail("GET /download/*", status=404)  # nothing is there; then somebody else's package is
    google.bucket.objects[OBJECT] = b"theirs"
    with pytest.raises(UserError, match="is there with another content"):
        target.register(package, version="1.0.0")
    assert google.bucket.objects == {OBJECT: b"theirs"}


@pytest.mark.parametrize("fault", [{"status": 503}, {"cut": True}, {"status": 429}])
def test_writing_a_package_is_tried_again(google, server, target, package, no_pauses, fault):
    server.fail(WRITE, after=True, **fault)
    target.register(package, version="1.0.0")
    assert google.bucket.objects == {OBJECT: package.text.encode()}


def test_a_missing_bucket_is_one_line(server, open_target, package):
    with pytest.raises(
        UserError, match=r"cannot write gs://no-such-bucket/.*: 404 The specified bucket does not exist"
    ):
        open_target(pipeline_root="gs://no-such-bucket").register(package, version="1.0.0")


def test_a_refusal_is_one_line_with_the_role(server, target, package):
    server.fail("GET /download/*", status=403, body={"error": {"message": "No access."}}, times=math.inf)
    with pytest.raises(
        UserError, match=r"^cannot look for the package: 403 .*; ask for roles/storage.objectUser"
    ) as caught:
        target.register(package, version="1.0.0")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["", "sha256:1", "a/b", "-1", "x" * 129])
def test_what_is_no_version_is_refused(server, target, package, version):
    with pytest.raises(UserError, match="is no name for a version"):
        target.register(package, version=version)
    assert not server.requests
