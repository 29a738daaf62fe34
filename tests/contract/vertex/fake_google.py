"""The other services of Google Cloud that the target uses, each as strict as it is small."""

import base64
import hashlib
import json
import re
from email import message_from_bytes
from urllib.parse import parse_qs, unquote

import google_crc32c
import yaml
from fake_vertex import HOST, FakeVertex, Refusal
from google.auth import jwt
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from kfp_hybrid import images

TOKEN = "a-token"
ACCOUNT = "pipelines@ml-production.iam.gserviceaccount.com"
REPOSITORY = "https://europe-west4-kfp.pkg.dev/ml-production/pipelines"


class FakeGoogle:
    """All services, told apart by the host that the client means."""

    def __init__(self) -> None:
        self.vertex = FakeVertex()
        self.bucket = FakeBucket("ml-production-pipelines")
        self.templates = FakeTemplates()
        self.log = FakeLog()
        self.images = {f"ml-production/ml/{name}" for name in images.names()}
        self.permissions = ["iam.serviceAccounts.actAs"]
        self.secrets: dict[str, str] = {}
        """secret version -> its state"""
        self.key: bytes | None = None
        """The certificate of the service account, when it signs in itself."""
        self.hosts = {
            HOST: self.vertex,
            "oauth2.googleapis.com": self._token,
            "storage.googleapis.com": self.bucket,
            "europe-west4-kfp.pkg.dev": self.templates,
            "artifactregistry.googleapis.com": self.templates.listing,
            "logging.googleapis.com": self.log,
            "iam.googleapis.com": self._iam,
            "secretmanager.googleapis.com": self._secret,
            "europe-west4-docker.pkg.dev": self._docker,
        }

    def __call__(self, request):
        host = request.headers["Host"].partition(":")[0]
        service = self.hosts.get(host, self.vertex)
        anybody = service in (self._token, self._docker) or request.method == "HEAD"
        if not anybody and not self._is_known(request.headers["Authorization"]):
            return 401, {"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "Invalid credentials."}}
        try:
            return service(request)
        except Refusal as refusal:
            return refusal.code, refusal.body

    def _is_known(self, authorization):
        kind, _, token = authorization.partition(" ")
        return kind == "Bearer" and (token == TOKEN or (self.key is not None and jwt.decode(token, self.key)))

    def _token(self, request):
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            assert jwt.decode(form["assertion"], self.key)["iss"] == ACCOUNT
            return 200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        assert form["grant_type"] == "refresh_token"
        if form["refresh_token"] != "a-refresh-token":
            return 400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
        return 200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}

    def _iam(self, request):
        assert request.is_("POST", f"/v1/projects/-/serviceAccounts/{ACCOUNT}:testIamPermissions")
        assert request.json() == {"permissions": ["iam.serviceAccounts.actAs"]}
        return 200, {"permissions": self.permissions} if self.permissions else {}

    def _secret(self, request):
        assert request.is_("GET", "/v1/projects/*/secrets/*/versions/*") and ":access" not in request.path
        name = request.path.removeprefix("/v1/")
        if name not in self.secrets:
            raise Refusal(404, "NOT_FOUND", f"Secret Version [{name}] not found.")
        return 200, {"name": name, "state": self.secrets[name]}

    def _docker(self, request):
        known = base64.b64encode(f"oauth2accesstoken:{TOKEN}".encode()).decode()
        if request.path == "/v2/token":
            assert request.headers["Authorization"] == f"Basic {known}"
            return 200, {"token": "a-docker-token"}
        if request.headers["Authorization"] != "Bearer a-docker-token":
            challenge = 'Bearer realm="https://europe-west4-docker.pkg.dev/v2/token",service="docker.pkg.dev"'
            return 401, "", {"WWW-Authenticate": challenge}
        there = re.fullmatch(r"/v2/(.+)/manifests/[^/]+", request.path)
        return (200, "", {"Docker-Content-Digest": "sha256:d"}) if there and there[1] in self.images else (404, "")


