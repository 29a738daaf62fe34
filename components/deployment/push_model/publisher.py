"""Publishes models into a place of numbered versions, which a server or a device reads at any time.

A place is a directory (see `directory`) or a URI of an object store (see `bucket`); what follows holds for both.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kfp_hybrid.components.deployment.push_model import content
from kfp_hybrid.components.deployment.push_model.content import Checksum
from kfp_hybrid.components.deployment.push_model.directory import Directory
from kfp_hybrid.components.deployment.push_model.versions import EDGE, LATEST, MANIFEST, Version
from kfp_hybrid.step import StepError

LOCK_TIMEOUT_SECONDS = 600.0

log = logging.getLogger(__name__)


class NotBlessedError(StepError):
    """The model was refused because it is not blessed."""


class Destination(Protocol):
    """Where versions are published; its errors are `StepError` within `explained`."""

    name: str

    def require(self) -> None:
        """Raise unless something was published here."""

    def require_outside(self, folder: Path, what: str) -> None:
        """Raise if the destination lies within the folder of `what`."""

    def explained(self) -> AbstractContextManager[None]:
        """Errors of the place in one line that says what to do."""

    def locked(self, timeout: float, make: bool) -> AbstractContextManager[None]:
        """Hold the only right to change anything here, waiting `timeout` seconds; `make` the place when missing."""

    def remove_leftovers(self) -> None:
        """Remove what killed processes left behind; under the lock no other can still be at work on it."""

    def numbers(self) -> list[int]:
        """Every number that is taken, by whomever, in ascending order."""

    def read(self, number: int) -> Version | None:
        """A version, None when nothing of this module is there; raises like `read_manifest`."""

    def latest(self) -> str | None:
        """The text in LATEST, if it is there."""

    def add(
        self, number: int, origins: Mapping[str, Path], files: Mapping[str, Checksum], notes: Mapping[str, object]
    ) -> None:
        """Copy the files to a new version, check them, and point LATEST to it."""

    def point_latest(self, number: int) -> None:
        """Replace LATEST."""

    def delete(self, numbers: Sequence[int]) -> None:
        """Delete versions; to a reader each is there whole or not at all."""


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
    if keep < 0:
        raise StepError(f"keep is {keep}; give the number of versions to keep, or 0 to keep all")
    place = _open(destination)
    if not blessed:
        _insist(reason, force)
    origins = _origins(model, bundle, place)
    with place.explained(), place.locked(lock_timeout, make=True):
        place.remove_leftovers()
        expected = _checksums(origins)
        version = _intact_version(place, content.digest(expected))
        copied = version is None
        if version is None:
            blessing = {"blessed": blessed, "forced": not blessed, "reason": reason}
            version = _add(place, origins, expected, {"blessing": blessing, "source": dict(source or {})})
        else:
            log.info("%s has this content already, as version %d", place.name, version.number)
            _point_latest(place, version.number)
        if keep:
            _retire(place, keep, version.number)
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
    place = _existing(destination)
    with place.explained(), place.locked(lock_timeout, make=False):
        versions = {version.number: version for version in _versions(place)}
        if number not in versions:
            there = ", ".join(map(str, versions)) or "none"
            raise StepError(f"there is no version {number} in {place.name}; give one of: {there}")
        versions[number].verify()
        _point_latest(place, number)
    return versions[number]


def list_versions(destination: str) -> list[Version]:
    """The versions in a directory, oldest first; folders that were not published by this module are left out.

    Raises:
        StepError: when the directory does not exist.
    """
    place = _existing(destination)
    with place.explained():
        return _versions(place)


def latest_version(destination: str) -> int | None:
    """The number in LATEST, or None when nothing was published.

    Raises:
        StepError: when the directory does not exist.
    """
    place = _existing(destination)
    with place.explained():
        return _latest(place)


def _open(destination: str) -> Destination:
    if not destination.strip():
        raise StepError("the destination is empty; give a directory or a URI such as s3://bucket/models")
    if "://" not in destination:
        return Directory(Path(os.path.expanduser(destination)).absolute())
    from kfp_hybrid import storage

    location = storage.parse(destination)
    if location.scheme == "file":
        return Directory(Path(location.prefix))
    from kfp_hybrid.components.deployment.push_model.bucket import Bucket

    return Bucket(destination)


def _existing(destination: str) -> Destination:
    place = _open(destination)
    place.require()
    return place


def _insist(reason: str, force: bool) -> None:
    why = reason.strip() or "no reason was given"
    if not force:
        raise NotBlessedError(f"the model is not blessed: {why}")
    log.warning("publishing a model that is not blessed, because force is set: %s", why)


def _origins(model: str, bundle: str, place: Destination) -> dict[str, Path]:
    """Where each file of the new version comes from."""
    origins: dict[str, Path] = {}
    if model:
        origins |= _files_of("model", model, "saved_model.pb", place)
        if reserved := sorted({name.partition("/")[0] for name in origins} & {EDGE, MANIFEST}):
            raise StepError(f"{model} has an entry named {reserved[0]}, which push_model makes itself; rename it")
    if bundle:
        files = _files_of("edge bundle", bundle, "model.tflite", place)
        origins |= {f"{EDGE}/{name}": path for name, path in files.items()}
    if not origins:
        raise StepError("there is nothing to publish; give a model, an edge bundle or both")
    return origins


def _files_of(what: str, folder: str, required: str, place: Destination) -> dict[str, Path]:
    root = Path(folder).absolute()
    if not root.is_dir():
        raise StepError(f"the {what} {folder} is not a directory; give the output of the step that makes it")
    place.require_outside(root, what)
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


def _add(
    place: Destination, origins: Mapping[str, Path], expected: Mapping[str, Checksum], notes: Mapping[str, object]
) -> Version:
    number = max([*place.numbers(), _latest(place) or 0], default=0) + 1
    place.add(number, origins, expected, notes)
    log.info("published version %d to %s", number, place.name)
    version = place.read(number)
    assert version is not None
    return version


def _point_latest(place: Destination, number: int) -> None:
    before = _latest(place)
    if before == number:
        return
    place.point_latest(number)
    log.info("LATEST of %s: %s -> %d", place.name, before or "nothing", number)


def _retire(place: Destination, keep: int, latest: int) -> None:
    """Delete the oldest versions until `keep` remain.

    Never the one in use, nor the one with the highest number: a number must not come back with another content.
    """
    numbers = [version.number for version in _versions(place)]
    deletable = [number for number in numbers if number not in (latest, numbers[-1])]
    surplus = deletable[: max(0, len(numbers) - keep)]
    if not surplus:
        return
    log.info("deleting versions %s of %s, %d are kept", ", ".join(map(str, surplus)), place.name, keep)
    try:
        place.delete(surplus)
    except (OSError, StepError) as error:
        # The model is published; that an old one is still there is no reason to fail.
        log.warning("cannot delete old versions of %s: %s", place.name, error)


def _versions(place: Destination) -> list[Version]:
    versions = []
    for number in place.numbers():
        try:
            version = place.read(number)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("leaving out %s/%d: its manifest cannot be read (%s)", place.name, number, error)
            continue
        if version:
            versions.append(version)
    return versions


def _intact_version(place: Destination, digest: str) -> Version | None:
    """The newest version that has this content, provided that it still has it."""
    for version in reversed(_versions(place)):
        if version.digest == digest:
            try:
                version.verify()
                return version
            except StepError as damage:
                log.warning("%s", damage)
    return None


def _latest(place: Destination) -> int | None:
    text = place.latest()
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        log.warning("%s/%s does not hold a number; taken as missing", place.name, LATEST)
        return None
