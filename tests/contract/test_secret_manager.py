"""Secrets of Secret Manager in the environment of a step, against a server that plays it and the token service."""

import base64
import json
import os
import re
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kfp_hybrid import secret_manager
from kfp_hybrid.google_api import GoogleApi
from kfp_hybrid.step import StepError, step

VALUE = "geheim-ß"
NAME = "projects/ml-production/secrets/s3/versions/3"
REFERENCE = f"secretmanager://{NAME}"


@pytest.fixture
def secrets():
    """What the server has: version -> value."""
    return {NAME: VALUE.encode()}


@pytest.fixture
def server(serve, secrets, no_pauses):
    def answer(request):
        if request.is_("POST", "/token"):
            return 200, {"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}
        assert request.headers["Authorization"] == "Bearer a-token"
        name = request.path.removeprefix("/v1/").removesuffix(":access")
        if name not in secrets:
            return 404, {
                "error": {"code": 404, "message": f"Secret Version [{name}] not found.", "status": "NOT_FOUND"}
            }
        data = base64.b64encode(secrets[name]).decode()
        return 200, {"name": name, "payload": {"data": data, "dataCrc32c": "123"}}

    return serve(answer)


@pytest.fixture
def credentials(server, tmp_path):
    """The file with the key of a service account that gets its tokens from the server."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "service-account.json"
    file.write_text(json.dumps({
        "type": "service_account", "client_email": "steps@ml-production.iam.gserviceaccount.com",
        "private_key": key.decode(), "token_uri": f"{server.url}/token",
    }))  # fmt: skip
    return file


@pytest.fixture
def api(server, credentials, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials))
    return GoogleApi(server.url, patience=60.0)


def test_references_become_values_and_other_variables_stay(api):
    environment = {"AWS_SECRET_ACCESS_KEY": REFERENCE, "HOME": "/root"}
    secret_manager.resolve(environment, api)
    assert environment == {"AWS_SECRET_ACCESS_KEY": VALUE, "HOME": "/root"}


def test_one_secret_that_cannot_be_read_leaves_all_references(api):
    environment = {"A": REFERENCE, "B": REFERENCE.replace("/3", "/4")}
    with pytest.raises(StepError, match=re.escape(f"reading the secret {NAME[:-1]}4 for B: 404 Secret Version")):
        secret_manager.resolve(environment, api)
    assert environment == {"A": REFERENCE, "B": REFERENCE.replace("/3", "/4")}


def test_what_is_no_text_is_refused_without_showing_it(api, secrets):
    secrets[NAME] = b"\xff\xfegeheim"
    with pytest.raises(StepError, match="is empty or is not UTF-8 text") as refused:
        secret_manager.resolve({"A": REFERENCE}, api)
    assert "geheim" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_denied_secret_says_what_to_grant(api, server):
    server.fail("GET *", status=403, body='{"error": {"code": 403, "message": "Permission denied."}}')
    with pytest.raises(StepError, match="403 Permission denied; grant this to the service account of the run"):
        secret_manager.resolve({"A": REFERENCE}, api)


@pytest.mark.parametrize("pattern", ["GET *", "POST /token"])
def test_passing_trouble_is_waited_out(api, server, pattern):
    environment = {"A": REFERENCE}
    server.fail(pattern, cut=True)
    server.fail(pattern, status=503)
    secret_manager.resolve(environment, api)
    assert environment == {"A": VALUE}


def test_without_credentials_the_error_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    with pytest.raises(StepError, match=r"no Google Cloud credentials: .*; run the step with a service account"):
        secret_manager.resolve({"A": REFERENCE})


def test_a_step_finds_values_and_logs_none(api, server, monkeypatch, capfd):
    monkeypatch.setattr(secret_manager, "ENDPOINT", server.url)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", REFERENCE)
    with step():
        assert os.environ["AWS_SECRET_ACCESS_KEY"] == VALUE
    assert VALUE not in "".join(capfd.readouterr())


def test_a_step_whose_secret_cannot_be_read_fails_in_one_line(server, api, monkeypatch, capfd, secrets):
    secrets.clear()
    monkeypatch.setattr(secret_manager, "ENDPOINT", server.url)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", REFERENCE)
    with pytest.raises(SystemExit, match="1"), step():
        pytest.fail("the step must not run")
    (said,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("error: "))
    assert said.startswith(f"error: reading the secret {NAME} for AWS_SECRET_ACCESS_KEY: 404")


def test_a_step_without_references_imports_no_google_client():
    code = "import sys; from kfp_hybrid.step import step\nwith step(): assert 'google.auth' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
