"""A registry for images on this machine, as far as `docker push` and `docker pull` go; it checks every digest.

Blobs and manifests are kept in memory, so it is for small images.
"""

import hashlib
import json
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/([\w-]*)")
BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})")
MANIFEST = re.compile(r"/v2/(.+)/manifests/(.+)")


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    """Use as a context manager; `address` is HOST:PORT, `tags` the references that were pushed."""

    def __init__(self):
        self.blobs, self.uploads, self.manifests = {}, {}, {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"registry": self}))
        self._server.daemon_threads = True

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self):
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def tags(self):
        return {f"{name}:{tag}" for name, tag in self.manifests if not tag.startswith("sha256:")}


class Handler(BaseHTTPRequestHandler):
    registry: Registry
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.path == "/v2/":
            self.answer(200)
        elif (found := BLOB.fullmatch(self.path)) and found[2] in self.registry.blobs:
            self.answer(200, self.registry.blobs[found[2]], Docker_Content_Digest=found[2])
        elif (found := MANIFEST.fullmatch(self.path)) and found.groups() in self.registry.manifests:
            kind, data = self.registry.manifests[found.groups()]
            self.answer(200, data, Content_Type=kind, Docker_Content_Digest=digest_of(data))
        else:
            code = "MANIFEST_UNKNOWN" if "/manifests/" in self.path else "BLOB_UNKNOWN"
            self.answer(404, json.dumps({"errors": [{"code": code, "message": "manifest unknown"}]}).encode())

    def do_POST(self):
        found = UPLOAD.fullmatch(urlsplit(self.path).path)
        self.body()
        name = str(uuid.uuid4())
        self.registry.uploads[name] = b""
        self.answer(202, Location=f"/v2/{found[1]}/blobs/uploads/{name}", Docker_Upload_UUID=name, Range="0-0")

    def do_PATCH(self):
        name = UPLOAD.fullmatch(urlsplit(self.path).path)[2]
        self.registry.uploads[name] += self.body()
        size = len(self.registry.uploads[name])
        self.answer(202, Location=self.path, Docker_Upload_UUID=name, Range=f"0-{size - 1}")

    def do_PUT(self):
        data = self.body()
        if found := MANIFEST.fullmatch(self.path):
            manifest = json.loads(data)
            needed = [each["digest"] for each in [manifest["config"], *manifest["layers"]]]
            if missing := [each for each in needed if each not in self.registry.blobs]:
                self.answer(400, f"not uploaded: {missing}".encode())
                return
            for tag in (found[2], digest_of(data)):
                self.registry.manifests[found[1], tag] = (self.headers["Content-Type"], data)
            self.answer(201, Docker_Content_Digest=digest_of(data))
            return
        parts = urlsplit(self.path)
        whole = self.registry.uploads.pop(UPLOAD.fullmatch(parts.path)[2]) + data
        (digest,) = parse_qs(parts.query)["digest"]
        if digest_of(whole) != digest:
            self.answer(400, b"the digest is another")
            return
        self.registry.blobs[digest] = whole
        self.answer(201, Docker_Content_Digest=digest)
