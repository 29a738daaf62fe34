"""Streams TFRecord files of tf.Example as typed Arrow record batches.

The columns are the features of all records, sorted by name; a record need not have all of them. Both checksums
of every record are verified. The line of a row is the number of its record in the file, counted from 1.
"""

import base64
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import pyarrow as pa

from kfp_hybrid.data.arrow_columns import to_chunk
from kfp_hybrid.data.reading import BadRow, Chunk, TypesWidened, widen
from kfp_hybrid.data.sources import Source
from kfp_hybrid.data.tf_example import decode_examples
from kfp_hybrid.step import StepError

BATCH_RECORDS = 4096
BATCH_BYTES = 32 << 20
MAX_RECORD_BYTES = 1 << 30
ROW_TEXT_BYTES = 1 << 20
HEADER = struct.Struct("<QI")
CHECKSUM = struct.Struct("<I")

Parser = Callable[[list[bytes]], pa.RecordBatch]


class TFRecordReader:
    """A `Reader` of TFRecord files, compressed by gzip or not.

    Args:
        sources: the files.
        batch_records: how many records are decoded at once.
    """

    def __init__(self, sources: Sequence[Source], batch_records: int = BATCH_RECORDS):
        self._sources = sources
        self._batch_records = batch_records

    def guess(self) -> dict[str, str]:
        """Feature -> type in the first records.

        Raises:
            StepError: there is no record with a feature.
        """
        for source, batch in self._batches():
            found: dict[str, str] = {}
            for _, types in _decode(source, batch, {}, ()):
                found = widen(found, types)
            if found:
                return dict(sorted(found.items()))
        raise StepError(
            f"no record of {self._sources[0].name} holds a feature that can be read; "
            "check that it is a TFRecord file of tf.Example"
        )

    def chunks(self, columns: Mapping[str, str], keys: Collection[str] = ()) -> Iterator[Chunk]:
        """Stream the rows; see `Reader.chunks`."""
        found = dict(columns)
        for source, batch in self._batches():
            for chunk, types in _decode(source, batch, found, keys):
                found = widen(found, types)
                if chunk is not None and found == columns:
                    yield chunk
        if found != columns:
            raise TypesWidened(dict(sorted(found.items())))

    def _batches(self) -> Iterator[tuple[Source, "_Batch"]]:
        for source in self._sources:
            with source.open() as stream:
                for batch in _batches(source, stream, self._batch_records):
                    yield source, batch


@dataclass
class _Batch:
    """Records that follow each other, and the bad ones among them."""

    numbers: list[int] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    bytes: int = 0


def _batches(source: Source, stream: BinaryIO, batch_records: int) -> Iterator[_Batch]:
    batch = _Batch()
    for number, record in enumerate(_frames(source, stream), 1):
        if isinstance(record, BadRow):
            batch.bad.append(record)
        else:
            batch.numbers.append(number)
            batch.records.append(record)
            batch.bytes += len(record)
        if len(batch.numbers) + len(batch.bad) >= batch_records or batch.bytes >= BATCH_BYTES:
            yield batch
            batch = _Batch()
    if batch.numbers or batch.bad:
        yield batch


def _frames(source: Source, stream: BinaryIO) -> Iterator[bytes | BadRow]:
    """The records of a file: length, checksum of the length, data, checksum of the data.

    Once a length is wrong nobody knows where the next record begins: the rest of the file is one bad row that
    stands for as many records as would fit.
    """
    offset = 0
    number = 0
    while header := stream.read(HEADER.size):
        number += 1
        length, checksum = HEADER.unpack(header) if len(header) == HEADER.size else (0, None)
        if checksum != masked_crc32c(header[:8]) or length > MAX_RECORD_BYTES:
            yield _lost(source, stream, number, offset, header)
            return
        data = stream.read(length)
        trailer = stream.read(CHECKSUM.size)
        if len(trailer) < CHECKSUM.size:
            yield _bad(source, number, f"the file ends within the record that begins at byte {offset}", data)
            return
        if CHECKSUM.unpack(trailer)[0] != masked_crc32c(data):
            yield _bad(source, number, f"the checksum of the record at byte {offset} is wrong", data)
        else:
            yield data
        offset += HEADER.size + length + CHECKSUM.size


def _lost(source: Source, stream: BinaryIO, number: int, offset: int, header: bytes) -> BadRow:
    size = len(header)
    while block := stream.read(1 << 20):
        size += len(block)
    records = max(1, round(size * (number - 1) / offset)) if offset else 1
    reason = (
        f"the length of the record at byte {offset} is wrong; the {size} bytes from there to the end of the file "
        f"(about {records} records) cannot be read"
    )
    return _bad(source, number, reason, header, records)


def _bad(source: Source, number: int, reason: str, data: bytes, records: int = 1) -> BadRow:
    return BadRow(source.name, number, reason, base64.b64encode(data[:ROW_TEXT_BYTES]).decode(), records)


def masked_crc32c(data: bytes) -> int:
    """The checksum of the TFRecord format."""
    import google_crc32c

    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _decode(
    source: Source, batch: _Batch, columns: Mapping[str, str], keys: Collection[str]
) -> Iterator[tuple[Chunk | None, Mapping[str, str]]]:
    """Chunks of a batch with the types that they need; None instead of a chunk when its rows do not fit `columns`."""
    bad = list(batch.bad)
    for numbers, records, rows in _parse(_parser(), batch.numbers, batch.records):
        if rows is None:
            bad.append(_bad(source, numbers[0], "not a tf.Example", records[0]))
        else:
            yield to_chunk(source.name, numbers, rows, columns, keys)
    if bad:
        none, _ = to_chunk(source.name, [], pa.RecordBatch.from_pydict({}), columns, keys)
        assert none is not None
        none.bad.extend(bad)
        yield none, {}


def _parser() -> Parser:
    """What decodes tf.Examples: tfx_bsl where it is installed, for it is faster."""
    try:
        from tfx_bsl.coders import example_coder
    except ModuleNotFoundError:
        return decode_examples
    decode: Parser = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch
    return decode


def _parse(
    parser: Parser, numbers: list[int], records: list[bytes]
) -> Iterator[tuple[list[int], list[bytes], pa.RecordBatch | None]]:
    """Record batches of tf.Examples; None for a record that is none.

    The parser refuses a batch with a broken record or with two kinds of values in one feature; halves of it are
    tried then, down to single records.
    """
    if not records:
        return
    try:
        yield numbers, records, parser(records)
    except RuntimeError:
        if len(records) == 1:
            yield numbers, records, None
            return
        half = len(records) // 2
        yield from _parse(parser, numbers[:half], records[:half])
        yield from _parse(parser, numbers[half:], records[half:])
