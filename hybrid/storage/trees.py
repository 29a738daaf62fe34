"""Moves files and trees between stores: in parallel, verified, resumable, every object whole or not at all."""

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kfp_hybrid.cores import available_cores
from kfp_hybrid.storage.copying import SMALL_BYTES, copy_object, digest, is_same
from kfp_hybrid.storage.errors import Damaged, NotFound, StorageError
from kfp_hybrid.storage.interface import Entry, Store
from kfp_hybrid.storage.local import LocalStore
from kfp_hybrid.storage.locations import relative_path
from kfp_hybrid.storage.opening import open_store

MARKERS = ("saved_model.pb", "MANIFEST.json", "LATEST")  # what readers look for first is written last, in this order
SMALL_COPIES = 16  # at a time
LARGE_COPIES = 4  # each holds some parts in memory
MANY = 2000  # small objects are worth the start of more processes
MOST_PROCESSES = 4

log = logging.getLogger(__name__)


class Progress(Protocol):
    """What a transfer tells whoever shows it; called from several threads."""

    def planned(self, objects: int, size: int) -> None:
        """So much is to be copied."""

    def copied(self, size: int) -> None:
        """So many more bytes were."""

    def finished(self, key: str) -> None:
        """One more object is there."""


class Silent:
    """Shows nothing."""

    def planned(self, objects: int, size: int) -> None:
        """See `Progress`."""

    def copied(self, size: int) -> None:
        """See `Progress`."""

    def finished(self, key: str) -> None:
        """See `Progress`."""


@dataclass(frozen=True)
class Transfer:
    """What a transfer came to.

    Attributes:
        copied: number of objects that were copied.
        bytes: their size.
        unchanged: number of objects that the target had already.
        deleted: number of objects that were deleted at the target.
        seconds: how long it took.
    """

    copied: int
    bytes: int
    unchanged: int
    deleted: int
    seconds: float

    def __str__(self) -> str:
        speed = f", {self.bytes / 1e6 / self.seconds:.1f} MB/s" if self.seconds > 0 else ""
        deleted = f", {self.deleted} deleted" if self.deleted else ""
        return (
            f"{self.copied} copied ({self.bytes / 1e6:.1f} MB in {self.seconds:.1f} s{speed}), "
            f"{self.unchanged} unchanged{deleted}"
        )


def download(uri: str, path: str | Path, progress: Progress | None = None) -> Transfer:
    """Bring an object, or all objects below a URI, to this machine.

    Args:
        uri: what to bring; with a slash at its end always a folder.
        path: the file, or the folder that the files go to; a file goes into a folder that exists.
        progress: what to tell about it.

    Raises:
        StorageError: nothing is there, or it cannot be read or written.
    """
    return _transfer(uri, str(path), progress)


def upload(path: str | Path, uri: str, progress: Progress | None = None) -> Transfer:
    """Bring a file, or all files below a folder, to a store.

    Args:
        path: what to bring.
        uri: the object, or what the objects lie below; a file goes below a URI with a slash at its end.
        progress: what to tell about it.

    Raises:
        StorageError: nothing is there, or it cannot be read or written.
    """
    return _transfer(str(path), uri, progress)


def sync(
    source: str, target: str, *, delete: bool = False, verify: bool = False, progress: Progress | None = None
) -> Transfer:
    """Make a target hold what a source holds; what it has already is not copied again.

    Args:
        source: a folder of objects or files, or one of them.
        target: where to.
        delete: also delete at the target what the source does not have.
        verify: afterwards read both sides again, all of it, and compare.
        progress: what to tell about it.

    Raises:
        StorageError: nothing is at the source, or something cannot be read or written. What was copied until then is
            whole, and the next time goes on from there.
    """
    return _transfer(source, target, progress, delete=delete, verify=verify)


def _transfer(
    source: str, target: str, progress: Progress | None, *, delete: bool = False, verify: bool = False
) -> Transfer:
    started = time.monotonic()
    origin = open_store(source)
    single = None if source.endswith("/") else origin.stat("")
    if single:
        copies = [_single(origin, single, target)]
    else:
        destination = open_store(target)
        copies = _plan(origin, destination)
        if not copies:
            raise NotFound(f"there is nothing in {origin.uri_of('')}; check the name")
    changed = copy_all(copies, progress)
    if verify:
        _each(copies, _verify, LARGE_COPIES)
    deleted = 0
    if delete and not single:
        deleted = _delete_others(destination, {copy.key for copy in copies})
    size = sum(copy.entry.size for copy in changed)
    return Transfer(len(changed), size, len(copies) - len(changed), deleted, time.monotonic() - started)


