"""Starting runs on Vertex AI."""

import json
import math
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from fake_google import ACCOUNT, REPOSITORY
from fake_vertex import HOST
from kfp import dsl

from kfp_hybrid.errors import UserError
from kfp_hybrid.targets.vertex import runs

CREATE = "POST /v1/projects/*/pipelineJobs"
PROFILE = {
    "service_account": ACCOUNT,
    "encryption_key": "projects/ml-production/locations/europe-west4/keyRings/ml/cryptoKeys/pipelines",
    "network": "projects/123456789012/global/networks/ml",
    "reserved_ip_ranges": ["vertex-ai-range"],
    "labels": {"team": "ml"},
}
ATTACHMENT = "projects/ml-production/regions/europe-west4/networkAttachments/vertex"


def only_job(google):
    (job,) = google.vertex.jobs.values()
    return job


def test_a_run_has_all_that_the_profile_says(google, server, open_target, package):
    open_target(**PROFILE).submit(package, {"first": "hello", "times": 2, "names": ["a", "b"]})
    job = only_job(google)
    assert job.display_name == "greet"
    assert job.service_account == PROFILE["service_account"]
    assert job.encryption_spec.kms_key_name == PROFILE["encryption_key"]
    assert job.network == PROFILE["network"]
    assert list(job.reserved_ip_ranges) == ["vertex-ai-range"]
    assert dict(job.labels) == {"team": "ml"}
    assert job.runtime_config.gcs_output_directory == "gs://ml-production-pipelines/root"
    assert job.runtime_config.failure_policy.name == "PIPELINE_FAILURE_POLICY_FAIL_SLOW"
    assert dict(job.runtime_config.parameter_values) == {"first": "hello", "times": 2, "names": ["a", "b"]}


def test_a_run_can_have_a_private_service_connect_interface(google, server, open_target, package):
    open_target(network_attachment=ATTACHMENT).submit(package, {"first": "hello"})
    assert only_job(google).psc_interface_config.network_attachment == ATTACHMENT


def test_a_plain_profile_asks_for_nothing_special(google, target, package):
    target.submit(package, {"first": "hello"})
    job = only_job(google)
    assert not (job.service_account or job.network or job.labels)
    assert "psc_interface_config" not in job and "encryption_spec" not in job


def test_the_run_is_reported_with_its_page_in_the_console(target, package):
    status = target.submit(package, {"first": "hello"})
    assert (status.name, status.state) == ("greet", "waiting")
    assert re.fullmatch(r"greet-\d{8}-\d{6}-[0-9a-f]{6}", status.id)
    assert status.url == (
        "https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/"
        f"{status.id}?project=ml-production"
    )
    assert status.created is not None


def test_runs_of_a_pipeline_with_the_longest_name_have_ids_of_their_own(google, target, write_package):
    @dsl.component(base_image="ghcr.io/elsewhere/tools:1", install_kfp_package=False)
    def nothing():
        pass

    @dsl.pipeline(name="a" * 113)
    def long():
        nothing()

    package = write_package(long)
    assert target.submit(package, {}).id != target.submit(package, {}).id
    assert all(len(job_id) <= 128 for job_id in google.vertex.jobs)


def caching_of(job):
    return {
        name: bool(task["cachingOptions"].get("enableCache"))
        for name, task in job.pipeline_spec["root"]["dag"]["tasks"].items()
    }


def test_caching_is_left_to_the_steps(google, target, package):
    target.submit(package, {"first": "hello"})
    assert caching_of(only_job(google)) == {"concatenate": False, "reverse": True}


def test_without_caching_no_step_takes_earlier_results(google, target, package):
    target.submit(package, {"first": "hello"}, caching=False)
    assert caching_of(only_job(google)) == {"concatenate": False, "reverse": False}


def test_only_the_vertex_api_is_asked_and_no_bucket_is_looked_for(server, target, package):
    target.submit(package, {"first": "hello"})
    hosts = [request.headers["Host"] for request in server.requests]
    assert hosts == ["oauth2.googleapis.com", HOST]


def test_another_address_of_the_api_can_be_given(google, server, open_target, package):
    open_target(api_endpoint=server.url).submit(package, {"first": "hello"})
    assert server.sent(CREATE)[0].headers["Host"] == f"127.0.0.1:{server.port}"


def test_a_service_account_signs_in_with_its_key(google, server, open_target, package, monkeypatch, tmp_path):
    key = rsa.generate_private_key(65537, 2048)
    google.key = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    file = tmp_path / "key.json"
    file.write_text(json.dumps({
        "type": "service_account", "client_email": ACCOUNT, "token_uri": "https://oauth2.googleapis.com/token",
        "private_key_id": "1",
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    }))  # fmt: skip
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    target = open_target(template_repository=REPOSITORY)
    target.submit(package, {"first": "hello"})
    assert target.register(package, version="1.0.0").new


# ------------------------------------------------------------------------------- what is refused before it is sent


