"""The one interface to all stores: what `open_store` returns."""

import copy
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import BinaryIO

from kfp_hybrid.storage.errors import NotFound
from kfp_hybrid.storage.locations import Location

RANGE_BYTES = 8 << 20  # what is held of an object at once; two or three per stream


@dataclass(frozen=True)
class Entry:
    """One object.

    Attributes:
        key: its name below the store's location, with forward slashes; "" when the location itself is the object.
        size: in bytes.
        tag: stands for this content at this place: another content has another tag.
        modified: when it was written, by the store's clock.
        sha256: of the content, in hexadecimal digits, when the store knows it.
        md5: the same for MD5.
        origin: URI and tag of what it was copied from, when the store knows it.
    """

    key: str
    size: int
    tag: str = ""
    modified: datetime | None = None
    sha256: str = ""
    md5: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Condition:
    """What must hold for a write to happen.

    Attributes:
        tag: the tag of the object that is replaced; "" asks that there is none.
    """

    tag: str = ""


class Store(ABC):
    """The objects below one location. Methods may be called from several threads.

    All raise `StorageError` with one line, after retrying what may pass.
    """

    def __init__(self, location: Location) -> None:
        self.location = location

    def uri_of(self, key: str) -> str:
        """The URI of the object `key`."""
        return f"{self.location.uri}/{key}" if key else self.location.uri

    def at(self, prefix: str) -> "Store":
        """This store at another prefix of its bucket."""
        other = copy.copy(self)
        other.location = replace(self.location, prefix=prefix)
        return other

    @abstractmethod
    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """The objects below the location, in the order of their keys; markers of directories are left out.

        Args:
            prefix: what their keys begin with.
        """

    @abstractmethod
    def folders(self) -> list[str]:
        """The names directly below the location that have objects below them."""

    @abstractmethod
    def stat(self, key: str) -> Entry | None:
        """The object `key` with all that the store knows of it, None when there is none."""

    @abstractmethod
    def read_range(self, entry: Entry, start: int, length: int) -> bytes:
        """Bytes of an object.

        Args:
            entry: the object, as `entries` or `stat` gave it.
            start: the first byte.
            length: how many; all of them must be there.

        Raises:
            Changed: the object was replaced since.
        """

    @abstractmethod
    def read_whole(self, entry: Entry) -> tuple[bytes, Entry]:
        """A small object at once, and it with all that the store knows of it; see `read_range`."""

    @abstractmethod
    def write(self, key: str, content: BinaryIO, like: Entry, condition: Condition | None = None) -> Entry:
        """Make `content` the object `key`, whole or not at all.

        Args:
            key: where to.
            content: the bytes from its position on.
            like: what is known of them: the size, and what else is to be noted or checked: sha256, origin, modified.
            condition: what must hold.

        Returns:
            The new object; its sha256 is that of the bytes that were read.

        Raises:
            Damaged: the bytes do not have the sha256 of `like`.
            Changed: the condition does not hold.
        """

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are gone already are no error."""

    def exists(self, key: str = "") -> bool:
        """Whether there is an object `key`, or any object below it."""
        if self.stat(key):
            return True
        return next(self.entries(f"{key}/" if key else ""), None) is not None

    def require(self, key: str) -> Entry:
        """The object `key`.

        Raises:
            NotFound: there is none.
        """
        entry = self.stat(key)
        if entry is None:
            raise NotFound(f"there is no object {self.uri_of(key)}; check the name")
        return entry

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes of an object, or `length` of them from `start` on."""
        entry = self.require(key)
        rest = max(0, entry.size - start)
        return self.read_range(entry, start, rest if length is None else min(length, rest))

    def open(self, key: str) -> BinaryIO:
        """The content as a seekable stream of which only a few ranges are held in memory."""
        return self.open_entry(self.require(key))

    def open_entry(self, entry: Entry) -> BinaryIO:
        """Like `open`, for an object that was listed."""
        return io.BufferedReader(self.stream(entry), buffer_size=256 << 10)

    def stream(self, entry: Entry) -> io.RawIOBase:
        """Like `open_entry` without a buffer, for who reads on in large pieces."""
        from kfp_hybrid.storage.streams import RangeStream

        return RangeStream(self, entry)

    def write_bytes(self, key: str, data: bytes, condition: Condition | None = None) -> Entry:
        """Make `data` the object `key`."""
        return self.write(key, io.BytesIO(data), Entry(key, len(data)), condition)

    def delete_tree(self, prefix: str = "") -> int:
        """Delete all objects below the location whose keys begin with `prefix`, and say how many."""
        keys = [entry.key for entry in self.entries(prefix)]
        self.delete(keys)
        return len(keys)


def metadata_of(like: Entry) -> dict[str, str]:
    """What is noted with an object in a store that has room for notes."""
    return {name: value for name, value in (("sha256", like.sha256), ("origin", like.origin)) if value}


def noted(metadata: Mapping[str, str] | None, name: str) -> str:
    """What `metadata_of` noted under `name`; a value that cannot be one of ours counts as missing."""
    value = (metadata or {}).get(name) or ""
    is_digest = len(value) == 64 and set(value) <= set("0123456789abcdef")
    return value if name != "sha256" or is_digest else ""
