"""Streams CSV files as typed Arrow record batches.

The first record of every file names the columns; all files have the same ones. Fields are separated by commas
and quoted as `kfp_hybrid.data.records` says. Types are those of TFDV's CSV decoder, decided over all files (see
`kfp_hybrid.data.column_types`); an empty field is missing, quoted or not.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from kfp_hybrid.data.column_types import INT64_LIMIT, ORDER, narrowest, parse
from kfp_hybrid.data.examples import TYPES, arrow_schema
from kfp_hybrid.data.reading import BadRow, Chunk, TypesWidened, final_types, require_same_columns, widen
from kfp_hybrid.data.records import BLOCK_BYTES, Block, Records, RecordStream, count_fields
from kfp_hybrid.data.sources import Source, resolve
from kfp_hybrid.step import StepError

T = TypeVar("T")
R = TypeVar("R")

DECODERS = 2
HEADER_BYTES = 64 << 10
GUESS_BYTES = 256 << 10
ROW_TEXT_BYTES = 1 << 20


def read_csv(
    paths: str | Path | Sequence[str | Path], on_bad_row: Callable[[BadRow], None] | None = None
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Read CSV files, all of them with the types that hold for the whole input.

    The input is read twice: once for the types, once for the rows. `with_types(CsvReader(...), work)` reads it
    once when the first rows have the types of all.

    Args:
        paths: a file, directory or glob, or several.
        on_bad_row: called with every row that cannot be read.

    Returns:
        The schema, and the rows in their order.

    Raises:
        StepError: no such file, no header, different headers; or, when iterating without `on_bad_row`, a row
            that cannot be read.
    """
    several = [paths] if isinstance(paths, (str, Path)) else paths
    reader = CsvReader([source for path in several for source in resolve(str(path))])
    columns = final_types(reader)
    return arrow_schema(columns), _good_rows(reader.chunks(columns), on_bad_row)


def _good_rows(chunks: Iterable[Chunk], on_bad_row: Callable[[BadRow], None] | None) -> Iterator[pa.RecordBatch]:
    for chunk in chunks:
        for bad in chunk.bad:
            if on_bad_row is None:
                raise StepError(f"{bad.source} line {bad.line}: {bad.reason}: {bad.row[:200]!r}")
            on_bad_row(bad)
        yield chunk.batch


class CsvReader:
    """A `Reader` of CSV files.

    Args:
        sources: the files.
        block_bytes: how much is decoded at once; the rows do not depend on it.

    Raises:
        StepError: a file cannot be opened, or has no usable header, or another one than the first file.
    """

    def __init__(self, sources: Sequence[Source], block_bytes: int = BLOCK_BYTES):
        self._sources = sources
        self._block_bytes = block_bytes
        headers = {source.name: _header(source) for source in sources}
        require_same_columns(headers)
        self._names = headers[sources[0].name]

    def guess(self) -> dict[str, str]:
        """Column name -> type in the first rows."""
        none = dict.fromkeys(self._names, "null")
        with contextlib.closing(self._blocks(GUESS_BYTES)) as blocks:
            for source, block in blocks:
                return widen(none, _decode(source, block, none, ()).types)
        return none

    def chunks(self, columns: Mapping[str, str], keys: Collection[str] = ()) -> Iterator[Chunk]:
        """Stream the rows; see `Reader.chunks`."""
        found = dict(columns)

        def decode(item: tuple[Source, Block]) -> _Decoded:
            return _decode(*item, found, keys)

        with contextlib.closing(_map_ahead(decode, self._blocks(self._block_bytes))) as decoded:
            for chunk, types in decoded:
                found = widen(found, types)
                if found == columns:
                    assert chunk is not None
                    yield chunk
        if found != columns:
            raise TypesWidened(found)

    def _blocks(self, block_bytes: int) -> Generator[tuple[Source, Block], None, None]:
        for source in self._sources:
            with source.open() as stream:
                records = RecordStream(stream, block_bytes)
                records.header()
                for block in records.blocks(len(self._names)):
                    yield source, block


def _header(source: Source) -> list[str]:
    with source.open() as stream:
        try:
            fields = RecordStream(stream, HEADER_BYTES).header()
            names = [field.decode() for field in fields or []]
        except UnicodeDecodeError as error:
            raise StepError(f"{source.name} is not UTF-8 text: see its first line; save it as UTF-8 CSV") from error
        except ValueError as error:
            raise StepError(f"the header of {source.name} cannot be read: {error}; mend it") from error
    if not names:
        raise StepError(f"{source.name} is empty: a CSV file begins with a line that names the columns")
    for position, name in enumerate(names, 1):
        if not name.strip():
            raise StepError(f"column {position} in the header of {source.name} has no name; give it one")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise StepError(f"the header of {source.name} names a column twice: {', '.join(twice)}; rename one of them")
    if len(names) == 1 and (other := {";", "\t", "|"} & set(names[0])):
        raise StepError(f"{source.name} separates its fields by {other.pop()!r}; only commas are read: convert it")
    return names


