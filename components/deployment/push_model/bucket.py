"""A destination in an object store, which has the same content as a directory but no renames.

    <uri>/LATEST                 the number of the version to use
    <uri>/<number>/...           the files of a version; its MANIFEST.json is written last, saved_model.pb before it
    <uri>/.lock/<random>         the ticket of the one process that changes anything here
    <uri>/.partial/<number>      there as long as the version is being written or deleted

A version without MANIFEST.json is none, so that a reader who asks for LATEST never sees a part of one.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kfp_hybrid import storage
from kfp_hybrid.components.deployment.push_model.content import Checksum
from kfp_hybrid.components.deployment.push_model.versions import (
    LATEST,
    MANIFEST,
    Version,
    read_manifest,
    write_manifest,
)
from kfp_hybrid.step import StepError
from kfp_hybrid.storage.copying import digest
from kfp_hybrid.storage.lease import Lease, hold
from kfp_hybrid.storage.trees import Copy, copy_all

PARTIAL = ".partial"
READERS = 8

log = logging.getLogger(__name__)


class Bucket:
    """The versions below a URI; see `Destination`."""

    def __init__(self, uri: str) -> None:
        self._store = storage.open_store(uri)
        self.name = self._store.uri_of("")
        self._lease: Lease | None = None
        self._latest_tag = ""

    def require(self) -> None:
        """See `Destination.require`."""
        if not self._store.exists():
            raise StepError(f"there is nothing in {self.name}; give the URI that models were published to")

    def require_outside(self, folder: Path, what: str) -> None:
        """See `Destination.require_outside`: a folder of this machine holds no bucket."""

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """See `Destination.explained`; stores explain their errors themselves."""
        yield

    @contextlib.contextmanager
    def locked(self, timeout: float, make: bool) -> Iterator[None]:
        """See `Destination.locked`; `make` says nothing, for a bucket is not made here."""
        with hold(self._store, timeout) as self._lease:
            yield

    def remove_leftovers(self) -> None:
        """See `Destination.remove_leftovers`."""
        for entry in list(self._store.entries(f"{PARTIAL}/")):
            number = entry.key.rpartition("/")[2]
            if number.isdigit() and not self._store.stat(f"{number}/{MANIFEST}"):
                log.info("removing version %s of %s, left by a push that was killed", number, self.name)
                self._store.delete_tree(f"{number}/")
            self._store.delete([entry.key])

    def numbers(self) -> list[int]:
        """See `Destination.numbers`."""
        return sorted(int(name) for name in self._store.folders() if name.isascii() and name.isdigit())

    def read(self, number: int) -> Version | None:
        """See `Destination.read`."""
        try:
            text = self._store.read(f"{number}/{MANIFEST}").decode("utf-8")
        except storage.NotFound:
            return None
        return read_manifest(text, self.name, number, self)

    def checksums(self, number: int) -> dict[str, Checksum]:
        """See `Files.checksums`."""
        start = f"{number}/"
        entries = [entry for entry in self._store.entries(start) if entry.key != start + MANIFEST]
        with ThreadPoolExecutor(READERS, "read") as executor:
            digests = executor.map(lambda entry: digest(self._store, entry), entries)
            return {
                entry.key.removeprefix(start): Checksum(sha256, entry.size)
                for entry, sha256 in zip(entries, digests, strict=True)
            }

    def latest(self) -> str | None:
        """See `Destination.latest`."""
        entry = self._store.stat(LATEST)
        self._latest_tag = entry.tag if entry else ""
        return self._store.read_range(entry, 0, entry.size).decode("utf-8", "replace") if entry else None

    def add(
        self,
        number: int,
        origins: Mapping[str, Path],
        files: Mapping[str, Checksum],
        notes: Mapping[str, object],
    ) -> None:
        """See `Destination.add`."""
        size = sum(file.bytes for file in files.values())
        log.info("copying %d files, %.1f MB", len(origins), size / 1e6)
        self._store.write_bytes(f"{PARTIAL}/{number}", b"")
        try:
            copy_all([self._copy(path, files[name], f"{number}/{name}") for name, path in origins.items()])
        except storage.Damaged:
            raise StepError(
                "the model changed while it was copied; run the step again when nothing writes to it"
            ) from None
        sizes = {entry.key.partition("/")[2]: entry.size for entry in self._store.entries(f"{number}/")}
        if sizes != {name: file.bytes for name, file in files.items()}:
            raise StepError(f"{self.name} does not show what was written, or something else writes there; run it again")
        self._write(f"{number}/{MANIFEST}", write_manifest(number, files, notes))
        self.point_latest(number)
        self._store.delete([f"{PARTIAL}/{number}"])

    def point_latest(self, number: int) -> None:
        """See `Destination.point_latest`. Needs `latest` to have been asked before."""
        self._write(LATEST, f"{number}\n", storage.Condition(self._latest_tag))

    def delete(self, numbers: Sequence[int]) -> None:
        """See `Destination.delete`; the manifest goes first."""
        for number in numbers:
            self._store.write_bytes(f"{PARTIAL}/{number}", b"")
            self._store.delete([f"{number}/{MANIFEST}"])
            self._store.delete_tree(f"{number}/")
            self._store.delete([f"{PARTIAL}/{number}"])

    def _copy(self, path: Path, checksum: Checksum, key: str) -> Copy:
        entry = storage.Entry("", checksum.bytes, sha256=checksum.sha256)
        return Copy(storage.open_store(str(path)), entry, self._store, key)

    def _write(self, key: str, text: str, condition: storage.Condition | None = None) -> None:
        assert self._lease is not None
        self._lease.check()
        self._store.write_bytes(key, text.encode(), condition)
