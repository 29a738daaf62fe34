r"""Cuts the bytes of a CSV file into records and knows the line on which each begins.

Rules (RFC 4180, as lenient as Arrow's and TFDV's parsers where they agree):

* Lines end with \n, \r\n or \r. Blank lines are no records.
* A field that begins with a quote goes on to the closing quote, over line ends and delimiters; a doubled quote
  stands for one. Text after the closing quote belongs to the field. A quote elsewhere is a plain character.
* A record over several lines must be flawless: every closing quote stands at the end of its field, and the number
  of fields is right. Otherwise its first line is broken, and reading goes on with the next line. So a quote that
  was forgotten costs its own line and does not swallow the lines after it.

Most blocks are handled with a few vector operations; Python walks only over lines with unusual quotes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

BLOCK_BYTES = 4 << 20
MAX_RECORD_BYTES = 64 << 20
NEWLINE, RETURN, QUOTE, COMMA = b'\n\r",'
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# One field: quoted with whatever follows the closing quote, or plain. No match: the closing quote is missing.
_FIELD = re.compile(rb'("[^"]*(?:""[^"]*)*"(?!"))[^,\r\n]*|(?!")[^,\r\n]*')

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Records:
    """Where the records of a block are.

    Attributes:
        starts: position of the first byte of each record.
        ends: position after its last byte, without the line end.
        lines: line on which it begins; 0 is the first line of the block.
        broken: index of a record -> why it cannot be read.
        fields: index of a record -> number of its fields, where quotes stand in unusual places.
    """

    starts: Positions
    ends: Positions
    lines: Positions
    broken: dict[int, str] = field(default_factory=dict)
    fields: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """Whole records.

    Attributes:
        data: the records, every one with its line end.
        first_line: line of the file on which the block begins, counted from 1.
        records: the records when a quote makes a line end ambiguous; None when every line is a record.
    """

    data: bytes
    first_line: int
    records: Records | None = None

    def locate(self) -> Records:
        """Where the records are."""
        return self.records or _lines_as_records(self.data)


class RecordStream:
    """Reads a CSV file in blocks of whole records; memory is bounded by the block and the longest record.

    Args:
        stream: the decompressed bytes of the file.
        block_bytes: size of the blocks; the records found do not depend on it.
    """

    def __init__(self, stream: BinaryIO, block_bytes: int = BLOCK_BYTES):
        self._stream = stream
        self._block_bytes = block_bytes
        self._data = b""
        self._line = 1
        self._at_end = False

    def header(self) -> list[bytes] | None:
        """Fields of the first record, None when the file holds no record; call it first and once.

        Raises:
            ValueError: the first record cannot be read.
        """
        while len(self._data) < len(BYTE_ORDER_MARK) and not self._at_end:
            self._fill()
        self._data = self._data.removeprefix(BYTE_ORDER_MARK)
        records, taken = _locate(self._data, None, self._at_end)
        while not len(records.starts) and not self._at_end and len(self._data) < MAX_RECORD_BYTES:
            self._fill()
            records, taken = _locate(self._data, None, self._at_end)
        if not len(records.starts):
            return None
        if 0 in records.broken:
            raise ValueError(records.broken[0])
        start, end = int(records.starts[0]), int(records.ends[0])
        following = int(records.starts[1]) if len(records.starts) > 1 else taken
        self._line += _count_lines(self._data[:following])
        fields = split_fields(self._data[start:end])
        self._data = self._data[following:]
        return fields

    def blocks(self, fields: int) -> Iterator[Block]:
        """The records after the header.

        Args:
            fields: number of fields of a record.
        """
        while self._data or not self._at_end:
            self._fill()
            records, taken = self._cut(fields)
            if taken:
                data, self._data = self._data[:taken], self._data[taken:]
                yield Block(data, self._line, records)
                self._line += _count_lines(data)
            elif not self._at_end and len(self._data) >= MAX_RECORD_BYTES:
                yield self._skip_endless_line()

    def _cut(self, fields: int) -> tuple[Records | None, int]:
        data = self._data
        if QUOTE not in data and len(data) < MAX_RECORD_BYTES:
            taken = data.rfind(b"\n") + 1
            if taken or RETURN not in data:
                return None, taken
        return _locate(data, fields, self._at_end)

    def _fill(self) -> None:
        """Read on; twice as much as before when not one record was complete, so that long ones cost linear time."""
        if self._at_end:
            return
        more = self._stream.read(max(self._block_bytes, len(self._data)))
        self._at_end = not more
        self._data += more
        if self._at_end and self._data and not self._data.endswith((b"\n", b"\r")):
            self._data += b"\n"

    def _skip_endless_line(self) -> Block:
        """A line that does not end within the limit becomes one broken record; the rest of it is passed over."""
        beginning = self._data
        while (end := _first_line_end(self._data, self._at_end)) is None:
            self._data = self._data[-1:]  # it may be the first half of \r\n
            self._fill()
        self._data = self._data[end:]
        block = _broken_block(beginning + b"\n", self._line)
        self._line += 1
        return block


def _broken_block(data: bytes, line: int) -> Block:
    reason = f"the line is longer than {MAX_RECORD_BYTES >> 20} MiB"
    zero = np.zeros(1, np.int64)
    return Block(data, line, Records(zero, np.array([len(data) - 1]), zero, {0: reason}))


def _first_line_end(data: bytes, at_end: bool) -> int | None:
    """Position after the first line end; None when there is none yet (a final \\r may be half of \\r\\n)."""
    found = re.search(rb"\r\n|\n|\r(?!\Z)", data)
    if found:
        return found.end()
    return len(data) if at_end else None


def _count_lines(data: bytes) -> int:
    lines = data.count(b"\n")
    return lines + data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else lines


def split_fields(record: bytes) -> list[bytes]:
    """The fields of one record, quotes removed.

    Args:
        record: the bytes of the record without its line end.
    """
    fields: list[bytes] = []
    position = 0
    while True:
        found = _FIELD.match(record, position)
        if found is None:
            return [*fields, record[position:]]
        quoted = found[1] or b""
        rest = found[0][len(quoted) :]
        fields.append(quoted[1:-1].replace(b'""', b'"') + rest)
        if found.end() == len(record):
            return fields
        position = found.end() + 1


@dataclass(frozen=True)
class _Lines:
    """Lines of a block: first byte, byte after the last one, byte after the line end."""

    starts: Positions
    ends: Positions
    nexts: Positions


def _find_lines(data: bytes, at_end: bool = True) -> _Lines:
    """All complete lines; a final \\r is one only at the end of the file, for it may be half of \\r\\n."""
    values = np.frombuffer(data, np.uint8)
    newline = values == NEWLINE
    if RETURN not in data:
        ends = np.flatnonzero(newline)
        return _Lines(np.concatenate([[0], ends[:-1] + 1])[: len(ends)], ends, ends + 1)
    is_return = values == RETURN
    followed = np.zeros_like(newline)
    followed[:-1] = is_return[:-1] & newline[1:]
    nexts = np.flatnonzero(newline | (is_return & ~followed)) + 1
    if not at_end and data.endswith(b"\r"):
        nexts = nexts[:-1]
    two_bytes = (nexts >= 2) & newline[nexts - 1] & is_return[nexts - 2]
    return _Lines(np.concatenate([[0], nexts[:-1]])[: len(nexts)], nexts - 1 - two_bytes, nexts)


def _lines_as_records(data: bytes) -> Records:
    lines = _find_lines(data)
    numbers = np.flatnonzero(lines.ends > lines.starts)
    return Records(lines.starts[numbers], lines.ends[numbers], numbers)


def _locate(data: bytes, fields: int | None, at_end: bool) -> tuple[Records, int]:
    """The complete records of `data` and the number of bytes that they and blank lines take."""
    lines = _find_lines(data, at_end)
    begins = np.ones(len(lines.starts), bool)
    broken: dict[int, str] = {}
    counts: dict[int, int] = {}
    complete = len(lines.starts)
    if len(data) >= MAX_RECORD_BYTES:
        for line in np.flatnonzero(lines.ends - lines.starts >= MAX_RECORD_BYTES):
            broken[int(line)] = f"the line is longer than {MAX_RECORD_BYTES >> 20} MiB"
    following = 0
    for line in _lines_with_unusual_quotes(data, lines).tolist():
        if line < following:
            continue
        walk = _walk(data, int(lines.starts[line]), fields)
        last = line
        if walk.end is None:
            if not at_end and len(data) - int(lines.starts[line]) < MAX_RECORD_BYTES:
                complete = line
                break
            broken.setdefault(line, "a quoted field is not closed")
        else:
            last = int(np.searchsorted(lines.ends, walk.end))
            if last == len(lines.ends):  # it ends with a \r that may be half of \r\n
                complete = line
                break
            if last > line and not walk.flawless:
                last = line
                broken.setdefault(line, "a quoted field is not closed on this line, nor well on the lines after it")
            else:
                counts[line] = walk.fields
        begins[line + 1 : last + 1] = False
        following = last + 1
    return _assemble(lines, begins, complete, broken, counts)


@dataclass(frozen=True)
class _Walk:
    """One record read field by field: where it ends (None: not within the data), and whether it is flawless."""

    end: int | None
    fields: int
    flawless: bool


def _walk(data: bytes, start: int, fields: int | None) -> _Walk:
    count = 0
    tidy = True
    position = start
    limit = start + MAX_RECORD_BYTES
    while found := _FIELD.match(data, position, limit):
        count += 1
        end = found.end()
        tidy = tidy and (found[1] is None or len(found[1]) == end - position)
        if end >= min(len(data), limit):
            break
        if data[end] != COMMA:
            return _Walk(end, count, tidy and fields in (None, count))
        position = end + 1
    return _Walk(None, count, False)


def _lines_with_unusual_quotes(data: bytes, lines: _Lines) -> Positions:
    """Lines whose quotes do not open and close whole fields within the line."""
    values = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(values[: lines.nexts[-1] if len(lines.nexts) else 0] == QUOTE)
    if not len(quotes):
        return quotes
    line = np.searchsorted(lines.nexts, quotes, side="right")
    first = np.searchsorted(quotes, lines.starts)
    opening = (np.arange(len(quotes)) - first[line]) % 2 == 0
    before = np.where(quotes == lines.starts[line], COMMA, values[quotes - 1])
    after = np.where(quotes + 1 == lines.ends[line], COMMA, values[quotes + 1])
    neighbour = np.where(opening, before, after)
    unusual = line[(neighbour != COMMA) & (neighbour != QUOTE)]
    count = np.diff(np.append(first, len(quotes)))
    return np.union1d(unusual, np.flatnonzero(count % 2))


def _assemble(
    lines: _Lines, begins: npt.NDArray[np.bool_], complete: int, broken: dict[int, str], counts: dict[int, int]
) -> tuple[Records, int]:
    """Records from lines: `begins` says which of the first `complete` lines begin one."""
    first = np.flatnonzero(begins[:complete])
    last = np.append(first[1:], complete)[: len(first)] - 1
    starts, ends = lines.starts[first], lines.ends[last]
    filled = ends > starts
    starts, ends, first = starts[filled], ends[filled], first[filled]
    records = Records(
        starts,
        ends,
        first,
        {int(np.searchsorted(first, line)): reason for line, reason in broken.items() if line < complete},
        {int(np.searchsorted(first, line)): count for line, count in counts.items()},
    )
    return records, int(lines.nexts[complete - 1]) if complete else 0


def count_fields(block: Block, records: Records) -> Positions:
    """Number of fields of each record."""
    values = np.frombuffer(block.data, np.uint8)
    commas = np.flatnonzero(values == COMMA)
    quotes = np.flatnonzero(values == QUOTE)
    if len(quotes):
        record = np.searchsorted(records.starts, commas, side="right") - 1
        opened = np.searchsorted(quotes, commas) - np.searchsorted(quotes, records.starts)[record]
        commas = commas[opened % 2 == 0]
    counts = np.searchsorted(commas, records.ends) - np.searchsorted(commas, records.starts) + 1
    for index, count in records.fields.items():
        counts[index] = count
    return counts
