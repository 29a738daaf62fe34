"""The target, the real clients below it, and Google Cloud on this machine."""

import json
import sys
from pathlib import Path

import pytest
from kfp import dsl

sys.path.insert(0, str(Path(__file__).parent))  # for the servers' modules
from fake_google import FakeGoogle
from local_proxy import LocalProxy

from kfp_hybrid.package import Package
from kfp_hybrid.profiles import Resources, VertexProfile
from kfp_hybrid.targets.vertex import VertexTarget
from kfp_hybrid.targets.vertex.client import Client


@pytest.fixture
def google():
    """What the services hold."""
    return FakeGoogle()


@pytest.fixture
def server(google, serve, authority, no_environment, monkeypatch, tmp_path):
    """The server that plays them, under their own names."""
    server = serve(google)
    proxy = LocalProxy(authority, set(google.hosts), server.port)
    bundle, credentials = tmp_path / "ca.pem", tmp_path / "credentials.json"
    authority.cert_pem.write_to_path(bundle)
    credentials.write_text(json.dumps({
        "type": "authorized_user",
        "client_id": "an-id", "client_secret": "a-secret", "refresh_token": "a-refresh-token",
    }))  # fmt: skip
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials))
    yield server
    proxy.stop()


@pytest.fixture(autouse=True)
def no_google_environment(monkeypatch, tmp_path):
    """No project or credentials of whoever runs the tests, and no machine of Google Cloud."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture
def open_target():
    """Makes a target of the usual profile and what it is given besides."""

    def make(*, patience=60.0, **settings):
        profile = VertexProfile(**{
            "kind": "vertex", "project": "ml-production", "location": "europe-west4",
            "pipeline_root": "gs://ml-production-pipelines/root",
            "registry": "europe-west4-docker.pkg.dev/ml-production/ml", **settings,
        })  # fmt: skip
        target = VertexTarget("cloud", profile, lambda name: Resources())
        target.client = Client(profile, patience=patience)
        return target

    return make


@pytest.fixture
def target(server, open_target):
    return open_target()


@dsl.component(base_image="ghcr.io/elsewhere/tools:1", install_kfp_package=False)
def concatenate(first: str, second: str) -> str:
    return first + second


@dsl.component(base_image="ghcr.io/elsewhere/tools:1", install_kfp_package=False)
def reverse(text: str) -> str:
    return text[::-1]


@dsl.pipeline(name="greet", description="Greet, backwards.")
def greet(first: str, times: int = 1, names: list = ["world"]):
    task = concatenate(first=first, second="world").set_caching_options(False)
    reverse(text=task.output)


@pytest.fixture
def write_package(tmp_path, open_target):
    """Compiles a pipeline for the target."""

    def write(pipeline=greet):
        file = tmp_path / "package.yaml"
        open_target().compile(pipeline, file)
        return Package.load(file)

    return write


@pytest.fixture
def package(write_package):
    return write_package()
