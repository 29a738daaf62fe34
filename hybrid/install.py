"""What the Jobs of `manifests/` do, in the image `deployment`: upload the released packages, and make buckets.

    python3 -m kfp_hybrid.install pipelines --server URL --profile FILE   # packages of this version, idempotent
    python3 -m kfp_hybrid.install buckets NAME...                         # in the store of S3_ENDPOINT

Exit status: 0 done, 1 with one line on standard error, 143 stopped by SIGTERM. What may pass is tried again.

The packages are those of the release, with their images from where the profile has them. Whatever else a site's profile
says of its steps (resources, nodes, secrets) is filled in where pipelines are written: `kfp-hybrid register`.
"""

import argparse
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml
from minio.error import MinioException

from kfp_hybrid import __version__, images, pipelines
from kfp_hybrid.retries import retry
from kfp_hybrid.step import StepError, step
from kfp_hybrid.storage.locations import parse
from kfp_hybrid.storage.s3_access import connect
from kfp_hybrid.storage.s3_requests import RetryingPool

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGES = Path(pipelines.__path__[0]) / "compiled" / "onprem"
TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
API = "/apis/v2beta1/pipelines"
PAGE_SIZE = 100
RETRY_SECONDS = 120.0
CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
PASSING_STATUSES = (408, 429, 500, 502, 503, 504)
OUR_IMAGE = re.compile(rf"{re.escape(images.REGISTRY)}/([a-z]+):({re.escape(__version__)}({images.GPU})?)")
OK = 200

log = logging.getLogger(__name__)


class Passing(Exception):
    """An answer that asks to come back later."""


class Server:
    """Kubeflow Pipelines, as a pod of the cluster reaches it.

    Args:
        url: Where its API is, without `/apis`.
        namespace: Whose pipelines, in a multi-user installation; "" in a single-user one, or for shared pipelines.
        token: The file with the token of the pod's service account; none where the server asks for none.
    """

    def __init__(self, url: str, namespace: str = "", token: Path = TOKEN) -> None:
        self._url = url.rstrip("/")
        self._namespace = namespace
        self._token = token
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        self._http = urllib3.PoolManager(timeout=timeout, retries=False)

    def register(self, name: str, description: str, documents: list[dict[str, Any]], version: str) -> bool:
        """Make a version of a pipeline, and the pipeline when it is not there.

        Args:
            name: The name of the pipeline.
            description: What its page says of it.
            documents: The package.
            version: The name of the version.

        Returns:
            Whether it was not there yet.

        Raises:
            StepError: there is such a version which runs something else, or the server refuses.
        """
        # What passes is tried again from the beginning, so that what came through without an answer is found.
        try:
            return retry(
                lambda: self._register(name, description, documents, version),
                f"upload version {version} of {name}",
                _passing,
                lambda _: RETRY_SECONDS,
            )
        except (Passing, urllib3.exceptions.HTTPError) as error:
            raise StepError(f"could not upload {name} to {self._url}: {_passing(error)}") from None

    def _register(self, name: str, description: str, documents: list[dict[str, Any]], version: str) -> bool:
        pipeline_id = self._find(name) or self._make(name, description)
        if self._has(pipeline_id, name, documents, version):
            return False
        file = ("package.yaml", yaml.safe_dump_all(documents, sort_keys=False), "application/yaml")
        body, content_type = urllib3.encode_multipart_formdata({"uploadfile": file})
        query = urlencode({"name": version, "pipelineid": pipeline_id})
        what = f"upload version {version} of {name}"
        self._send(what, "POST", f"{API}/upload_version?{query}", body, content_type)
        return True

    def _make(self, name: str, description: str) -> str:
        pipeline = {"name": name, "display_name": name, "description": description, "namespace": self._namespace}
        body = json.dumps({key: value for key, value in pipeline.items() if value}).encode()
        made = self._send(f"make the pipeline {name}", "POST", API, body, "application/json")
        return str(made["pipeline_id"])

    def _find(self, name: str) -> str:
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        query = {"filter": json.dumps({"predicates": [predicate]}), "namespace": self._namespace, "page_size": 1}
        given = {key: value for key, value in query.items() if value}
        answer = self._send(f"look for the pipeline {name}", "GET", f"{API}?{urlencode(given)}")
        return next((str(each["pipeline_id"]) for each in answer.get("pipelines") or []), "")

    def _has(self, pipeline_id: str, name: str, documents: list[dict[str, Any]], version: str) -> bool:
        there = next((each for each in self._versions(pipeline_id) if each["display_name"] == version), None)
        if there is None:
            return False
        spec = there.get("pipeline_spec") or {}
        spec = spec.get("pipeline_spec", spec)
        steps = spec.get("deployment_spec") or spec.get("deploymentSpec")
        if steps != documents[0]["deploymentSpec"]:
            raise StepError(
                f"pipeline {name} has a version {version} whose steps are others; delete that version, "
                "or upload this package under another name: kfp-hybrid register --version"
            )
        return True

    def _versions(self, pipeline_id: str) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            query = urlencode({"page_size": PAGE_SIZE, "page_token": token})
            page = self._send(f"list the versions of {pipeline_id}", "GET", f"{API}/{pipeline_id}/versions?{query}")
            yield from page.get("pipeline_versions") or []
            if not (token := page.get("next_page_token") or ""):
                return

    def _send(
        self, what: str, method: str, path: str, body: bytes | None = None, content_type: str = ""
    ) -> dict[str, Any]:
        headers = {"Content-Type": content_type} if content_type else {}
        if self._token.is_file():  # read each time: Kubernetes replaces it
            headers["Authorization"] = f"Bearer {self._token.read_text('utf-8').strip()}"
        response = self._http.request(method, self._url + path, body=body, headers=headers)
        said = " ".join(response.data[:300].decode("utf-8", "replace").split())
        if response.status in PASSING_STATUSES:
            raise Passing(f"HTTP status {response.status}: {said}")
        if response.status != OK:
            raise StepError(f"could not {what}: the server answers {response.status}: {said}")
        try:
            answer: dict[str, Any] = response.json()
        except ValueError:
            raise StepError(f"{self._url} does not answer like Kubeflow Pipelines; check --server") from None
        return answer