@pytest.mark.parametrize("arguments, message", [
    ({}, "pipeline greet needs a value for: first"),
    ({"first": 1}, "parameter first takes a text"),
    ({"first": "hello", "tiems": 1}, "has no parameter tiems; did you mean times"),
    ({"first": "x" * 131_072}, "the value of parameter first has 128 KiB, and a step cannot start with 128 KiB"),
])  # fmt: skip
def test_wrong_values_are_refused(server, target, package, arguments, message):
    with pytest.raises(UserError, match=message):
        target.submit(package, arguments)
    assert not server.requests


def test_a_package_that_would_fail_is_refused(server, target, package):
    package.spec.pipeline_info.name = "1st"
    with pytest.raises(UserError, match=r"^1st would fail on cloud: the name 1st does not start .*KH002"):
        target.submit(package, {"first": "hello"})
    assert not server.requests


def test_missing_credentials_are_one_line_with_the_command(open_target, package):
    with pytest.raises(UserError, match=r"there are no usable Google Cloud credentials .*gcloud auth"):
        open_target().submit(package, {"first": "hello"})


def test_revoked_credentials_are_one_line_with_the_command(server, tmp_path, target, package):
    credentials = tmp_path / "credentials.json"
    credentials.write_text(credentials.read_text().replace("a-refresh-token", "revoked"))
    with pytest.raises(UserError, match=r"cannot start the run: .*revoked.*; run `gcloud auth"):
        target.submit(package, {"first": "hello"})


# ------------------------------------------------------------------------------------------------- what goes wrong


def refusal(code, message, *, reason=None):
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com",
                "metadata": {"service": "aiplatform.googleapis.com"}}] if reason else []  # fmt: skip
    return {"status": code, "body": {"error": {"code": code, "message": message, "details": details}}}


@pytest.mark.parametrize("fault, message", [
    (refusal(400, "Invalid field."), "cannot start the run: 400 Invalid field$"),
    (refusal(401, "Bad token."), "401 Bad token; run `gcloud auth application-default login`"),
    (refusal(403, "Permission 'aiplatform.pipelineJobs.create' denied."),
     "pipelineJobs.create' denied; ask for roles/aiplatform.user in project ml-production"),
    (refusal(403, "Vertex AI API has not been used in project 1 before.", reason="SERVICE_DISABLED"),
     "run `gcloud services enable aiplatform.googleapis.com --project ml-production`"),
    (refusal(403, "You do not have permission to act as service account: pipelines@ml-production."),
     "ask for roles/iam.serviceAccountUser on pipelines@ml-production.iam.gserviceaccount.com"),
    (refusal(404, "Project not found."), "see that project ml-production and location europe-west4 are right"),
])  # fmt: skip
def test_a_refusal_is_one_line_with_what_to_do(google, server, open_target, package, fault, message):
    server.fail(CREATE, times=math.inf, **fault)
    with pytest.raises(UserError, match=message) as caught:
        open_target(**PROFILE).submit(package, {"first": "hello"})
    assert "\n" not in str(caught.value)
    assert "gave up" not in str(caught.value), "a refusal is not tried again"
    assert not google.vertex.jobs


@pytest.mark.parametrize(
    "fault", [refusal(429, "Quota."), refusal(500, "Oops."), refusal(503, "Later."), {"cut": True}]
)
def test_passing_trouble_is_tried_again_and_logged(google, server, target, package, no_pauses, caplog, fault):
    server.fail(CREATE, **fault)
    status = target.submit(package, {"first": "hello"})
    assert list(google.vertex.jobs) == [status.id]
    assert "cannot start the run: " in caplog.text and "; trying again" in caplog.text


@pytest.mark.parametrize("fault", [{"cut": True}, {"status": 503}, {"status": 200, "body": {}, "cut": True}])
def test_a_lost_answer_starts_no_second_run(google, server, target, package, no_pauses, fault):
    server.fail(CREATE, after=True, **fault)
    status = target.submit(package, {"first": "hello"})
    assert list(google.vertex.jobs) == [status.id]
    assert len(server.sent(CREATE)) == 2


def test_a_slow_service_is_given_up_on(server, open_target, package, monkeypatch):
    monkeypatch.setattr(runs, "TIMEOUT", 0.1)
    server.fail(CREATE, seconds=300, times=math.inf)
    with pytest.raises(UserError, match=f"cannot start the run: cannot reach {HOST}: no answer within .*gave up after"):
        open_target(patience=0.2).submit(package, {"first": "hello"})


def test_trouble_that_goes_on_is_given_up_on(server, open_target, package, no_pauses):
    server.fail(CREATE, times=math.inf, **refusal(503, "The service is currently unavailable."))
    with pytest.raises(UserError, match=r"503 The service is currently unavailable; gave up after 0.2 s"):
        open_target(patience=0.2).submit(package, {"first": "hello"})


def test_an_unknown_host_is_not_tried_again(server, open_target, package, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "vertex.invalid")
    with pytest.raises(UserError, match=r"cannot start the run: cannot reach vertex\.invalid: [^;]*$"):
        open_target(api_endpoint="https://vertex.invalid").submit(package, {"first": "hello"})


def test_a_certificate_of_somebody_else_is_not_tried_again(server, open_target, package, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    with pytest.raises(
        UserError, match=r"cannot start the run: cannot reach oauth2\.googleapis\.com: .*certificate[^;]*$"
    ):
        open_target().submit(package, {"first": "hello"})
