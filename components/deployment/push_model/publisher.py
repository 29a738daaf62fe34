"""Publishes models into a directory of numbered versions, which a server or a device reads at any time.

    <destination>/LATEST                 the number of the version to use
    <destination>/<number>/              the files of the SavedModel
    <destination>/<number>/edge/         the files of the edge bundle
    <destination>/<number>/MANIFEST.json checksums, digest, blessing and source
    <destination>/.lock                  held by the one process that changes anything here
    <destination>/.<random>.partial/     the unfinished work of that process

Everything is prepared in the hidden folder and takes its place by a rename, so that a reader never sees a part of
a version, whenever a writer is killed. Readers need no lock.
"""

import contextlib
import errno
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import filelock

from kfp_hybrid.components.deployment.push_model import content
from kfp_hybrid.components.deployment.push_model.content import Checksum
from kfp_hybrid.step import StepError

LATEST = "LATEST"
MANIFEST = "MANIFEST.json"
EDGE = "edge"
LOCK = ".lock"
FORMAT = "kfp-hybrid/published-model"
FORMAT_VERSION = 1
LOCK_TIMEOUT_SECONDS = 600.0
PROGRESS_SECONDS = 5.0
LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.partial")

log = logging.getLogger(__name__)


class NotBlessedError(StepError):
    """The model was refused because it is not blessed."""


@dataclass(frozen=True)
class Version:
    """A published version, as its manifest describes it.

    Attributes:
        path: The folder of the version.
        number: Its number, the name of the folder.
        created: When it was published, ISO 8601 in UTC.
        digest: The digest of its content.
        files: The checksum of each file by its path in the folder.
        blessed: Whether the gates had accepted the model.
        reason: What the gates said of it.
        source: Where the model came from.
    """

    path: Path
    number: int
    created: str
    digest: str
    files: Mapping[str, Checksum]
    blessed: bool
    reason: str
    source: Mapping[str, object]

    @property
    def bytes(self) -> int:
        """The size of the content."""
        return sum(file.bytes for file in self.files.values())

    def verify(self) -> None:
        """Read every file and compare it with the manifest.

        Raises:
            StepError: when a file is missing, was added or has other bytes.
        """
        if damage := _difference(self.files, self.path):
            raise StepError(f"version {self.number} in {self.path.parent} is damaged: {damage}; use another version")
        if content.digest(self.files) != self.digest:
            raise StepError(f"version {self.number} in {self.path.parent} has an altered manifest; use another version")


@dataclass(frozen=True)
class Publication:
    """What a push came to.

    Attributes:
        version: The version that LATEST names now.
        copied: False when the destination had this content already.
    """

    version: Version
    copied: bool


def publish(
    destination: str,
    *,
    model: str = "",
    bundle: str = "",
    blessed: bool,
    reason: str = "",
    force: bool = False,
    keep: int = 0,
    source: Mapping[str, object] | None = None,
    lock_timeout: float = LOCK_TIMEOUT_SECONDS,
) -> Publication:
    """Publish a model as the next version of a directory and point LATEST to it.

    A content that the directory has already is not copied again: LATEST then points to the version that has it.

    Args:
        destination: The directory of the versions; made when missing.
        model: The folder of a SavedModel; "" publishes the bundle alone.
        bundle: The folder of an edge bundle; "" publishes the model alone.
        blessed: Whether the gates accepted the model.
        reason: What the gates said, one sentence.
        force: Publish a model that is not blessed all the same.
        keep: How many versions to keep, the newest; 0 keeps all.
        source: What to note about the origin of the model; anything JSON can hold.
        lock_timeout: How long to wait for another process that publishes here, in seconds.

    Returns:
        The version and whether it is new.

    Raises:
        NotBlessedError: when the model is not blessed and `force` is not set.
        StepError: for a destination or a model that cannot be used; LATEST is then what it was.
    """
    directory = _directory(destination)
    if keep < 0:
        raise StepError(f"keep is {keep}; give the number of versions to keep, or 0 to keep all")
    if not blessed:
        _insist(reason, force)
    origins = _origins(model, bundle, directory)
    with _explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory, lock_timeout):
            _remove_leftovers(directory)
            expected = _checksums(origins)
            version = _intact_version(directory, content.digest(expected))
            copied = version is None
            if version is None:
                blessing = {"blessed": blessed, "forced": not blessed, "reason": reason}
                version = _add(directory, origins, expected, {"blessing": blessing, "source": dict(source or {})})
            else:
                log.info("%s has this content already, as version %d", directory, version.number)
                _point_latest(directory, version.number)
            if keep:
                _retire(directory, keep, version.number)
    return Publication(version, copied)