def _map_ahead(function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """`map` in threads: results in order, only a few items ahead so that memory stays bounded."""
    executor = ThreadPoolExecutor(DECODERS, "decode")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) > DECODERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class _Decoded(NamedTuple):
    """A chunk (None when its rows do not fit the types) and the types that its rows need."""

    chunk: Chunk | None
    types: Mapping[str, str]


def _decode(source: Source, block: Block, columns: Mapping[str, str], keys: Collection[str]) -> _Decoded:
    """Turn a block into rows.

    Nearly always Arrow reads it as it is. Otherwise broken rows are taken out, then the types are looked at.
    """
    bad: list[BadRow] = []
    data = block.data
    batch = _read_typed(data, columns) if block.records is None else None
    if batch is None:
        data, bad = _set_bad_rows_aside(source, block, len(columns))
        batch = _read_typed(data, columns)
    if batch is None:
        texts = _read_texts(data, columns, columns)
        needed = {name: narrowest(column) for name, column in texts.items()}
        if any(ORDER.index(type_) > ORDER.index(columns[name]) for name, type_ in needed.items()):
            return _Decoded(None, needed)
        arrays = [parse(texts[name], type_) for name, type_ in columns.items()]
        batch = pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(columns))
    return _Decoded(Chunk(batch, _read_texts(data, columns, keys), bad), columns)


def _read_typed(data: bytes, columns: Mapping[str, str]) -> pa.RecordBatch | None:
    """The rows when Arrow reads them without complaint and just as Python would, else None."""
    try:
        batch = _read(data, list(columns), {name: TYPES[type_] for name, type_ in columns.items()})
    except pa.ArrowInvalid:
        return None
    if "int64" in columns.values() and (b"0x" in data or b"0X" in data):
        return None  # Arrow takes hexadecimal numbers for integers
    for name, type_ in columns.items():
        if type_ == "double" and not _are_plain(batch.column(name)):
            return None
    return batch


def _are_plain(numbers: pa.Array) -> bool:
    """Whether no number comes from a text that Arrow and Python read differently: nan(...), an integer of > 64 bits."""
    if not pc.all(pc.is_finite(numbers), min_count=0).as_py():
        return False
    extremes = pc.min_max(numbers).as_py()
    return extremes["min"] is None or -INT64_LIMIT < extremes["min"] <= extremes["max"] < INT64_LIMIT


def _read_texts(data: bytes, columns: Mapping[str, str], wanted: Collection[str]) -> dict[str, pa.Array]:
    if not wanted:
        return {}
    batch = _read(data, list(columns), dict.fromkeys(columns, pa.string()), list(wanted))
    return {name: batch.column(name) for name in wanted}


def _read(
    data: bytes, names: list[str], types: Mapping[str, pa.DataType], wanted: list[str] | None = None
) -> pa.RecordBatch:
    schema = pa.schema([(name, types[name]) for name in wanted or names])
    if not data:
        return pa.RecordBatch.from_arrays([pa.array([], type_) for type_ in schema.types], schema=schema)
    table = pyarrow.csv.read_csv(
        pa.py_buffer(data),
        pyarrow.csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
        pyarrow.csv.ParseOptions(newlines_in_values=True),
        pyarrow.csv.ConvertOptions(
            column_types=schema, include_columns=schema.names, null_values=[""], strings_can_be_null=True
        ),
    )
    return _only_batch(table, schema)


def _only_batch(table: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_arrays([pa.array([], t) for t in schema.types], schema=schema)


def _set_bad_rows_aside(source: Source, block: Block, fields: int) -> tuple[bytes, list[BadRow]]:
    """The bytes of the rows that are whole, and the others."""
    records = block.locate()
    broken = dict(records.broken)
    counts = count_fields(block, records)
    for index in np.flatnonzero(counts != fields).tolist():
        broken.setdefault(index, f"expected {fields} fields, found {counts[index]}")
    for index in _not_unicode(block.data, records):
        broken.setdefault(index, "not valid UTF-8")
    bad = [
        BadRow(source.name, block.first_line + int(records.lines[index]), broken[index], _text(block, records, index))
        for index in sorted(broken)
    ]
    return _without(block.data, records, sorted(broken)), bad


def _not_unicode(data: bytes, records: Records) -> Iterator[int]:
    """Indices of the records that are not valid UTF-8."""
    position = 0
    while True:
        try:
            data[position:].decode()
        except UnicodeDecodeError as error:
            index = int(np.searchsorted(records.ends, position + error.start, side="right"))
            yield index
            position = int(records.ends[index])
        else:
            return


def _without(data: bytes, records: Records, indices: list[int]) -> bytes:
    if not indices:
        return data
    keep = np.ones(len(data), bool)
    for index in indices:
        keep[records.starts[index] : records.ends[index]] = False
    return np.frombuffer(data, np.uint8)[keep].tobytes()


def _text(block: Block, records: Records, index: int) -> str:
    start, end = int(records.starts[index]), int(records.ends[index])
    text = block.data[start : min(end, start + ROW_TEXT_BYTES)].decode(errors="backslashreplace")
    return text if end - start <= ROW_TEXT_BYTES else f"{text}... ({end - start} bytes)"
