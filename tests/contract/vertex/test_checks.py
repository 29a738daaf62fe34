"""What doctor looks at for a Vertex AI target."""

import math

import pytest
from fake_google import ACCOUNT, REPOSITORY

from kfp_hybrid import images
from kfp_hybrid.errors import UserError
from kfp_hybrid.targets.doctor import CheckWarning
from kfp_hybrid.targets.vertex import checks

SECRET = "projects/ml-production/secrets/s3-secret-key/versions/latest"


def look(target):
    """What each check finds: words, or the error."""
    found = {}
    for check in target.checks():
        try:
            found[check.title] = check.run()
        except UserError as error:
            found[check.title] = error
            if check.needed:
                break
    return found


@pytest.fixture
def sound(server, open_target):
    return open_target(service_account=ACCOUNT, template_repository=REPOSITORY)


def one(found, words):
    (result,) = [result for title, result in found.items() if words in title]
    return result


def test_a_sound_project_passes_every_check_and_nothing_is_left_behind(google, sound):
    found = look(sound)
    assert not [result for result in found.values() if isinstance(result, UserError)], found
    assert one(found, "service account") == f"you may act as {ACCOUNT}"
    assert one(found, "the image tensorflow") == "sha256:d"
    assert len(found) == 6 + len(images.names())
    assert google.bucket.objects == {}


def test_without_credentials_nothing_else_is_tried(open_target):
    found = look(open_target())
    assert list(found) == ["there are Google Cloud credentials"]
    assert "gcloud auth application-default login" in str(one(found, "credentials"))


def test_an_api_that_is_off_is_named_with_the_command(server, sound):
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED",
                "metadata": {"service": "aiplatform.googleapis.com"}}]  # fmt: skip
    body = {"error": {"code": 403, "message": "Vertex AI API is disabled.", "details": details}}
    server.fail("GET /v1/projects/*/pipelineJobs", status=403, body=body, times=math.inf)
    assert "run `gcloud services enable aiplatform.googleapis.com" in str(one(look(sound), "Vertex AI answers"))


def test_a_wrong_region_is_an_error(server, open_target, monkeypatch):
    monkeypatch.setattr(checks, "PATIENCE", 0.1)
    found = look(open_target(location="europe-west77"))
    assert "cannot reach europe-west77-aiplatform.googleapis.com" in str(list(found.values())[-1])


def test_a_bucket_that_cannot_be_written_is_an_error(server, sound):
    server.fail("POST /upload/*", status=403, body={"error": {"message": "No access."}}, times=math.inf)
    assert "ask for roles/storage.objectUser" in str(one(look(sound), "can be written"))


def test_a_service_account_that_may_not_be_used_is_an_error(google, sound):
    google.permissions = []
    result = one(look(sound), "service account")
    assert str(result) == f"you may not act as {ACCOUNT}; ask for roles/iam.serviceAccountUser on it"
    assert not isinstance(result, CheckWarning)


def test_a_service_account_that_cannot_be_looked_at_is_a_warning(server, sound):
    server.fail("POST /v1/projects/-/*", status=403, body={"error": {"message": "IAM API off."}}, times=math.inf)
    assert isinstance(one(look(sound), "service account"), CheckWarning)


def test_the_service_account_of_compute_engine_is_a_warning(target):
    assert isinstance(one(look(target), "service account"), CheckWarning)


@pytest.fixture
def secretive(server, open_target):
    return open_target(secrets={"storage": {"env": {"AWS_SECRET_ACCESS_KEY": SECRET}}})


def test_a_secret_is_looked_for_and_its_value_is_not_read(google, secretive):
    google.secrets[SECRET] = "ENABLED"
    assert one(look(secretive), "secret storage") == SECRET


def test_a_secret_that_is_missing_or_off_is_an_error(google, secretive):
    assert str(one(look(secretive), "secret storage")) == f"there is no secret version {SECRET}; make it"
    google.secrets[SECRET] = "DISABLED"
    assert str(one(look(secretive), "secret storage")) == f"{SECRET} is disabled; enable it, or name another version"


def test_a_secret_that_only_steps_may_see_is_a_warning(server, secretive):
    server.fail("GET /v1/projects/*/secrets/*", status=403, body={"error": {"message": "No."}}, times=math.inf)
    result = one(look(secretive), "secret storage")
    assert isinstance(result, CheckWarning) and "roles/secretmanager.secretAccessor" in str(result)


def test_a_missing_image_is_an_error(google, sound):
    google.images.discard("ml-production/ml/tensorflow")
    result = one(look(sound), "the image tensorflow")
    assert "has no image europe-west4-docker.pkg.dev/ml-production/ml/tensorflow" in str(result)


def test_a_registry_that_vertex_ai_does_not_pull_from_is_a_warning(google, server, open_target, monkeypatch):
    monkeypatch.setattr(checks, "image_in_registry", lambda reference, credentials: "sha256:d")
    result = one(look(open_target(registry="ghcr.io/kfp-hybrid")), "the image tensorflow")
    assert isinstance(result, CheckWarning)
    assert "make a remote repository for ghcr.io" in str(result)


def test_a_missing_template_repository_is_an_error(server, sound):
    server.fail("GET /v1/projects/*/repositories/*", status=404, body={"error": {"message": "No repository."}})
    assert str(one(look(sound), "registered")).startswith("cannot list the templates: 404 No repository")


def test_without_a_template_repository_the_place_in_the_bucket_is_named(target):
    assert one(look(target), "registered") == "they go to gs://ml-production-pipelines/root/packages"