class FakeBucket:
    """A bucket of Cloud Storage: small uploads, downloads, deletions, preconditions, checksums."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.objects: dict[str, bytes] = {}

    def __call__(self, request):
        if f"/b/{self.name}/o" not in request.path:
            raise Refusal(404, "NOT_FOUND", "The specified bucket does not exist.")
        if request.is_("POST", "/upload/storage/v1/b/*/o"):
            return self._upload(request)
        name = unquote(request.path.partition("/o/")[2])
        if name not in self.objects:
            raise Refusal(404, "NOT_FOUND", f"No such object: {self.name}/{name}")
        if request.method == "DELETE":
            del self.objects[name]
            return 204, ""
        assert request.is_("GET", "/download/storage/v1/b/*/o/*") and request.query["alt"] == "media"
        return 200, self.objects[name], {"X-Goog-Hash": f"crc32c={_crc32c(self.objects[name])}"}

    def _upload(self, request):
        assert request.query["uploadType"] == "multipart"
        head = b"Content-Type: " + request.headers["Content-Type"].encode() + b"\r\n\r\n"
        described, sent = message_from_bytes(head + request.body).get_payload()
        about, data = json.loads(described.get_payload()), sent.get_payload(decode=True)
        name = about["name"]
        if request.query.get("ifGenerationMatch") == "0" and name in self.objects:
            raise Refusal(412, "FAILED_PRECONDITION", "At least one of the pre-conditions you specified did not hold.")
        if "crc32c" in about:
            assert about["crc32c"] == _crc32c(data)
        self.objects[name] = data
        return 200, {"kind": "storage#object", "name": name, "bucket": self.name, "crc32c": _crc32c(data),
                     "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode()}  # fmt: skip


class FakeTemplates:
    """An Artifact Registry repository for pipelines, which lets a tag move."""

    def __init__(self) -> None:
        self.versions: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}

    def __call__(self, request):
        if not request.path.startswith("/ml-production/pipelines"):
            raise Refusal(404, "NOT_FOUND", "The repository does not exist.")
        if request.method == "GET":
            name = request.path.removeprefix("/ml-production/pipelines/")
            version = self.tags.get(name, name)
            if version not in self.versions:
                raise Refusal(404, "NOT_FOUND", f"{name} is not there.")
            return 200, self.versions[version]
        assert request.is_("POST", "/ml-production/pipelines")
        head = b"Content-Type: " + request.headers["Content-Type"].encode() + b"\r\n\r\n"
        parts = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
                 for part in message_from_bytes(head + request.body).get_payload()}  # fmt: skip
        assert set(parts) == {"content", "tags"}
        spec = json_format.ParseDict(yaml.safe_load(parts["content"]), pipeline_spec_pb2.PipelineSpec())
        package = spec.pipeline_info.name
        version = f"{package}/sha256:{hashlib.sha256(parts['content']).hexdigest()}"
        self.versions[version] = parts["content"]
        for tag in parts["tags"].decode().split(","):
            self.tags[f"{package}/{tag}"] = version
        return 200, version

    def listing(self, request):
        assert request.is_("GET", "/v1/projects/ml-production/locations/europe-west4/repositories/pipelines/packages")
        return 200, {"packages": []}


class FakeLog:
    """Cloud Logging: the entries of custom jobs, two on a page."""

    def __init__(self) -> None:
        self.entries: dict[str, list] = {}
        """custom job -> what it has printed: text, or the payload that the logging agent makes of it"""

    def __call__(self, request):
        assert request.is_("POST", "/v2/entries:list")
        body = request.json()
        assert set(body) <= {"resourceNames", "filter", "orderBy", "pageSize", "pageToken"}
        assert body["resourceNames"] == ["projects/ml-production"]
        assert body["orderBy"] == "timestamp asc" and 0 < body["pageSize"] <= 1000
        query = re.fullmatch(
            r'resource\.type="ml_job" AND resource\.labels\.job_id=\((".+")\) '
            r'AND timestamp>="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"',
            body["filter"],
        )
        assert query, body["filter"]
        jobs = [job.strip('"') for job in query[1].split(" OR ")]
        found = [self._entry(job, line) for job in jobs for line in self.entries.get(job, [])]
        start = int(body.get("pageToken", "0"))
        more = {"nextPageToken": str(start + 2)} if found[start + 2 :] else {}
        return 200, {"entries": found[start : start + 2], **more} if found else {}

    def _entry(self, job, line):
        payload = {"textPayload": line} if isinstance(line, str) else {"jsonPayload": line}
        return {
            "resource": {"type": "ml_job", "labels": {"job_id": job}},
            "timestamp": "2026-11-21T12:01:00Z",
            **payload,
        }


def _crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
