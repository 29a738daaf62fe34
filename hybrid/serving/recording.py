"""Writes a sample of the requests and their answers, as examples that statistics can be made of.

A request costs the event loop an entry in a list. A thread makes Parquet files of the entries and writes them. When it
does not keep up, or the store cannot be reached, rows are dropped and counted: what is held in memory is bounded, and
no request waits or fails.
"""

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kfp_hybrid.errors import UserError
from kfp_hybrid.serving.routing import Served, require_percent

if TYPE_CHECKING:
    from kfp_hybrid.serving.recorded import Part

HELD_PARTS = 8  # that could not be written yet
VALUE_BYTES = 64  # what a value takes in memory, beside the characters of a text

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """An answered request that is to be recorded, and when it was answered, in seconds since 1970."""

    served: Served
    time: float


class Writer(Protocol):
    """Where parts go. Called in the thread of the recorder."""

    def encode(self, entries: Sequence[Entry]) -> "tuple[list[Part], int]":
        """Parts of the entries, and the number of rows that cannot be recorded."""

    def write(self, part: "Part") -> None:
        """Make a part readable; raises `UserError` when that cannot be."""


@dataclass(frozen=True)
class Limits:
    """How much is recorded, and held.

    Attributes:
        percent: of the requests that are recorded.
        part_rows: rows of a part; so many are written at once.
        seconds: after which rows are written, even if they are fewer.
        held_rows: rows that may wait to be written.
        held_bytes: about what they may take.
    """

    percent: float = 100.0
    part_rows: int = 8192
    seconds: float = 60.0
    held_rows: int = 32768
    held_bytes: int = 64 << 20


class Recorder:
    """An observer of answered requests that records a share of them.

    Args:
        writer: where they go.
        limits: how much.

    Attributes:
        rows: rows that were "written", "dropped" because too many waited, or "failed" because they fit no column.
        failures: attempts to write that failed.
    """

    def __init__(self, writer: Writer, limits: Limits = Limits()) -> None:
        require_percent(limits.percent)
        self.rows: Counter[str] = Counter(written=0, dropped=0, failed=0)
        self.failures = 0
        self._writer = writer
        self._limits = limits
        self._share = limits.percent / 100
        self._entries: list[Entry] = []
        self._rows = self._bytes = 0  # of the entries
        self._parts: deque[Part] = deque()  # that could not be written yet
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)

    def start(self) -> None:
        """Start to write."""
        self._thread.start()

    def observe(self, served: Served) -> None:
        """Take note of an answered request, if it is one of the share. Those that a table answered are left out."""
        if random.random() >= self._share or served.rows.scores is not None:  # noqa: S311 - no secret
            return
        size = _size(served)
        with self._wake:
            if self._rows + served.rows.count > self._limits.held_rows or self._bytes + size > self._limits.held_bytes:
                self.rows["dropped"] += served.rows.count
                return
            # The scores are a part of those of a batch, which would be held with them.
            self._entries.append(Entry(served._replace(scores=served.scores.copy()), time.time()))
            self._rows += served.rows.count
            self._bytes += size
            if self._rows >= self._limits.part_rows:
                self._wake.notify()

    def close(self, seconds: float) -> None:
        """Write what waits, and end.

        Args:
            seconds: after which what is not written is given up.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(seconds)
        left = self._rows + sum(part.rows for part in self._parts)
        if left:
            log.error("%d recorded rows were lost: they could not be written within %g s", left, seconds)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closing or self._rows >= self._limits.part_rows, self._limits.seconds)
                closing = self._closing
                entries, self._entries = self._entries, []
                self._rows = self._bytes = 0
            self._guarded(lambda: self._encode(entries))  # noqa: B023 - called at once
            self._guarded(self._write)
            if closing:
                return

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do the work; an error that nobody thought of must not end the thread."""
        try:
            work()
        except Exception:
            self.failures += 1
            log.exception("requests could not be recorded")

    def _encode(self, entries: list[Entry]) -> None:
        parts, failed = self._writer.encode(entries) if entries else ([], 0)
        self.rows["failed"] += failed
        self._parts.extend(parts)
        while len(self._parts) > HELD_PARTS:
            self.rows["dropped"] += self._parts.popleft().rows

    def _write(self) -> None:
        while self._parts:
            try:
                self._writer.write(self._parts[0])
            except UserError as error:
                self.failures += 1
                log.error("requests cannot be recorded: %s; parts that wait: %d", error, len(self._parts))
                return
            self.rows["written"] += self._parts.popleft().rows


def _size(served: Served) -> int:
    """About what a request takes in memory."""
    size = 0
    for values in served.rows.columns.values():
        size += VALUE_BYTES * len(values)
        if isinstance(values[0], str) or values[0] is None:
            size += sum(len(value) for value in values if isinstance(value, str))
    return size
