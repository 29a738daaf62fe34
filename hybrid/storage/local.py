"""Files as a store."""

import contextlib
import hashlib
import io
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from kfp_hybrid.storage.errors import Changed, Damaged, NotFound, StorageError
from kfp_hybrid.storage.interface import Condition, Entry, Store
from kfp_hybrid.storage.locations import Location, relative_path
from kfp_hybrid.storage.streams import HashingStream, pieces

PARTIAL = ".kfp-hybrid-partial-"
LEFTOVER_SECONDS = 3600.0

log = logging.getLogger(__name__)


class LocalStore(Store):
    """The files below a folder, or one file."""

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._root = Path(location.prefix)
        self._inside: set[str] = set()  # folders that were looked at

    def path(self, key: str) -> Path:
        """Where the object `key` is.

        Raises:
            StorageError: outside of the folder, also when a symbolic link leads there.
        """
        if not key:
            return self._root
        path = self._root / relative_path(key)
        folder = key.rpartition("/")[0]
        if folder not in self._inside:
            if not path.parent.resolve().is_relative_to(self._root.resolve()):
                raise StorageError(f"{path} leads out of {self._root} by a symbolic link; remove the link")
            self._inside.add(folder)
        return path

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """See `Store.entries`; partial files that a kill left behind are left out."""
        if not self._root.is_dir():
            return
        keys = (path.relative_to(self._root).as_posix() for path in _files(self._root))
        for key in sorted(key for key in keys if key.startswith(prefix)):
            if entry := self.stat(key):
                yield entry

    def folders(self) -> list[str]:
        """See `Store.folders`."""
        if not self._root.is_dir():
            return []
        with _reading(self._root):
            below = [Path(entry.path) for entry in os.scandir(self._root) if entry.is_dir(follow_symlinks=False)]
        return sorted(path.name for path in below if next(_files(path), None))

    def stat(self, key: str) -> Entry | None:
        """See `Store.stat`; digests are not known without reading, see `digests`."""
        return self._stat(key, self.path(key))

    def _stat(self, key: str, path: Path) -> Entry | None:
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _explained(error, path, "read") from error
        if stat.S_ISDIR(status.st_mode):
            return None
        modified = datetime.fromtimestamp(status.st_mtime, timezone.utc)
        return Entry(key, status.st_size, f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}", modified)

    def digest(self, key: str, algorithm: str) -> str:
        """The sha256 or md5 of a file, by reading it."""
        path = self.path(key)
        found = hashlib.new(algorithm, usedforsecurity=False)
        with _reading(path), path.open("rb", buffering=0) as file:
            for piece in pieces(file):  # type: ignore[arg-type]
                found.update(piece)
        return found.hexdigest()

    def read_range(self, entry: Entry, start: int, length: int) -> bytes:
        """See `Store.read_range`."""
        path = self.path(entry.key)
        with _reading(path), path.open("rb") as file:
            file.seek(start)
            data = file.read(length)
        if len(data) != length:
            raise Changed(f"{path} became shorter while it was read; try again when nothing writes to it")
        return data

    def read_whole(self, entry: Entry) -> tuple[bytes, Entry]:
        """See `Store.read_whole`."""
        return self.read_range(entry, 0, entry.size), entry

    def stream(self, entry: Entry) -> io.RawIOBase:
        """See `Store.stream`."""
        path = self.path(entry.key)
        with _reading(path):
            return path.open("rb", buffering=0)

    def write(self, key: str, content: BinaryIO, like: Entry, condition: Condition | None = None) -> Entry:
        """See `Store.write`: into a hidden file beside it, which then takes its name."""
        path = self.path(key)
        hashing = HashingStream(content, like, self.uri_of(key))
        with _writing(path), _partial(path) as partial:
            with _make(partial) as file:
                for piece in pieces(hashing):  # type: ignore[arg-type]
                    file.write(piece)
                hashing.check()
            if like.modified:
                time = like.modified.timestamp()
                os.utime(partial, (time, time))
            self._put_in_place(key, partial, path, condition)
        entry = self._stat(key, path)
        if entry is None or entry.size != like.size:
            raise Damaged(f"{path} was removed or replaced while it was written; run it again")
        return Entry(key, entry.size, entry.tag, entry.modified, hashing.sha256)

    def _put_in_place(self, key: str, partial: Path, path: Path, condition: Condition | None) -> None:
        if condition is None:
            os.replace(partial, path)
        elif condition.tag:
            current = self.stat(key)
            if current is None or current.tag != condition.tag:
                raise Changed(f"{path} was changed by another process; try again")
            os.replace(partial, path)
        else:
            try:
                os.link(partial, path)  # unlike a rename it does not replace
                partial.unlink()
            except FileExistsError:
                raise Changed(f"{path} was made by another process; try again") from None

    def delete(self, keys: Iterable[str]) -> None:
        """See `Store.delete`; folders that become empty go with them."""
        for key in keys:
            path = self.path(key)
            with _writing(path):
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    for parent in path.parents:
                        if parent == self._root or not parent.is_relative_to(self._root):
                            break
                        parent.rmdir()

    def remove_leftovers(self) -> None:
        """Remove the partial files of processes that were killed: those that nothing was written to for an hour."""
        if not self._root.is_dir():
            return
        for path in self._root.rglob(f"{PARTIAL}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                    path.unlink()


def _files(folder: Path) -> Iterator[Path]:
    with _reading(folder):
        entries = list(os.scandir(folder))
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        elif entry.is_dir():
            log.warning("leaving out %s, a symbolic link to a folder", entry.path)
        elif entry.name.startswith(PARTIAL):
            continue
        elif entry.is_file():
            if not entry.name.isprintable() and not _is_text(entry.name):
                raise StorageError(f"the name of {entry.path!r} is not UTF-8; rename the file")
            yield Path(entry.path)
        else:
            log.warning("leaving out %s, which is no file", entry.path)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    partial = path.parent / f"{PARTIAL}{secrets.token_hex(8)}"
    try:
        yield partial
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _make(path: Path) -> BinaryIO:
    try:
        return path.open("xb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise _explained(error, path, "read") from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _explained(error, path, "write") from error


def _explained(error: OSError, path: Path, verb: str) -> StorageError:
    return StorageError(f"cannot {verb} {path}: {error.strerror or error}; check path, permissions and free space")
