"""Where the files of a model are: in the folder of an artifact, or where the pointer of push_model says."""

import contextlib
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_hybrid.components.deployment.push_model import content
from kfp_hybrid.components.deployment.push_model.versions import EDGE, LATEST, MANIFEST
from kfp_hybrid.edge import bundle as edge
from kfp_hybrid.step import StepError

POINTER = "pushed.json"
SAVED_MODEL = "saved_model.pb"
BUNDLES = (edge.MODEL, f"{EDGE}/{edge.MODEL}")  # of an edge bundle, by itself or below what push_model publishes
SIGNS = (SAVED_MODEL, *BUNDLES)  # one of them is in the folder of a model
DIGITS = 12  # of the digest, where a model has no version number


@dataclass(frozen=True)
class ModelFiles:
    """A model on this machine.

    Attributes:
        path: its folder.
        version: the number under which it was published, otherwise the first digits of its digest.
        digest: sha256 (hex) over the names and bytes of its files, the same that push_model gives.
    """

    path: Path
    version: str
    digest: str

    @property
    def saved_model(self) -> Path | None:
        """The folder of the SavedModel, if there is one."""
        return self.path if (self.path / SAVED_MODEL).is_file() else None

    @property
    def bundle(self) -> Path | None:
        """The folder of the edge bundle, if there is one."""
        return next((path for path in (self.path / EDGE, self.path) if (path / edge.MODEL).is_file()), None)


@contextlib.contextmanager
def model_files(artifact: Path) -> Iterator[ModelFiles]:
    """Find the files of a model; those in an object store are on this machine until the end of the block.

    Args:
        artifact: a model's folder, the pointer that push_model puts out, or a directory of published versions.

    Raises:
        StepError: there is no model, push_model refused it, or its files are not those that were published.
    """
    with contextlib.ExitStack() as stack:
        yield _checked(_folder(artifact, stack))


@contextlib.contextmanager
def version_files(place: str, version: str) -> Iterator[ModelFiles]:
    """Find one version in a directory of versions; those in an object store are here until the end of the block.

    Args:
        place: the directory: a path or URI.
        version: the name of the version's folder in it; "" for files that lie in the directory itself.

    Raises:
        StepError: there is no such version, or its files are not those that were published.
    """
    with contextlib.ExitStack() as stack:
        yield _checked(_version(Path(), place, version, stack))


def version_in_use(place: str) -> str:
    """The version that a directory of versions is to be used in; "" where the place is no such directory.

    LATEST names it; without that file, as TensorFlow Serving's directories are, it is the greatest number.

    Args:
        place: a path or URI.

    Raises:
        StorageError: the place cannot be read.
    """
    from kfp_hybrid import storage

    store = storage.open_store(place)
    with contextlib.suppress(storage.NotFound):
        return store.read(LATEST).decode("utf-8", "replace").strip()
    if any(store.exists(name) for name in (SAVED_MODEL, edge.MODEL)):
        return ""
    numbers = [int(name) for name in store.folders() if name.isascii() and name.isdigit()]
    return str(max(numbers)) if numbers else ""


def _checked(folder: Path) -> ModelFiles:
    if not folder.is_dir():
        raise StepError(f"there is no model at {folder}; it was retired, or this step cannot see the directory")
    _require_model(folder)
    try:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): content.checksum(path) for path in paths}
    except OSError as error:
        raise StepError(f"cannot read the model {folder}: {error.strerror}: {error.filename}") from error
    manifest = _read_json(folder / MANIFEST) if files.pop(MANIFEST, None) else {}
    digest = content.digest(files)
    if manifest and manifest.get("digest") != digest:
        raise StepError(f"the files in {folder} are not those that were published; use another version")
    return ModelFiles(folder, str(manifest.get("version", digest[:DIGITS])), digest)


def _require_model(folder: Path) -> None:
    """Refuse a folder that is no model before all of its files are read: it may be somebody's home."""
    # An edge bundle that is damaged or was not made says more about itself when it is opened.
    if not any((folder / name).is_file() for name in (*SIGNS, edge.MANIFEST, edge.REJECTED)):
        raise StepError(f"{folder} is neither a SavedModel nor an edge bundle: it has none of {', '.join(SIGNS)}")


def _folder(artifact: Path, stack: contextlib.ExitStack) -> Path:
    pointer = artifact / POINTER
    if pointer.is_file():
        pointed = _read_json(pointer)
        if not pointed.get("version"):
            raise StepError("push_model refused this model, so there is none to use; look at the reason it gave")
        return _version(artifact, str(pointed["destination"]), str(pointed["version"]), stack)
    if (artifact / LATEST).is_file():
        return artifact / (artifact / LATEST).read_text(encoding="utf-8").strip()
    return artifact


def _version(artifact: Path, destination: str, version: str, stack: contextlib.ExitStack) -> Path:
    """The folder of a version; `destination` is "." for the artifact's own folder, a path, or a URI."""
    from kfp_hybrid import storage

    if not storage.is_uri(destination):
        return artifact / destination / version
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="model-")))
    address, mark, options = destination.partition("?")
    logging.info("fetching version %s from %s", version, address)
    storage.download(f"{address.rstrip('/')}/{version}/{mark}{options}", folder)
    return folder


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StepError(f"cannot read {file}: {error}; push the model again") from None
