"""Stores and networks that fail: what may pass is tried again and said so, what may not is one line."""

import io
import re
import socket
import ssl
import threading
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time

import pytest
import trustme
from faulty_proxy import SLOW_DOWN, Answer, CutAnswer, CutRequest, Garbled, Slow, times

from kfp_hybrid import storage
from kfp_hybrid.storage import Entry, StorageError

LARGE = bytes(range(256)) * (80 << 10)  # 20 MiB: two parts, three ranges
FAULTS = {"503": SLOW_DOWN, "cut answer": CutAnswer(10), "cut request": CutRequest(100_000), "cut": CutRequest(0),
          "500": Answer(500, b"<Error><Code>InternalError</Code></Error>"), "slow": Slow(0.3),
          "429": Answer(429, b"", {"Retry-After": "1"})}  # fmt: skip


def is_data(request):
    return "/large" in request.path and "lock" not in request.path


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_what_passes_is_tried_again(request, kind, name, caplog):
    proxy = request.getfixturevalue("faults" if kind == "s3" else "gs_faults")
    place = request.getfixturevalue("s3") if kind == "s3" else "gs://bucket/folder"
    store = storage.open_store(place)
    upload = (
        (lambda r: r.method in ("PUT", "POST") and r.size > 1000) if kind == "s3" else (lambda r: r.method == "PUT")
    )
    proxy.fault = times(2, FAULTS[name], upload)
    written = store.write("large", io.BytesIO(LARGE), Entry("large", len(LARGE)))
    assert written.size == len(LARGE)
    proxy.fault = times(2, FAULTS[name], lambda r: r.method == "GET" and is_data(r))
    assert store.read("large") == LARGE
    if name != "slow":
        said = [record for record in caplog.records if record.levelname == "WARNING"]
        assert any(re.search(r"failed \(.+\).* for at most 60 s", record.getMessage()) for record in said)


def test_an_upload_whose_last_answer_is_lost_is_known_to_be_complete(faults, s3, tmp_path):
    """Asked again, the store knows no such upload any more."""
    is_last = lambda request: request.method == "POST" and "uploadId=" in request.path  # noqa: E731
    faults.fault = times(1, CutAnswer(0), is_last)
    (tmp_path / "large").write_bytes(LARGE)
    assert storage.upload(tmp_path / "large", f"{s3}/large").copied == 1
    assert sum(1 for request in faults.requests if is_last(request)) == 2
    assert storage.open_store(s3).read("large") == LARGE


def test_an_upload_whose_bytes_change_on_the_way_is_refused_by_the_store(faults, s3):
    faults.fault = lambda request: Garbled() if request.method == "PUT" else None
    for size in (7, len(LARGE)):
        with pytest.raises(storage.Damaged, match=r"the bytes changed on their way|gave the upload up"):
            storage.open_store(s3).write("a", io.BytesIO(LARGE[:size]), Entry("a", size))
        assert not storage.open_store(s3).exists("a")


def test_a_chunk_whose_bytes_change_on_the_way_is_noticed(gs_faults):
    gs_faults.fault = times(1, Garbled(), lambda request: request.method == "PUT")
    with pytest.raises(storage.Damaged):
        storage.open_store("gs://bucket/folder").write("a", io.BytesIO(LARGE), Entry("a", len(LARGE)))


def test_bytes_that_change_on_the_way_back_are_fetched_again(faults, s3, tmp_path, caplog):
    storage.open_store(s3).write_bytes("a", b"content")

    good = storage.open_store(s3).require("a")
    headers = {"ETag": f'"{good.tag}"', "x-amz-meta-sha256": good.sha256, "Content-Type": "binary/octet-stream"}
    is_get = lambda request: request.method == "GET" and request.path.endswith("/a")  # noqa: E731
    faults.fault = times(1, Answer(200, b"c0ntent", headers), is_get)
    storage.download(f"{s3}/", tmp_path / "out")
    assert (tmp_path / "out/a").read_bytes() == b"content"
    assert "sha256" in caplog.text
    faults.fault = times(9, Answer(200, b"c0ntent", headers), is_get)
    with pytest.raises(storage.Damaged, match="sha256"):
        storage.download(f"{s3}/", tmp_path / "out2")
    assert not list((tmp_path / "out2").glob("*"))


def test_a_store_that_stays_away_is_given_up_after_the_deadline(faults, s3, monkeypatch, caplog, retry_clock):
    monkeypatch.setenv("KFP_HYBRID_STORAGE_DEADLINE_SECONDS", "1")
    faults.fault = lambda request: SLOW_DOWN
    with pytest.raises(StorageError, match=r"the store refuses the request: SlowDown \(HTTP status 503\)"):
        list(storage.open_store(s3).entries())
    assert "attempt 2 follows" in caplog.text


def test_nothing_listens_at_the_endpoint(s3, monkeypatch):
    monkeypatch.setenv("KFP_HYBRID_STORAGE_DEADLINE_SECONDS", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("S3_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(StorageError, match="nothing answers at the endpoint"):
            storage.open_store(s3).read("a")


def test_an_unknown_host(s3, monkeypatch):
    monkeypatch.setenv("KFP_HYBRID_STORAGE_DEADLINE_SECONDS", "0")
    monkeypatch.setenv("S3_ENDPOINT", "http://store.invalid:9000")
    with pytest.raises(StorageError, match="the host of the endpoint is unknown"):
        storage.open_store(s3).read("a")


SECRET = "wrong-secret-key-that-nobody-may-see"


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("AWS_ACCESS_KEY_ID", "the store does not know the access key"),
        ("AWS_SECRET_ACCESS_KEY", "the secret key is wrong"),
    ],
)
@pytest.mark.parametrize("work", ["read", "write_bytes", "entries"])
def test_wrong_credentials_are_named_and_not_shown(s3, monkeypatch, caplog, variable, message, work):
    monkeypatch.setenv(variable, SECRET)
    caplog.set_level("DEBUG")
    store = storage.open_store(s3)
    with pytest.raises(StorageError, match=message) as caught:
        {"read": lambda: store.read("a"), "write_bytes": lambda: store.write_bytes("a", b""),
         "entries": lambda: list(store.entries())}[work]()  # fmt: skip
    assert SECRET not in str(caught.value) + repr(caught.getrepr()) + caplog.text
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert "\n" not in str(caught.value)


