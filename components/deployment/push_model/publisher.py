"""Publishes models or predictions into a place of numbered versions, which somebody else reads at any time.

A place is a directory (see `directory`) or a URI of an object store (see `bucket`); what follows holds for both.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kfp_hybrid.components.deployment.push_model import content
from kfp_hybrid.components.deployment.push_model.content import Checksum
from kfp_hybrid.components.deployment.push_model.destination import (
    Destination,
    existing_destination,
    open_destination,
)
from kfp_hybrid.components.deployment.push_model.versions import (
    EDGE,
    FORMATS,
    LATEST,
    MANIFEST,
    MODEL,
    PREDICTIONS,
    Version,
)
from kfp_hybrid.step import StepError

LOCK_TIMEOUT_SECONDS = 600.0

log = logging.getLogger(__name__)


class NotBlessedError(StepError):
    """The model was refused because it is not blessed."""


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
    _check_keep(keep)
    place = open_destination(destination)
    if not blessed:
        _insist(reason, force)
    origins = _origins(model, bundle, place)
    notes = {"blessing": {"blessed": blessed, "forced": not blessed, "reason": reason}, "source": dict(source or {})}
    return _publish(place, MODEL, origins, notes, keep, lock_timeout)


def publish_predictions(
    destination: str,
    predictions: str,
    *,
    reason: str = "",
    keep: int = 0,
    source: Mapping[str, object] | None = None,
    lock_timeout: float = LOCK_TIMEOUT_SECONDS,
) -> Publication:
    """Publish predictions as the next version of a directory of their own and point LATEST to it; see `publish`.

    Args:
        destination: The directory of the versions; made when missing.
        predictions: The folder of the predictions.
        reason: What is known of them, one sentence.
        keep: How many versions to keep, the newest; 0 keeps all.
        source: What to note about their origin; anything JSON can hold.
        lock_timeout: How long to wait for another process that publishes here, in seconds.

    Returns:
        The version and whether it is new.

    Raises:
        StepError: for a destination or predictions that cannot be used; LATEST is then what it was.
    """
    _check_keep(keep)
    place = open_destination(destination)
    origins = _files_of("predictions", predictions, "manifest.json", place)
    notes = {"blessing": {"blessed": True, "forced": False, "reason": reason}, "source": dict(source or {})}
    return _publish(place, PREDICTIONS, origins, notes, keep, lock_timeout)


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
    place = existing_destination(destination)
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
    place = existing_destination(destination)
    with place.explained():
        return _versions(place)


def latest_version(destination: str) -> int | None:
    """The number in LATEST, or None when nothing was published.

    Raises:
        StepError: when the directory does not exist.
    """
    place = existing_destination(destination)
    with place.explained():
        return _latest(place)


def _check_keep(keep: int) -> None:
    if keep < 0:
        raise StepError(f"keep is {keep}; give the number of versions to keep, or 0 to keep all")


def _publish(
    place: Destination,
    format_: str,
    origins: Mapping[str, Path],
    notes: Mapping[str, object],
    keep: int,
    lock_timeout: float,
) -> Publication:
    with place.explained(), place.locked(lock_timeout, make=True):
        place.remove_leftovers()
        versions = _versions(place)
        _refuse_others(place, format_, versions)
        expected = _checksums(origins)
        version = _intact_version(versions, content.digest(expected))
        copied = version is None
        if version is None:
            version = _add(place, origins, expected, {"format": format_, **notes})
        else:
            log.info("%s has this content already, as version %d", place.name, version.number)
            _point_latest(place, version.number)
        if keep:
            _retire(place, keep, version.number)
    return Publication(version, copied)


def _refuse_others(place: Destination, format_: str, versions: Sequence[Version]) -> None:
    """Keep models and predictions apart: whoever follows LATEST expects what was there before."""
    if other := next((version for version in versions if version.format != format_), None):
        raise StepError(
            f"{place.name} is where {FORMATS[other.format]} are published; give {FORMATS[format_]} another destination"
        )


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
        raise StepError(
            f"cannot read {error.filename}: {error.strerror}; make it readable and run the step again"
        ) from error


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
        # The new version is published; that an old one is still there is no reason to fail.
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


def _intact_version(versions: Sequence[Version], digest: str) -> Version | None:
    """The newest version that has this content, provided that it still has it."""
    for version in reversed(versions):
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