def rollback(destination: str, number: int, *, lock_timeout: float = LOCK_TIMEOUT_SECONDS) -> Version:
    """Point LATEST to a version that exists, after reading it through.

    Args:
        destination: The directory of the versions.
        number: The version to go back to.
        lock_timeout: How long to wait for another process that publishes here, in seconds.

    Returns:
        The version that LATEST names now.

    Raises:
        StepError: when there is no such version or it is damaged; LATEST is then what it was.
    """
    directory = _existing(destination)
    with _explained(directory), _locked(directory, lock_timeout):
        versions = {version.number: version for version in _versions(directory)}
        if number not in versions:
            there = ", ".join(map(str, versions)) or "none"
            raise StepError(f"there is no version {number} in {directory}; give one of: {there}")
        versions[number].verify()
        _point_latest(directory, number)
    return versions[number]


def list_versions(destination: str) -> list[Version]:
    """The versions in a directory, oldest first; folders that were not published by this module are left out.

    Raises:
        StepError: when the directory does not exist.
    """
    directory = _existing(destination)
    with _explained(directory):
        return _versions(directory)


def latest_version(destination: str) -> int | None:
    """The number in LATEST, or None when nothing was published.

    Raises:
        StepError: when the directory does not exist.
    """
    directory = _existing(destination)
    with _explained(directory):
        return _latest(directory)


def _directory(destination: str) -> Path:
    if not destination.strip():
        raise StepError("the destination is empty; give a directory")
    if "://" in destination:
        raise StepError(f"destination {destination}: object stores come with a later version; give a directory")
    return Path(os.path.expanduser(destination)).absolute()


def _existing(destination: str) -> Path:
    directory = _directory(destination)
    if not directory.is_dir():
        raise StepError(f"{directory} is not a directory; give the directory that models were published to")
    return directory


def _insist(reason: str, force: bool) -> None:
    why = reason.strip() or "no reason was given"
    if not force:
        raise NotBlessedError(f"the model is not blessed: {why}")
    log.warning("publishing a model that is not blessed, because force is set: %s", why)


def _origins(model: str, bundle: str, directory: Path) -> dict[str, Path]:
    """Where each file of the new version comes from."""
    origins: dict[str, Path] = {}
    if model:
        origins |= _files_of("model", model, "saved_model.pb", directory)
        if reserved := sorted({name.partition("/")[0] for name in origins} & {EDGE, MANIFEST}):
            raise StepError(f"{model} has an entry named {reserved[0]}, which push_model makes itself; rename it")
    if bundle:
        files = _files_of("edge bundle", bundle, "model.tflite", directory)
        origins |= {f"{EDGE}/{name}": path for name, path in files.items()}
    if not origins:
        raise StepError("there is nothing to publish; give a model, an edge bundle or both")
    return origins


def _files_of(what: str, folder: str, required: str, directory: Path) -> dict[str, Path]:
    root = Path(folder).absolute()
    if not root.is_dir():
        raise StepError(f"the {what} {folder} is not a directory; give the output of the step that makes it")
    if directory.resolve().is_relative_to(root.resolve()):
        raise StepError(f"the destination {directory} lies inside the {what} {folder}; give another directory")
    try:
        files = {path.relative_to(root).as_posix(): path for path in content.regular_files(root)}
    except OSError as error:
        raise StepError(f"cannot read the {what} {folder}: {error.strerror}: {error.filename}") from error
    if required not in files:
        raise StepError(f"the {what} {folder} has no {required}; give the output of the step that makes it")
    return files


def _checksums(origins: Mapping[str, Path]) -> dict[str, Checksum]:
    try:
        return {name: content.checksum(path) for name, path in origins.items()}
    except OSError as error:
        raise StepError(f"cannot read the model: {error.strerror}: {error.filename}; make it readable") from error


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Turn an error of the operating system into one line that says what to do."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = "free some space or choose another destination"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "make it writable for this user or choose another destination"
        elif error.errno in (errno.EEXIST, errno.ENOTDIR):
            advice = "a file is in the way, give a directory"
        elif error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            advice = "its file system cannot lock files or rename folders, choose another destination"
        else:
            advice = "LATEST is unchanged, run the step again"
        raise StepError(f"cannot publish to {directory}: {error.strerror}{where}; {advice}") from error


