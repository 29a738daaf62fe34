"""Copies one object from a store to another, and tells whether that is needed."""

import functools
import io
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

from kfp_hybrid.storage.errors import Changed, Damaged
from kfp_hybrid.storage.interface import Entry, Store
from kfp_hybrid.storage.local import LocalStore
from kfp_hybrid.storage.streams import Counted, HashingStream, pieces

SMALL_BYTES = 1 << 20  # read and written in one piece
ATTEMPTS = 3
_MD5 = re.compile(r"[0-9a-f]{32}")

log = logging.getLogger(__name__)


def copy_object(
    source: Store, entry: Entry, target: Store, key: str, progress: Callable[[int], None] = lambda _: None
) -> Entry:
    """Copy an object through a stream and check its sha256 on the way.

    Args:
        source: the store it is in.
        entry: the object, as listed.
        target: the store it goes to.
        key: its name there.
        progress: told how many bytes were copied; negative when some have to be copied again.

    Returns:
        The new object.

    Raises:
        Damaged: the bytes are not those that were written to the source, again and again.
        Changed: the object was replaced meanwhile.
    """
    for attempt in range(1, ATTEMPTS + 1):
        counts: list[int] = []

        def count(size: int, counts: list[int] = counts) -> None:
            counts.append(size)
            progress(size)

        try:
            return _copy(source, entry, target, key, count)
        except Damaged as error:
            progress(-sum(counts))
            if attempt == ATTEMPTS:
                raise
            log.warning("%s; attempt %d follows", error, attempt + 1)
    raise AssertionError


def is_same(source: Store, entry: Entry, target: Store, other: Entry) -> bool:
    """Whether the target has the content already.

    By MD5 or sha256, whichever both sides know without being read; files are read. Where no digest is known at both
    ends, by the note of what an object was copied from, or, for a file, by the time that it was given then.

    Args:
        source: the store of `entry`.
        entry: what is to be copied.
        target: the store of `other`.
        other: what is there.
    """
    if entry.size != other.size:
        return False
    if not entry.size or other.origin == origin_of(source, entry):
        return True
    if isinstance(source, LocalStore) and isinstance(target, LocalStore):
        return source.digest(entry.key, "sha256") == target.digest(other.key, "sha256")
    if _digest(source, entry, "md5", other) == _digest(target, other, "md5", entry) != "":
        return True  # a difference says little: not every ETag of that form is an MD5
    entry, other = _looked_up(source, entry), _looked_up(target, other)
    if other.origin == origin_of(source, entry):
        return True
    here, there = _digest(source, entry, "sha256", other), _digest(target, other, "sha256", entry)
    if here and there:
        return here == there
    return isinstance(target, LocalStore) and entry.modified is not None and entry.modified == other.modified


def digest(store: Store, entry: Entry) -> str:
    """The sha256 of an object, by reading all of it."""
    with store.stream(entry) as content:
        hashing = HashingStream(content, Entry(entry.key, entry.size), store.uri_of(entry.key))
        for _ in pieces(hashing):  # type: ignore[arg-type]
            pass
        hashing.check()
    return hashing.sha256


def origin_of(store: Store, entry: Entry) -> str:
    """What is noted with a copy of the object."""
    return f"{quote(store.uri_of(entry.key))}#{entry.tag}"


def _copy(source: Store, entry: Entry, target: Store, key: str, progress: Callable[[int], None]) -> Entry:
    if entry.size <= SMALL_BYTES:
        data, entry = source.read_whole(entry)
        written = target.write(key, io.BytesIO(data), _like(source, entry))
        progress(entry.size)
        return written
    unchanged = None
    if isinstance(source, LocalStore) and not isinstance(target, LocalStore):
        if not entry.sha256:  # it is noted with the object, so it must be known before the object is written
            entry = replace(source.require(entry.key), sha256=source.digest(entry.key, "sha256"))
            unchanged = functools.partial(_is_unchanged, source, entry)
    elif not entry.sha256:
        entry = _looked_up(source, entry)
    with source.stream(entry) as content:
        return target.write(key, Counted(content, progress, unchanged), _like(source, entry))  # type: ignore[arg-type]


def _is_unchanged(store: Store, entry: Entry) -> bool:
    now = store.stat(entry.key)
    return now is not None and now.tag == entry.tag


def _like(source: Store, entry: Entry) -> Entry:
    return replace(entry, origin=origin_of(source, entry))


def _looked_up(store: Store, entry: Entry) -> Entry:
    """The object with the notes that a listing does not show."""
    if entry.sha256 or isinstance(store, LocalStore):
        return entry
    found = store.stat(entry.key)
    if found is None or found.tag != entry.tag:
        raise Changed(f"{store.uri_of(entry.key)} was replaced or deleted meanwhile; run it again")
    return found


def _digest(store: Store, entry: Entry, algorithm: str, other: Entry) -> str:
    """A digest of the object; a file is read for it if there is something to compare it with."""
    known = _known(entry, algorithm)
    if not known and isinstance(store, LocalStore) and _known(other, algorithm):
        return store.digest(entry.key, algorithm)
    return known


def _known(entry: Entry, algorithm: str) -> str:
    if algorithm == "sha256":
        return entry.sha256
    return entry.md5 or (entry.tag if _MD5.fullmatch(entry.tag) else "")