@dataclass(frozen=True)
class Copy:
    """One object that the target is to hold.

    Attributes:
        source: where it is.
        entry: what it is there.
        target: where it goes.
        key: its name there.
        there: what has the name already.
    """

    source: Store
    entry: Entry
    target: Store
    key: str
    there: Entry | None = None

    @property
    def rank(self) -> int:
        """Objects of a higher rank wait for those of a lower one."""
        name = self.key.rpartition("/")[2]
        return MARKERS.index(name) + 1 if name in MARKERS else 0


def _single(origin: Store, entry: Entry, target: str) -> Copy:
    name = origin.location.prefix.rpartition("/")[2]
    destination = open_store(target)
    is_folder = isinstance(destination, LocalStore) and destination.path("").is_dir()
    key = name if is_folder or target.endswith("/") else ""
    return Copy(origin, entry, destination, key, destination.stat(key))


def _plan(origin: Store, destination: Store) -> list[Copy]:
    _refuse_overlap(origin, destination)
    entries = list(origin.entries())
    if isinstance(destination, LocalStore):
        for entry in entries:
            relative_path(entry.key)  # before anything is written
        destination.remove_leftovers()
    there = {entry.key: entry for entry in destination.entries()} if entries else {}
    return [Copy(origin, entry, destination, entry.key, there.get(entry.key)) for entry in entries]


def _refuse_overlap(origin: Store, destination: Store) -> None:
    here, there = (f"{store.location.uri}/" for store in (origin, destination))
    if here.startswith(there) or there.startswith(here):
        raise StorageError(f"{here} and {there} lie within each other; give places that do not")


def copy_all(copies: list[Copy], progress: Progress | None = None) -> list[Copy]:
    """Copy what the targets do not have yet; what readers look for first comes last.

    Returns:
        The copies that were needed.

    Raises:
        StepError: the first error; what is not whole then is not there.
    """
    progress = progress or Silent()
    differs: list[Copy] = []
    present = [copy for copy in copies if copy.there is not None]
    _each(present, lambda copy: None if _is_same(copy) else differs.append(copy), SMALL_COPIES)
    needed = [copy for copy in copies if copy.there is None] + differs
    progress.planned(len(needed), sum(copy.entry.size for copy in needed))

    def work(copy: Copy) -> None:
        copy_object(copy.source, copy.entry, copy.target, copy.key, progress.copied)
        progress.finished(copy.key)

    for rank in range(len(MARKERS) + 1):
        now = sorted((copy for copy in needed if copy.rank == rank), key=lambda copy: copy.key)
        _each([copy for copy in now if copy.entry.size > SMALL_BYTES], work, LARGE_COPIES)
        small = [copy for copy in now if copy.entry.size <= SMALL_BYTES]
        processes = min(available_cores(), MOST_PROCESSES)
        ways = {(id(copy.source), id(copy.target)) for copy in small}
        if len(small) >= MANY and processes > 1 and len(ways) == 1:
            _copy_in_processes(small, processes, progress)
        else:
            _each(small, work, SMALL_COPIES)
    return needed


def _copy_in_processes(copies: list[Copy], processes: int, progress: Progress) -> None:
    from kfp_hybrid.storage.processes import Task, copy_in_processes

    def finished(task: Task) -> None:
        progress.copied(task[0].size)
        progress.finished(task[1])

    tasks = [(copy.entry, copy.key) for copy in copies]
    copy_in_processes(copies[0].source, copies[0].target, tasks, processes, finished)


def _is_same(copy: Copy) -> bool:
    assert copy.there is not None
    return is_same(copy.source, copy.entry, copy.target, copy.there)


def _verify(copy: Copy) -> None:
    there = copy.target.require(copy.key)
    if digest(copy.source, copy.entry) != digest(copy.target, there):
        raise Damaged(
            f"{copy.target.uri_of(copy.key)} differs from {copy.source.uri_of(copy.entry.key)}; copy it again"
        )


def _delete_others(destination: Store, keep: set[str]) -> int:
    others = [entry.key for entry in destination.entries() if entry.key not in keep]
    destination.delete(others)
    return len(others)


def _each(copies: Iterable[Copy], work: Callable[[Copy], object], at_once: int) -> None:
    """Do the work for all; the first error ends it."""
    executor = ThreadPoolExecutor(at_once, "storage")
    try:
        futures: list[Future[object]] = [executor.submit(work, copy) for copy in copies]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