def _passing(error: BaseException) -> str:
    if isinstance(error, Passing):
        return str(error)
    return type(error).__name__ if isinstance(error, urllib3.exceptions.HTTPError) else ""


def packages(folder: Path, target: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """The packages of a folder, with their images from where a target has them.

    Args:
        folder: Where they are.
        target: The target's table in the profile.

    Raises:
        StepError: there are none.
    """
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise StepError(f"there are no packages in {folder}")
    for file in files:
        yield [_placed(document, target) for document in yaml.safe_load_all(file.read_text("utf-8"))]


def _placed(value: Any, target: dict[str, Any]) -> Any:
    """A copy in which the images of this collection are the target's; everything else stays."""
    if isinstance(value, dict):
        return {key: _placed(each, target) for key, each in value.items()}
    if isinstance(value, list):
        return [_placed(each, target) for each in value]
    ours = OUR_IMAGE.fullmatch(value) if isinstance(value, str) else None
    if ours is None:
        return value
    name, tag = ours[1], ours[2]
    version = target.get("images", {}).get(name, tag)
    return f"{target.get('registry', images.REGISTRY)}/{name}{'@' if version.startswith('sha256:') else ':'}{version}"


def target_of(profile: Path) -> dict[str, Any]:
    """The one Kubeflow target of a profile.

    Raises:
        StepError: the file cannot be read, or has another number of them.
    """
    try:
        tables = tomllib.loads(profile.read_text("utf-8")).get("targets", {})
    except (OSError, ValueError) as error:
        raise StepError(f"cannot read the profile {profile}: {error}") from None
    targets = [table for table in tables.values() if table.get("kind") == "kubeflow"]
    if len(targets) != 1:
        raise StepError(f"{profile} must have one target of kind kubeflow, not {len(targets)}")
    return dict(targets[0])


def upload_pipelines(server: str, profile: Path, folder: Path = PACKAGES, version: str = __version__) -> None:
    """Upload every package as a version of its pipeline; those that are there already stay as they are.

    Raises:
        StepError: a package cannot be uploaded.
    """
    target = target_of(profile)
    connection = Server(server, target.get("namespace", ""))
    for documents in packages(folder, target):
        info = documents[0]["pipelineInfo"]
        new = connection.register(info["name"], info.get("description", ""), documents, version)
        log.info("%s %s %s", info["name"], version, "uploaded" if new else "is there already")


def make_buckets(names: list[str]) -> None:
    """Make the buckets that are not there in the store of S3_ENDPOINT.

    Raises:
        StepError: no endpoint, no credentials, or the store refuses.
    """
    for name in names:
        try:
            client = connect(parse(f"s3://{name}"), RetryingPool())
            if client.bucket_exists(name):
                log.info("bucket %s is there already", name)
                continue
            client.make_bucket(name)
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            reason = getattr(error, "code", None) or type(error).__name__
            raise StepError(f"could not make the bucket {name}: {reason}; check S3_ENDPOINT and the secret") from None
        log.info("made bucket %s", name)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python3 -m kfp_hybrid.install", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    upload = commands.add_parser("pipelines", help="upload the packages of this version")
    upload.add_argument("--server", required=True, help="the API of Kubeflow Pipelines, http://ml-pipeline:8888")
    upload.add_argument("--profile", type=Path, required=True, help="a kfp-hybrid.toml with one kubeflow target")
    buckets = commands.add_parser("buckets", help="make buckets that are not there")
    buckets.add_argument("names", nargs="+", metavar="NAME")
    given = parser.parse_args()
    with step():
        if given.command == "pipelines":
            upload_pipelines(given.server, given.profile)
        else:
            make_buckets(given.names)


if __name__ == "__main__":
    main()
