"""A place where versions are published: what it can do, and how one is opened."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from kfp_hybrid.components.deployment.push_model.content import Checksum
from kfp_hybrid.components.deployment.push_model.directory import Directory
from kfp_hybrid.components.deployment.push_model.versions import Version
from kfp_hybrid.step import StepError


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


def open_destination(destination: str) -> Destination:
    """The place that a path or URI names; it need not exist.

    Raises:
        StepError: when the destination is empty or no location.
    """
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


def existing_destination(destination: str) -> Destination:
    """The same for a place where something was published.

    Raises:
        StepError: when nothing was.
    """
    place = open_destination(destination)
    place.require()
    return place
