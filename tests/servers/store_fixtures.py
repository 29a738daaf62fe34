"""Fixtures: a place in each kind of store, and proxies that break the way there."""

import shutil

import pytest
from faulty_proxy import faulty_proxy
from gcs_server import Buckets, serve_gcs
from s3_server import ACCESS_KEY, SECRET_KEY, serve_s3


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """No credentials, endpoints or certificates of this machine, and little patience."""
    for name in ("S3_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "S3_SECRET_DIR", "AWS_SESSION_TOKEN",
                 "AWS_CA_BUNDLE", "AWS_PROFILE", "AWS_REGION", "AWS_WEB_IDENTITY_TOKEN_FILE",
                 "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS",
                 "STORAGE_EMULATOR_HOST"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("KFP_HYBRID_STORAGE_DEADLINE_SECONDS", "60")


@pytest.fixture
def s3(s3_server, monkeypatch):
    """A folder in a new bucket of a real S3 server: its URI."""
    monkeypatch.setenv("S3_ENDPOINT", s3_server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    bucket = s3_server.make_bucket()
    yield f"s3://{bucket}/folder"
    shutil.rmtree(s3_server.folder / bucket)


@pytest.fixture
def faults(s3, s3_server, monkeypatch):
    """A proxy before the S3 server; what it breaks is set by the test."""
    with faulty_proxy(s3_server.port) as (proxy, url):
        monkeypatch.setenv("S3_ENDPOINT", url)
        yield proxy


@pytest.fixture
def buckets():
    return Buckets()


@pytest.fixture
def gs(buckets, monkeypatch):
    """A new bucket of a local Google Cloud Storage: its URI."""
    with serve_gcs(buckets) as port:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        yield "gs://bucket/folder"


@pytest.fixture
def gs_faults(buckets, monkeypatch):
    with serve_gcs(buckets) as port, faulty_proxy(port) as (proxy, url):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        yield proxy


@pytest.fixture(params=["file", "s3", "gs"])
def place(request, tmp_path):
    """A new place in each kind of store."""
    return str(tmp_path / "store") if request.param == "file" else request.getfixturevalue(request.param)