def test_no_credentials(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StorageError, match="there are no S3 credentials; set AWS_ACCESS_KEY_ID"):
        storage.open_store(s3).read("a")


def test_no_such_bucket(s3):
    with pytest.raises(StorageError, match="there is no such bucket"):
        list(storage.open_store("s3://no-such-bucket/folder").entries())
    with pytest.raises(StorageError, match="there is no such bucket"):
        storage.open_store("s3://no-such-bucket/folder").write_bytes("a", b"")


def test_access_denied(faults, s3):
    denied = Answer(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
    faults.fault = lambda request: denied
    with pytest.raises(StorageError, match="access denied; check the credentials"):
        storage.open_store(s3).read("a")


@pytest.mark.parametrize(("offset", "word"), [(3600, "behind"), (-3600, "ahead of")])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_wrong_clock_is_said_with_by_how_much(faults, s3, offset, word, method):
    skewed = Answer(403, b"<Error><Code>RequestTimeTooSkewed</Code><Message>skew</Message></Error>",
                    {"Content-Type": "application/xml", "Date": formatdate(time() + offset, usegmt=True)})  # fmt: skip
    faults.fault = lambda request: skewed
    store = storage.open_store(s3)
    with pytest.raises(StorageError, match=rf"clock is 3[56]\d\d s {word} the store's"):
        store.read("a") if method == "HEAD" else list(store.entries())


@pytest.mark.parametrize(("hours", "word"), [(1, "ahead of"), (-1, "behind")])
@pytest.mark.parametrize("work", ["read", "write_bytes", "entries"])
def test_a_wrong_clock_is_said_whatever_the_store_calls_it(s3, monkeypatch, hours, word, work):
    """A real server, which denies access to those whose clock is behind."""
    moved = timedelta(hours=hours)
    monkeypatch.setattr("minio.time.utcnow", lambda: datetime.now(timezone.utc) + moved)
    monkeypatch.setattr("kfp_hybrid.storage.s3_errors.time.time", lambda: time() + moved.total_seconds())
    store = storage.open_store(s3)
    with pytest.raises(StorageError, match=rf"clock is 3[56]\d\d s {word} the store's; set the clock"):
        {"read": lambda: store.read("a"), "write_bytes": lambda: store.write_bytes("a", b""),
         "entries": lambda: list(store.entries())}[work]()  # fmt: skip


def test_a_connection_that_the_store_closes_after_each_answer_is_replaced(faults, s3):
    storage.open_store(s3).write_bytes("a", b"content")
    faults.fault = lambda request: CutAnswer(1 << 20)  # after all of it
    store = storage.open_store(s3)
    for _ in range(3):
        assert store.read("a") == b"content"


@pytest.mark.parametrize(("status", "message"), [(401, "does not accept the credentials"), (403, "access denied"),
                                                (404, "there is no")])  # fmt: skip
def test_google_refuses(gs_faults, status, message):
    gs_faults.fault = lambda request: Answer(status, b'{"error": {"code": %d, "message": "no"}}' % status,
                                             {"Content-Type": "application/json"})  # fmt: skip
    store = storage.open_store("gs://bucket/folder")
    for work in (lambda: list(store.entries()), lambda: store.write_bytes("a", b""), lambda: store.read("a")):
        with pytest.raises(StorageError, match=message):
            work()


def test_no_google_credentials():
    with pytest.raises(StorageError, match="there are no Google credentials"):
        storage.open_store("gs://bucket/folder")


@pytest.fixture
def tls_server():
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            self.wfile.write(b"<ListBucketResult><Name>b</Name></ListBucketResult>")

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield authority, f"https://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_certificate_of_the_site_must_be_made_known(tls_server, s3, monkeypatch, tmp_path):
    authority, url = tls_server
    monkeypatch.setenv("S3_ENDPOINT", url)
    with pytest.raises(StorageError, match=r"certificate is not trusted .*AWS_CA_BUNDLE"):
        list(storage.open_store(s3).entries())
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    assert list(storage.open_store(s3).entries()) == []
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "nothing.pem"))
    with pytest.raises(StorageError, match=r"AWS_CA_BUNDLE names .*, which is no file"):
        storage.open_store(s3)


def test_tls_to_a_store_without_it(s3, monkeypatch, s3_server):
    monkeypatch.setenv("KFP_HYBRID_STORAGE_DEADLINE_SECONDS", "0")
    monkeypatch.setenv("S3_ENDPOINT", f"https://127.0.0.1:{s3_server.port}")
    with pytest.raises(StorageError, match="no TLS connection; use http://"):
        storage.open_store(s3).read("a")


def test_a_store_that_is_none(s3, monkeypatch, buckets, gs):
    import os

    monkeypatch.setenv("S3_ENDPOINT", os.environ["STORAGE_EMULATOR_HOST"])
    with pytest.raises(StorageError, match="HTTP status 501"):
        list(storage.open_store(s3).entries())
