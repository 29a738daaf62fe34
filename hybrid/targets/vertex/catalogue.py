"""Where the Vertex AI console finds packages: a template repository of Artifact Registry, or Cloud Storage."""

import contextlib
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import requests
from google.api_core.exceptions import NotFound, PreconditionFailed

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package
from kfp_hybrid.targets.runs import Registration
from kfp_hybrid.targets.vertex.client import TIMEOUT, Client

if TYPE_CHECKING:
    from kfp.registry import RegistryClient

WRITER = "roles/artifactregistry.writer"
BUCKET_WRITER = "roles/storage.objectUser"
VERSION = re.compile(r"[A-Za-z0-9_][-.\w]{0,127}", re.ASCII)

T = TypeVar("T")


def register(client: Client, package: Package, version: str) -> Registration:
    """Upload a package; one that is there already stays as it is.

    Raises:
        UserError: that version is there with another content, or Google Cloud refuses or cannot be reached.
    """
    if not VERSION.fullmatch(version):
        raise UserError(f"{version!r} is no name for a version: it takes letters, digits, '.', '_' and '-'")
    if client.profile.template_repository:
        url, new = _to_artifact_registry(client, client.profile.template_repository, package, version)
    else:
        url, new = _to_cloud_storage(client, package, version)
    return Registration(package.name, version, url, new)


def registry(client: Client, repository: str) -> "RegistryClient":
    """The client of a template repository.

    Raises:
        UserError: it is not an address of Artifact Registry.
    """
    from kfp.registry import RegistryClient

    if not re.fullmatch(r"https://[-a-z0-9]+-kfp\.pkg\.dev/[^/]+/[^/]+", repository):
        raise UserError(
            f"template_repository {repository} is no repository of Artifact Registry for pipelines; it looks like "
            "https://europe-west4-kfp.pkg.dev/PROJECT/REPOSITORY"
        )
    return RegistryClient(host=repository, auth=client.credentials)


def in_time(function: Callable[[], T]) -> T:
    """What a function returns, if it does so in time: kfp's registry client itself waits for ever."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((function(), None))
        except Exception as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    if not outcome:
        raise requests.Timeout
    result, error = outcome[0]
    if error:
        raise error
    return result


def _to_artifact_registry(client: Client, repository: str, package: Package, version: str) -> tuple[str, bool]:
    templates = registry(client, repository)
    url = f"{repository}/{package.name}/{version}"

    def upload() -> None:
        # Without an earlier look, the tag would silently move to the new content.
        with _as_file(package) as file:
            templates.upload_pipeline(str(file), tags=version)

    def there() -> str | None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "package.yaml"
            try:
                templates.download_pipeline(package.name, tag=version, file_name=str(file))
            except requests.HTTPError as error:
                if error.response.status_code == requests.codes.not_found:
                    return None
                raise
            return file.read_text("utf-8")

    found = client.call("look for the template", lambda: in_time(there), role=WRITER)
    if found is None:
        client.call("upload the template", lambda: in_time(upload), role=WRITER)
    _check_same(found, package, url)
    return url, found is None


def _to_cloud_storage(client: Client, package: Package, version: str) -> tuple[str, bool]:
    bucket, _, folder = client.profile.pipeline_root.removeprefix("gs://").partition("/")
    name = "/".join(filter(None, [folder.strip("/"), "packages", package.name, f"{version}.yaml"]))
    url = f"gs://{bucket}/{name}"
    blob = client.storage.bucket(bucket).blob(name)

    def upload() -> bool:
        with contextlib.suppress(PreconditionFailed):
            blob.upload_from_string(
                package.text.encode(), "application/yaml", if_generation_match=0, timeout=TIMEOUT, retry=None
            )
            return True
        return False  # somebody was faster, or an earlier attempt got through

    def there() -> str | None:
        with contextlib.suppress(NotFound):
            return blob.download_as_bytes(timeout=TIMEOUT, retry=None).decode(errors="replace")
        return None

    new = client.call("look for the package", there, role=BUCKET_WRITER) is None and client.call(
        f"write {url}", upload, role=BUCKET_WRITER
    )
    if not new:
        _check_same(client.call("read the package", there, role=BUCKET_WRITER), package, url)
    return url, new


def _check_same(found: str | None, package: Package, url: str) -> None:
    if found is not None and found != package.text:
        raise UserError(f"{url} is there with another content; register this package as another --version")


@contextlib.contextmanager
def _as_file(package: Package) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{package.name}.yaml"
        file.write_text(package.text, "utf-8")
        yield file
