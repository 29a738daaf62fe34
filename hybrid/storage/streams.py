"""Streams over objects: ranges that are fetched ahead, and content that is hashed on its way."""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO

from kfp_hybrid.storage.errors import Damaged
from kfp_hybrid.storage.interface import RANGE_BYTES, Entry

if TYPE_CHECKING:
    from kfp_hybrid.storage.interface import Store

AHEAD = 2


class RangeStream(io.RawIOBase):
    """An object as a seekable stream; read in order, the next ranges are fetched meanwhile.

    Args:
        store: where the object is.
        entry: the object; every range is of this very version.
    """

    def __init__(self, store: "Store", entry: Entry) -> None:
        self._store = store
        self._entry = entry
        self._position = 0
        self._range_start = 0
        self._range = b""
        self._sequential = 0
        self._waiting: deque[tuple[int, Future[bytes]]] = deque()
        self._executor: ThreadPoolExecutor | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._entry.size}[whence]
        if base + offset < 0:
            raise ValueError("negative position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read what fits into `buffer`, at most to the end of a range."""
        if self._position >= self._entry.size:
            return 0
        offset = self._locate(len(buffer))
        data = memoryview(self._range)[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Read on; less than `size` at the end only. A whole range is not copied."""
        end = self._entry.size if size < 0 else min(self._entry.size, self._position + size)
        read = []
        while self._position < end:
            offset = self._locate(end - self._position)
            read.append(self._range[offset : offset + end - self._position])
            self._position += len(read[-1])
        return read[0] if len(read) == 1 else b"".join(read)

    def close(self) -> None:
        """Stop fetching."""
        if self._executor:
            self._executor.shutdown(wait=False, cancel_futures=True)
        self._waiting.clear()
        self._range = b""
        super().close()

    def _locate(self, wanted: int) -> int:
        """Where the position is in the range, which is fetched if need be."""
        offset = self._position - self._range_start
        if 0 <= offset < len(self._range):
            return offset
        self._fetch(wanted)
        return 0

    def _fetch(self, wanted: int) -> None:
        """Get the range at the position; a first or a random read gets little, reading on gets whole ranges."""
        reads_on = self._position == self._range_start + len(self._range)
        self._sequential = self._sequential + 1 if reads_on else 0
        while self._waiting and self._waiting[0][0] != self._position:
            self._waiting.popleft()[1].cancel()
        if self._waiting:
            self._range = self._waiting.popleft()[1].result()
        else:
            length = RANGE_BYTES if self._sequential else min(RANGE_BYTES, max(wanted, 256 << 10))
            self._range = self._store.read_range(self._entry, self._position, self._limit(self._position, length))
        self._range_start = self._position
        if self._sequential:
            self._fetch_ahead()

    def _fetch_ahead(self) -> None:
        last = self._waiting[-1] if self._waiting else None
        start = last[0] + RANGE_BYTES if last else self._range_start + len(self._range)
        while len(self._waiting) < AHEAD and start < self._entry.size:
            self._executor = self._executor or ThreadPoolExecutor(AHEAD, "fetch")
            length = self._limit(start, RANGE_BYTES)
            self._waiting.append((start, self._executor.submit(self._store.read_range, self._entry, start, length)))
            start += RANGE_BYTES

    def _limit(self, start: int, length: int) -> int:
        return min(length, self._entry.size - start)


class _Around(io.RawIOBase):
    """A stream around another one, at the same position."""

    def __init__(self, content: BinaryIO | io.RawIOBase) -> None:
        self._content = content

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """As the content is."""
        return self._content.seekable()

    def tell(self) -> int:
        """The position."""
        return self._content.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; what is read again then is neither counted nor hashed again."""
        return self._content.seek(offset, whence)


class Counted(_Around):
    """Tells how far a stream was read; what is read again counts once.

    Args:
        content: the stream, at its beginning.
        progress: told how many more bytes were read.
        unchanged: for a content that was hashed before, so that it need not be hashed again: whether it is still what
            it was then.
    """

    def __init__(
        self, content: BinaryIO, progress: Callable[[int], None], unchanged: Callable[[], bool] | None = None
    ) -> None:
        super().__init__(content)
        self._progress = progress
        self._counted = 0
        self.unchanged = unchanged

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        data = self._content.read(size)
        fresh = self._content.tell() - self._counted
        if fresh > 0:
            self._counted += fresh
            self._progress(fresh)
        return data


class HashingStream(_Around):
    """Hashes a content while it is read from its beginning; refuses to end when it is not what it should be.

    Args:
        content: the stream.
        like: its size, and its sha256 when known.
        name: what to call it in errors.
    """

    def __init__(self, content: BinaryIO | io.RawIOBase, like: Entry, name: str) -> None:
        super().__init__(content)
        self._like = like
        self._name = name
        self._unchanged = content.unchanged if isinstance(content, Counted) else None
        self._hash = hashlib.sha256()
        self._hashed = 0

    @property
    def sha256(self) -> str:
        """Of what was read so far."""
        return self._like.sha256 if self._unchanged else self._hash.hexdigest()

    def read(self, size: int = -1) -> bytes:
        """Read on.

        Raises:
            Damaged: at the end, when size or sha256 are wrong.
        """
        start = self._content.tell() if self._content.seekable() else self._hashed
        data = self._content.read(size)
        fresh = memoryview(data)[max(0, self._hashed - start) :]
        if not self._unchanged:
            self._hash.update(fresh)
        self._hashed += len(fresh)
        if self._hashed >= self._like.size or size < 0 or len(data) < size:
            self.check()
        return data

    def check(self) -> None:
        """Compare what was read, all of it, with what it should be.

        Raises:
            Damaged: it differs.
        """
        if self._hashed != self._like.size:
            raise Damaged(f"{self._name} has {self._hashed} bytes instead of {self._like.size}; copy it again")
        if self._unchanged and not self._unchanged():
            raise Damaged(f"what was to become {self._name} changed while it was read; copy it again")
        if self._like.sha256 and self.sha256 != self._like.sha256:
            raise Damaged(f"{self._name} does not have the sha256 that is noted with it; copy it again from its origin")


def pieces(content: BinaryIO, size: int = RANGE_BYTES) -> Iterator[bytes]:
    """The content in pieces."""
    while piece := content.read(size):
        yield piece
