"""A small server of the Google Cloud Storage JSON API: what the real client sends is checked as Google checks it.

Objects with generations and metadata; listing in pages with prefix and delimiter; ranges; uploads in one request
(multipart) and resumable ones in chunks, whose crc32c and md5 are verified; preconditions on generations.
"""

import base64
import contextlib
import email.parser
import email.policy
import hashlib
import json
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import google_crc32c

CHUNK_UNIT = 256 << 10


@dataclass
class Blob:
    data: bytes
    generation: int
    metadata: dict[str, str]
    content_type: str
    metageneration: int = 1
    updated: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    @property
    def crc32c(self) -> str:
        return base64.b64encode(google_crc32c.Checksum(self.data).digest()).decode()

    @property
    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.data).digest()).decode()


@dataclass
class Upload:
    bucket: str
    name: str
    resource: dict[str, Any]
    condition: str | None
    data: bytearray = field(default_factory=bytearray)
    finished: Blob | None = None


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Buckets:
    """The content of the server; thread-safe."""

    def __init__(self, page_size: int = 1000) -> None:
        self.blobs: dict[str, dict[str, Blob]] = {"bucket": {}}
        self.uploads: dict[str, Upload] = {}
        self.page_size = page_size
        self.lock = threading.RLock()
        self._generation = 1_700_000_000_000_000

    def files(self, bucket: str = "bucket") -> dict[str, bytes]:
        return {name: blob.data for name, blob in self.blobs[bucket].items()}

    def bucket(self, name: str) -> dict[str, Blob]:
        if name not in self.blobs:
            raise Refused(404, "The specified bucket does not exist.")
        return self.blobs[name]

    def blob(self, bucket: str, name: str, condition: str | None = None) -> Blob:
        blob = self.bucket(bucket).get(name)
        if blob is None:
            raise Refused(404, f"No such object: {bucket}/{name}")
        if condition is not None and int(condition) != blob.generation:
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.")
        return blob

    def put(self, bucket: str, name: str, data: bytes, resource: dict[str, Any], condition: str | None) -> Blob:
        with self.lock:
            current = self.bucket(bucket).get(name)
            if condition is not None and int(condition) != (current.generation if current else 0):
                raise Refused(412, "At least one of the pre-conditions you specified did not hold.")
            self._generation += 1
            blob = Blob(data, self._generation, dict(resource.get("metadata") or {}),
                        resource.get("contentType", "application/octet-stream"))  # fmt: skip
            for name_, value in (("crc32c", blob.crc32c), ("md5Hash", blob.md5)):
                if resource.get(name_, value) != value:
                    raise Refused(400, f"Provided {name_} {resource[name_]} doesn't match calculated {value}.")
            self.blobs[bucket][name] = blob
            return blob