@contextlib.contextmanager
def _locked(directory: Path, timeout: float) -> Iterator[None]:
    """Hold the only right to change anything in `directory`; the kernel takes it back when this process dies."""
    lock = filelock.FileLock(directory / LOCK, fallback_to_soft=False)  # a soft lock would survive a kill
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log.info("waiting for another process that publishes to %s", directory)
        try:
            lock.acquire(timeout=timeout)
        except filelock.Timeout:
            raise StepError(
                f"another process has been publishing to {directory} for {timeout:g} seconds; "
                "wait for it or stop it, then run the step again"
            ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _workspace(directory: Path) -> Iterator[Path]:
    """A hidden folder in `directory`, gone at the end; needs the lock."""
    workspace = directory / f".{secrets.token_hex(8)}.partial"
    workspace.mkdir()
    try:
        yield workspace
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _remove_leftovers(directory: Path) -> None:
    """Remove what killed processes left behind; under the lock no other process can still be at work on it."""
    for path in directory.iterdir():
        if LEFTOVER.fullmatch(path.name):
            log.info("removing %s, left by a push that was killed", path)
            shutil.rmtree(path, ignore_errors=True)


def _add(
    directory: Path, origins: Mapping[str, Path], expected: Mapping[str, Checksum], notes: Mapping[str, object]
) -> Version:
    """Copy the files to the next version. All that can fail comes before the two renames."""
    number = max([*_numbers(directory), _latest(directory) or 0], default=0) + 1
    with _workspace(directory) as workspace:
        folder, pointer = workspace / str(number), workspace / LATEST
        folder.mkdir()
        _copy_all(origins, expected, folder)
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "version": number,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "digest": content.digest(expected),
            "files": {name: expected[name]._asdict() for name in sorted(expected)},
            **notes,
        }
        content.write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        content.write_text(pointer, f"{number}\n")
        content.sync_folders(workspace)
        if damage := _difference(expected, folder):
            raise StepError(f"{directory} does not give back what was written: {damage}; check the disk and run again")
        os.rename(folder, directory / str(number))
        content.sync_folder(directory)
        os.replace(pointer, directory / LATEST)
        content.sync_folder(directory)
    log.info("published version %d to %s", number, directory)
    return _read(directory / str(number))


def _copy_all(origins: Mapping[str, Path], expected: Mapping[str, Checksum], folder: Path) -> None:
    total, done, reported = sum(file.bytes for file in expected.values()), 0, time.monotonic()
    log.info("copying %d files, %.1f MB", len(origins), total / 1e6)
    for name, path in origins.items():
        if content.copy(path, folder / name) != expected[name]:
            raise StepError(f"{path} changed while it was copied; run the step again when nothing writes to it")
        done += expected[name].bytes
        if time.monotonic() - reported > PROGRESS_SECONDS:
            log.info("copied %.1f of %.1f MB", done / 1e6, total / 1e6)
            reported = time.monotonic()


def _point_latest(directory: Path, number: int) -> None:
    before = _latest(directory)
    if before == number:
        return
    with _workspace(directory) as workspace:
        content.write_text(workspace / LATEST, f"{number}\n")
        os.replace(workspace / LATEST, directory / LATEST)
        content.sync_folder(directory)
    log.info("LATEST of %s: %s -> %d", directory, before or "nothing", number)


def _retire(directory: Path, keep: int, latest: int) -> None:
    """Delete the oldest versions until `keep` remain.

    Never the one in use, nor the one with the highest number: a number must not come back with another content.
    """
    numbers = [version.number for version in _versions(directory)]
    deletable = [number for number in numbers if number not in (latest, numbers[-1])]
    surplus = deletable[: max(0, len(numbers) - keep)]
    if not surplus:
        return
    try:
        with _workspace(directory) as workspace:
            for number in surplus:
                os.rename(directory / str(number), workspace / str(number))
                log.info("deleting version %d of %s, %d are kept", number, directory, keep)
    except OSError as error:
        # The model is published; that an old one is still there is no reason to fail.
        log.warning("cannot delete old versions of %s: %s", directory, error)


def _numbers(directory: Path) -> list[int]:
    """Every number that is taken, by whomever, in ascending order."""
    names = (path.name for path in directory.iterdir())
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def _versions(directory: Path) -> list[Version]:
    versions = []
    for number in _numbers(directory):
        try:
            versions.append(_read(directory / str(number)))
        except (FileNotFoundError, NotADirectoryError):
            continue  # made by hand, or retired since the directory was listed
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("leaving out %s/%d: its manifest cannot be read (%s)", directory, number, error)
    return versions


def _intact_version(directory: Path, digest: str) -> Version | None:
    """The newest version that has this content, provided that it still has it."""
    for version in reversed(_versions(directory)):
        if version.digest == digest:
            try:
                version.verify()
                return version
            except StepError as damage:
                log.warning("%s", damage)
    return None


def _difference(expected: Mapping[str, Checksum], folder: Path) -> str:
    found = content.checksums(folder)
    found.pop(MANIFEST, None)
    return content.difference(expected, found)


def _read(folder: Path) -> Version:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if (manifest["format"], manifest["format_version"]) != (FORMAT, FORMAT_VERSION):
        raise ValueError(f"its format is {manifest['format']} {manifest['format_version']}")
    if str(manifest["version"]) != folder.name:
        raise ValueError(f"it is the manifest of version {manifest['version']}")
    return Version(
        path=folder,
        number=manifest["version"],
        created=manifest["created"],
        digest=manifest["digest"],
        files={name: Checksum(**file) for name, file in manifest["files"].items()},
        blessed=manifest["blessing"]["blessed"],
        reason=manifest["blessing"]["reason"],
        source=manifest["source"],
    )


def _latest(directory: Path) -> int | None:
    try:
        return int((directory / LATEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        log.warning("%s does not hold a number; taken as missing", directory / LATEST)
        return None
