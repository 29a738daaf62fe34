"""Where the store is and who may use it: options, environment, a mounted secret."""

import pytest

from kfp_hybrid import storage
from kfp_hybrid.storage import StorageError, parse
from kfp_hybrid.storage.s3_access import _kfp_endpoint, credentials, endpoint


@pytest.mark.parametrize(
    ("uri", "environ", "expected"),
    [
        ("s3://b/k", {}, ("s3.amazonaws.com", True)),
        ("s3://b/k", {"S3_ENDPOINT": "http://store:9000"}, ("store:9000", False)),
        ("s3://b/k", {"AWS_ENDPOINT_URL": "https://store"}, ("store", True)),
        ("s3://b/k", {"AWS_ENDPOINT_URL": "https://a", "AWS_ENDPOINT_URL_S3": "https://b"}, ("b", True)),
        ("s3://b/k", {"S3_ENDPOINT": "store:9000"}, ("store:9000", True)),
        ("minio://b/k", {"S3_ENDPOINT": "store:9000"}, ("store:9000", False)),
        ("s3://b/k?endpoint=store:9000&disableSSL=true", {"S3_ENDPOINT": "other"}, ("store:9000", False)),
        ("minio://b/k?endpoint=store:9000&disableSSL=false&region=x", {}, ("store:9000", True)),
        ("s3://b/k?endpoint=http://store:9000", {}, ("store:9000", False)),
    ],
)
def test_the_endpoint_comes_from_the_options_then_the_environment_then_the_scheme(uri, environ, expected):
    assert endpoint(parse(uri), environ) == expected


@pytest.mark.parametrize("value", ["http://store/path", "user:password@store", "http://"])
def test_an_endpoint_that_is_none_is_refused_without_showing_passwords(value):
    with pytest.raises(StorageError, match="the S3 endpoint must be") as caught:
        endpoint(parse("s3://b/k"), {"S3_ENDPOINT": value})
    assert "password" not in str(caught.value)


def test_in_a_cluster_minio_is_the_store_of_kubeflow_pipelines_old_or_new():
    def knows(name):
        def resolve(host, port):
            if host != name:
                raise OSError

        return resolve

    location = parse("minio://mlpipeline/v2")
    assert _kfp_endpoint(location, knows("seaweedfs.kubeflow")) == "seaweedfs.kubeflow:9000"
    assert _kfp_endpoint(location, knows("minio-service.kubeflow")) == "minio-service.kubeflow:9000"
    with pytest.raises(StorageError, match="set S3_ENDPOINT"):
        _kfp_endpoint(location, knows("nothing"))


def test_a_mounted_secret_comes_first_and_is_read_again_when_it_changes(s3, s3_server, monkeypatch, tmp_path):
    from s3_server import ACCESS_KEY, SECRET_KEY

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (tmp_path / "accesskey").write_text("old-access-key\n")
    (tmp_path / "secretkey").write_text("old-secret-key\n")
    monkeypatch.setenv("S3_SECRET_DIR", str(tmp_path))
    store = storage.open_store(s3)
    with pytest.raises(StorageError, match="does not know the access key"):
        store.write_bytes("a", b"x")
    (tmp_path / "accesskey").write_text(ACCESS_KEY)
    (tmp_path / "secretkey").write_text(SECRET_KEY + "\n")
    store.write_bytes("a", b"x")
    assert store.read("a") == b"x"


def test_a_mounted_secret_that_is_not_there(s3, monkeypatch, tmp_path):
    monkeypatch.setenv("S3_SECRET_DIR", str(tmp_path))
    with pytest.raises(StorageError, match="has no readable files accesskey and secretkey"):
        storage.open_store(s3).read("a")


def test_aws_files_give_credentials(s3, monkeypatch, tmp_path):
    (tmp_path / "home/.aws").mkdir(parents=True)
    (tmp_path / "home/.aws/credentials").write_text("[default]\naws_access_key_id = K\naws_secret_access_key = S\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert credentials(is_aws=False).retrieve().access_key == "K"


def test_the_identity_of_the_workload_is_exchanged_for_credentials(monkeypatch, tmp_path):
    """As on EKS: the token of the pod goes to the security token service."""
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from urllib.parse import parse_qs, urlsplit

    asked = []

    class Sts(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            asked.append(parse_qs(urlsplit(self.path).query) | parse_qs(body))
            answer = (b'<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
                      b"<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ID</AccessKeyId>"
                      b"<SecretAccessKey>SECRET</SecretAccessKey><SessionToken>TOKEN</SessionToken>"
                      b"<Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>"
                      b"</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>")  # fmt: skip
            self.send_response(200)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Sts)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    (tmp_path / "token").write_text("the-token-of-the-pod")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/r")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.server_port}")
    found = credentials(is_aws=False).retrieve()
    server.shutdown()
    server.server_close()
    assert (found.access_key, found.secret_key, found.session_token) == ("ID", "SECRET", "TOKEN")
    assert asked[0]["WebIdentityToken"] == ["the-token-of-the-pod"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "empty"),
        ("hdfs://a/b", "cannot read hdfs://"),
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
        ("s3://b/../c", r"has \. or \.\."),
        ("file://host/path", "not a file of this machine"),
        ("s3://key:secret@b/c", "has credentials in it"),
    ],
)
def test_uris_that_name_nothing(uri, message):
    with pytest.raises(StorageError, match=message) as caught:
        parse(uri)
    assert "secret" not in str(caught.value)


def test_question_marks_may_belong_to_keys_and_patterns():
    assert parse("s3://b/data-?.csv").prefix == "data-?.csv"
    assert parse("s3://b/data-?.csv?endpoint=e").prefix == "data-?.csv"
    assert parse("s3://b/what?x=1").prefix == "what?x=1"
