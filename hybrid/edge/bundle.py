"""The edge bundle: a directory with all that a device needs to predict from raw rows.

    model.tflite        the converted model
    preprocessing.json  constants of the preprocessing (absent when the model takes the columns as they are)
    labels.json         {"task", "label", "classes"}
    samples.json        a few raw rows and their scores, for a self-test on the device
    manifest.json       size and sha256 of the files above, and what was measured before the bundle was made

The manifest covers its own content with a digest, therefore any changed byte in the bundle is found. Only the
standard library is used: a device and the step that publishes a bundle can check one without numpy or LiteRT.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_hybrid import publishing
from kfp_hybrid.step import StepError

FORMAT = "kfp-hybrid/edge-bundle"
VERSION = 1

MODEL = "model.tflite"
PREPROCESSING = "preprocessing.json"
LABELS = "labels.json"
SAMPLES = "samples.json"
MANIFEST = "manifest.json"
REJECTED = "rejected.json"

REQUIRED = (MODEL, LABELS, SAMPLES)


@dataclass(frozen=True)
class Bundle:
    """An edge bundle whose files were found to be what its manifest says.

    Attributes:
        path: the directory.
        manifest: the content of manifest.json.
    """

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Bundle":
        """Read the manifest and compare every file with it.

        Raises:
            StepError: there is no bundle, or a file is missing, damaged or outside the bundle.
        """
        directory = Path(path)
        manifest = _read_manifest(directory)
        for name, entry in manifest["files"].items():
            _verify_file(directory, name, entry)
        return cls(directory, manifest)

    @property
    def quantization(self) -> str:
        """Which variant of export_tflite the model is, such as float32 or int8."""
        return self.manifest["quantization"]

    @property
    def sha256(self) -> str:
        """The digest of the manifest, and through it of every file: the identity of the bundle."""
        return self.manifest["sha256"]

    def file(self, name: str) -> Path | None:
        """The path of a file of the bundle; None when the manifest does not name it."""
        return self.path / name if name in self.manifest["files"] else None

    def json(self, name: str) -> Any:
        """The content of a JSON file of the bundle."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))


def write_bundle(path: str | os.PathLike[str], files: Mapping[str, bytes], **measured: Any) -> Bundle:
    """Write a bundle; it appears whole or not at all, and replaces an older one.

    Args:
        path: the directory that appears.
        files: file name -> content; at least `REQUIRED`.
        **measured: further entries of the manifest, JSON values: quantization, agreement, latency.

    Returns:
        The bundle, verified.

    Raises:
        StepError: the directory cannot be written, or something else is there.
    """
    if missing := [name for name in REQUIRED if name not in files]:
        raise ValueError(f"an edge bundle needs {', '.join(missing)}")
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        **measured,
        "files": {name: {"sha256": _sha256(data), "bytes": len(data)} for name, data in files.items()},
    }
    _write_directory(Path(path), {**files, MANIFEST: _encode(manifest)})
    return Bundle.open(path)


def write_rejection(path: str | os.PathLike[str], reason: str) -> None:
    """Write, in place of a bundle, why there is none.

    An output artifact must exist on every target; this one cannot be taken for a bundle.

    Args:
        path: the directory that appears.
        reason: one sentence.

    Raises:
        StepError: the directory cannot be written, or something else is there.
    """
    _write_directory(Path(path), {REJECTED: json.dumps({"reason": reason}, ensure_ascii=False).encode()})


def _encode(manifest: Mapping[str, Any]) -> bytes:
    """The one text of a manifest, with the sha256 of everything else that is in it."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    text = json.dumps({**content, "sha256": _sha256(canonical.encode())}, indent=1, ensure_ascii=False)
    return text.encode() + b"\n"


def _read_manifest(directory: Path) -> dict[str, Any]:
    file = directory / MANIFEST
    try:
        content = file.read_bytes()
    except OSError:
        raise StepError(f"{directory} is not an edge bundle: {_why_no_bundle(directory)}") from None
    try:
        manifest = json.loads(content)
        damaged = _encode(manifest) != content
    except (ValueError, AttributeError):
        manifest, damaged = {}, True
    if (found := manifest.get("format", FORMAT)) != FORMAT and "sha256" not in manifest:
        raise StepError(f"{directory} is not an edge bundle but {str(found)[:40]}; give the folder of a model")
    if damaged:
        raise StepError(f"{file} is damaged: its sha256 does not match its content; copy the bundle again")
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise StepError(
            f"{file} has format {manifest.get('format')} version {manifest.get('version')}; "
            f"this release of kfp-hybrid reads {FORMAT} version {VERSION}"
        )
    if missing := [name for name in REQUIRED if name not in manifest["files"]]:
        raise StepError(f"{file} does not name {', '.join(missing)}; export the bundle again")
    return manifest


def _why_no_bundle(directory: Path) -> str:
    try:
        reason = json.loads((directory / REJECTED).read_text(encoding="utf-8"))["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"it has no readable {MANIFEST}"
    return f"the export was {reason}"


def _verify_file(directory: Path, name: str, entry: Mapping[str, Any]) -> None:
    # A bundle is flat. A name with a folder in it, or a link, could make a device read a file elsewhere.
    if name in ("", ".", "..") or "/" in name or "\\" in name or (directory / name).is_symlink():
        raise StepError(f"{directory / MANIFEST} names {name!r}, which is no plain file of the bundle; do not use it")
    try:
        content = (directory / name).read_bytes()
    except OSError as error:
        raise StepError(f"cannot read {directory / name}: {error.strerror}; copy the bundle again") from None
    if len(content) != entry["bytes"] or _sha256(content) != entry["sha256"]:
        raise StepError(f"{directory / name} is damaged: {MANIFEST} has another sha256; copy the bundle again")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_directory(path: Path, files: Mapping[str, bytes]) -> None:
    unfinished = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        unfinished.chmod(0o755)  # mkdtemp makes it private, but the next step may run as another user
        for name, content in files.items():
            (unfinished / name).write_bytes(content)
        _remove_older(path)
        publishing.replace(unfinished, path, last=MANIFEST)
    except OSError as error:
        raise StepError(f"cannot write {path}: {error.strerror or error}; check its permissions and space") from error
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)


def _remove_older(path: Path) -> None:
    if any((path / name).is_file() for name in (MANIFEST, REJECTED)):
        shutil.rmtree(path)
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StepError(f"{path} exists and is not an edge bundle; it is not overwritten: move it away")
