"""A destination that is a directory of this machine, or one that is mounted on it.

    <directory>/LATEST                 the number of the version to use
    <directory>/<number>/              the files of the SavedModel
    <directory>/<number>/edge/         the files of the edge bundle
    <directory>/<number>/MANIFEST.json checksums, digest, blessing and source
    <directory>/.lock                  held by the one process that changes anything here
    <directory>/.<random>.partial/     the unfinished work of that process

Everything is prepared in the hidden folder and takes its place by a rename, so that a reader never sees a part of
a version, whenever a writer is killed. Readers need no lock.
"""

import contextlib
import errno
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import filelock

from kfp_hybrid import publishing
from kfp_hybrid.components.deployment.push_model import content
from kfp_hybrid.components.deployment.push_model.content import Checksum
from kfp_hybrid.components.deployment.push_model.versions import (
    LATEST,
    MANIFEST,
    Version,
    read_manifest,
    write_manifest,
)
from kfp_hybrid.step import StepError

LOCK = ".lock"
PROGRESS_SECONDS = 5.0
LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.partial")

log = logging.getLogger(__name__)


class Directory:
    """The versions in a directory; see `Destination`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def require(self) -> None:
        """See `Destination.require`."""
        if not self.path.is_dir():
            raise StepError(f"{self.path} is not a directory; give the directory that models were published to")

    def require_outside(self, folder: Path, what: str) -> None:
        """See `Destination.require_outside`."""
        if self.path.resolve().is_relative_to(folder.resolve()):
            raise StepError(f"the destination {self.path} lies inside the {what} {folder}; give another directory")

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
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
            raise StepError(f"cannot publish to {self.path}: {error.strerror}{where}; {advice}") from error

    @contextlib.contextmanager
    def locked(self, timeout: float, make: bool) -> Iterator[None]:
        """See `Destination.locked`; the kernel takes the lock back when this process dies."""
        if make:
            self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path / LOCK, fallback_to_soft=False)  # a soft lock would survive a kill
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            log.info("waiting for another process that publishes to %s", self.path)
            try:
                lock.acquire(timeout=timeout)
            except filelock.Timeout:
                raise StepError(
                    f"another process has been publishing to {self.path} for {timeout:g} seconds; "
                    "wait for it or stop it, then run the step again"
                ) from None
        try:
            yield
        finally:
            lock.release()

    def remove_leftovers(self) -> None:
        """See `Destination.remove_leftovers`."""
        for path in self.path.iterdir():
            if LEFTOVER.fullmatch(path.name):
                log.info("removing %s, left by a push that was killed", path)
                shutil.rmtree(path, ignore_errors=True)

    def numbers(self) -> list[int]:
        """See `Destination.numbers`."""
        names = (path.name for path in self.path.iterdir())
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def read(self, number: int) -> Version | None:
        """See `Destination.read`."""
        try:
            text = (self.path / str(number) / MANIFEST).read_text(encoding="utf-8")
            return read_manifest(text, self.name, number, self)
        except (FileNotFoundError, NotADirectoryError):
            return None  # made by hand, or retired since the directory was listed

    def checksums(self, number: int) -> dict[str, Checksum]:
        """See `Files.checksums`."""
        return _without_manifest(content.checksums(self.path / str(number)))

    def latest(self) -> str | None:
        """See `Destination.latest`."""
        try:
            return (self.path / LATEST).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def add(
        self,
        number: int,
        origins: Mapping[str, Path],
        files: Mapping[str, Checksum],
        notes: Mapping[str, object],
    ) -> None:
        """See `Destination.add`. All that can fail comes before the two renames."""
        with self._workspace() as workspace:
            folder, pointer = workspace / str(number), workspace / LATEST
            folder.mkdir()
            _copy_all(origins, files, folder)
            content.write_text(folder / MANIFEST, write_manifest(number, files, notes))
            content.write_text(pointer, f"{number}\n")
            content.sync_folders(workspace)
            if damage := content.difference(files, _without_manifest(content.checksums(folder))):
                raise StepError(
                    f"{self.path} does not give back what was written: {damage}; check the disk and run again"
                )
            publishing.replace(folder, self.path / str(number), last=MANIFEST)
            content.sync_folder(self.path)
            os.replace(pointer, self.path / LATEST)
            content.sync_folder(self.path)

    def point_latest(self, number: int) -> None:
        """See `Destination.point_latest`."""
        with self._workspace() as workspace:
            content.write_text(workspace / LATEST, f"{number}\n")
            os.replace(workspace / LATEST, self.path / LATEST)
            content.sync_folder(self.path)

    def delete(self, numbers: Sequence[int]) -> None:
        """See `Destination.delete`."""
        with self._workspace() as workspace:
            for number in numbers:
                try:
                    os.rename(self.path / str(number), workspace / str(number))
                except OSError as error:
                    if error.errno not in publishing.NO_RENAME:
                        raise
                    (self.path / str(number) / MANIFEST).unlink()  # from here on the version does not count
                    shutil.rmtree(self.path / str(number))

    @contextlib.contextmanager
    def _workspace(self) -> Iterator[Path]:
        """A hidden folder in the directory, gone at the end; needs the lock."""
        workspace = self.path / f".{secrets.token_hex(8)}.partial"
        workspace.mkdir()
        try:
            yield workspace
        finally:
            shutil.rmtree(workspace, ignore_errors=True)


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


def _without_manifest(checksums: dict[str, Checksum]) -> dict[str, Checksum]:
    checksums.pop(MANIFEST, None)
    return checksums