@contextlib.contextmanager
def serve_gcs(buckets: Buckets) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"buckets": buckets}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    buckets: Buckets
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def _serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        try:
            for pattern, method in _ROUTES:
                found = re.fullmatch(pattern, f"{self.command} {url.path}")
                if found:
                    return getattr(self, method)(*map(unquote, found.groups()))
            raise Refused(501, f"not served here: {self.command} {self.path}")
        except Refused as error:
            self._json({"error": {"code": error.status, "message": str(error), "errors": []}}, error.status)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _serve

    def _objects(self, bucket: str) -> None:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        with self.buckets.lock:
            names = sorted(name for name in self.buckets.bucket(bucket) if name.startswith(prefix))
            names = [name for name in names if name > self.query.get("pageToken", "")]
            items, prefixes, last = [], [], ""
            size = min(int(self.query.get("maxResults", self.buckets.page_size)), self.buckets.page_size)
            for name in names:
                folder = _folder(name, prefix, delimiter)
                if folder in prefixes:
                    last = name
                    continue
                if len(items) + len(prefixes) == size:
                    break
                prefixes.append(folder) if folder else items.append(
                    _resource(bucket, name, self.buckets.blobs[bucket][name])
                )
                last = name
        answer: dict[str, Any] = {"kind": "storage#objects", "items": items, "prefixes": prefixes}
        if names and last != names[-1]:
            answer["nextPageToken"] = last
        self._json(answer)

    def _metadata(self, bucket: str, name: str) -> None:
        self._json(_resource(bucket, name, self.buckets.blob(bucket, name, self.query.get("ifGenerationMatch"))))

    def _download(self, bucket: str, name: str) -> None:
        blob = self.buckets.blob(bucket, name, self.query.get("ifGenerationMatch"))
        status, data = 200, blob.data
        headers = {"X-Goog-Hash": f"crc32c={blob.crc32c},md5={blob.md5}", "X-Goog-Generation": str(blob.generation),
                   "Content-Type": blob.content_type}  # fmt: skip
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if found:
            start, end = int(found[1]), min(int(found[2] or len(data) - 1), len(data) - 1)
            if start >= len(data):
                raise Refused(416, "Requested range not satisfiable")
            status, data = 206, data[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{end}/{len(blob.data)}"
        self._send(status, data, headers)

    def _patch(self, bucket: str, name: str) -> None:
        with self.buckets.lock:
            blob = self.buckets.blob(bucket, name, self.query.get("ifGenerationMatch"))
            blob.metadata = {**blob.metadata, **(json.loads(self.body).get("metadata") or {})}
            blob.metageneration += 1
            self._json(_resource(bucket, name, blob))

    def _delete(self, bucket: str, name: str) -> None:
        with self.buckets.lock:
            self.buckets.blob(bucket, name, self.query.get("ifGenerationMatch"))
            del self.buckets.blobs[bucket][name]
        self._send(204, b"", {})

    def _upload(self, bucket: str) -> None:
        self.buckets.bucket(bucket)
        if self.query.get("uploadType") == "resumable":
            resource = json.loads(self.body or b"{}")
            upload = Upload(bucket, resource.get("name") or self.query["name"], resource,
                            self.query.get("ifGenerationMatch"))  # fmt: skip
            identifier = secrets.token_hex(8)
            self.buckets.uploads[identifier] = upload
            where = f"http://{self.headers['Host']}/upload/storage/v1/b/{quote(bucket)}/o?upload_id={identifier}"
            return self._send(200, b"", {"Location": where, "X-GUploader-UploadID": identifier})
        if self.query.get("uploadType") != "multipart":
            raise Refused(400, "uploadType must be multipart or resumable")
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        boundary = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head).get_boundary()
        assert boundary
        _, first, second, end = self.body.split(b"--" + boundary.encode())
        assert end.strip() == b"--"
        resource = json.loads(first.partition(b"\r\n\r\n")[2])
        data = second.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        blob = self.buckets.put(bucket, resource["name"], data, resource, self.query.get("ifGenerationMatch"))
        self._json(_resource(bucket, resource["name"], blob))

    def _chunk(self, bucket: str) -> None:
        upload = self.buckets.uploads.get(self.query.get("upload_id", ""))
        if upload is None:
            raise Refused(410, "the upload is gone")
        if upload.finished:  # its answer did not arrive
            return self._json(_resource(upload.bucket, upload.name, upload.finished))
        status = re.fullmatch(r"bytes \*/(\d+|\*)", self.headers.get("Content-Range", ""))
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", self.headers.get("Content-Range", ""))
        total = None
        if found:
            start, end = int(found[1]), int(found[2])
            if start > len(upload.data):
                raise Refused(503, "a chunk is missing before this one")
            if len(self.body) != end - start + 1:
                raise Refused(400, "Content-Range does not fit the body")
            upload.data[start:] = self.body
            total = None if found[3] == "*" else int(found[3])
            if total is None and len(self.body) % CHUNK_UNIT:
                raise Refused(400, "chunks must be multiples of 256 KiB")
        elif status and status[1] != "*":
            total = int(status[1])
        if total is None or len(upload.data) < total:
            received = {"Range": f"bytes=0-{len(upload.data) - 1}"} if upload.data else {}
            return self._send(308, b"", received)
        blob = self.buckets.put(upload.bucket, upload.name, bytes(upload.data), upload.resource, upload.condition)
        upload.finished = blob
        self._json(_resource(upload.bucket, upload.name, blob))

    def _json(self, answer: dict[str, Any], status: int = 200) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json; charset=UTF-8"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


_ROUTES = [
    (r"GET /storage/v1/b/([^/]+)/o", "_objects"),
    (r"GET /download/storage/v1/b/([^/]+)/o/([^/]+)", "_download"),
    (r"GET /storage/v1/b/([^/]+)/o/([^/]+)", "_metadata"),
    (r"PATCH /storage/v1/b/([^/]+)/o/([^/]+)", "_patch"),
    (r"DELETE /storage/v1/b/([^/]+)/o/([^/]+)", "_delete"),
    (r"POST /upload/storage/v1/b/([^/]+)/o", "_upload"),
    (r"PUT /upload/storage/v1/b/([^/]+)/o", "_chunk"),
]


def _folder(name: str, prefix: str, delimiter: str) -> str:
    head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
    return prefix + head + delimiter if found else ""


def _resource(bucket: str, name: str, blob: Blob) -> dict[str, Any]:
    host = f"/b/{quote(bucket)}/o/{quote(name, safe='')}"
    return {
        "kind": "storage#object", "bucket": bucket, "name": name, "size": str(len(blob.data)),
        "generation": str(blob.generation), "metageneration": str(blob.metageneration), "metadata": blob.metadata,
        "crc32c": blob.crc32c, "md5Hash": blob.md5, "updated": blob.updated.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "contentType": blob.content_type, "selfLink": f"/storage/v1{host}",
        "mediaLink": f"/download/storage/v1{host}?alt=media",
    }  # fmt: skip
