"""Examples as CSV files."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from kfp_hybrid.data.examples import Examples
from kfp_hybrid.publishing import publishing
from kfp_hybrid.step import StepError


@dataclass(frozen=True)
class Options:
    """What to write; see the component."""

    columns: Sequence[str] = ()
    splits: Sequence[str] = ()
    split_column: str = ""
    split_values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rows_per_file: int = 1_000_000


class Export(NamedTuple):
    """What was written; the fields are the component's outputs."""

    uris: list[str]
    source: str
    rows: int


def write_csv(examples: str, path: str, uri: str, options: Options) -> Export:
    """Write examples as CSV files; the folder appears when all of them are there.

    Args:
        examples: The examples artifact.
        path: Where the folder of the files belongs.
        uri: Its address.
        options: What to write.

    Raises:
        StepError: an option is wrong, or the examples cannot be read or the files not written.
    """
    read = Examples.open(examples)
    splits = [*(options.splits or options.split_values or read.splits)]
    _check(options, read, splits)
    with publishing(Path(path)) as folder:
        try:
            folder.mkdir()
            files = _Files(folder, options.rows_per_file)
            for batch in itertools.chain.from_iterable(_batches(read, split, options) for split in splits):
                files.write(batch)
            files.close()
        except OSError as error:
            raise StepError(
                f"cannot write {path}: {error.strerror or error}; check its permissions and space"
            ) from None
        if not files.rows:
            raise StepError(f"the splits {', '.join(splits)} of {examples} have no rows; there is nothing to export")
    uris = [f"{uri.rstrip('/')}/{name}" for name in files.names]
    return Export(uris, json.dumps(uris), files.rows)


def _check(options: Options, examples: Examples, splits: Sequence[str]) -> None:
    if options.rows_per_file < 1:
        raise StepError(f"rows_per_file is {options.rows_per_file}; give 1 or more")
    if options.split_column in (options.columns or examples.columns):
        raise StepError(f"split_column {options.split_column!r} is the name of a column; give another name")
    for split in splits:
        examples.split(split)
        if not options.split_values.get(split, [split]):
            raise StepError(f"split_values has no value for split {split!r}; give a list such as ['TRAIN']")


def _batches(examples: Examples, split: str, options: Options) -> Iterator[pa.RecordBatch]:
    """The rows of a split as they are written."""
    values = pa.array([str(value) for value in options.split_values.get(split, [split])])
    dealt = 0
    for batch in examples.batches(split, options.columns or None):
        columns = {name: _plain(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
        if options.split_column:
            turns = np.arange(dealt, dealt + batch.num_rows) % len(values)
            columns[options.split_column] = values.take(pa.array(turns))
            dealt += batch.num_rows
        yield pa.RecordBatch.from_pydict(columns)


def _plain(column: pa.Array) -> pa.Array:
    """A column of which every value can be written as text: what is no finite number is missing."""
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_finite(column), column, None)
    return column


class _Files:
    """The files, one after the other."""

    def __init__(self, folder: Path, rows_per_file: int) -> None:
        self.names: list[str] = []
        self.rows = 0
        self._folder = folder
        self._rows_per_file = rows_per_file
        self._writer: csv.CSVWriter | None = None
        self._free = 0

    def write(self, batch: pa.RecordBatch) -> None:
        while batch.num_rows:
            if self._writer is None or not self._free:
                self._writer = self._next(batch.schema)
            part = batch.slice(0, self._free)
            self._writer.write(part)
            self.rows += part.num_rows
            self._free -= part.num_rows
            batch = batch.slice(part.num_rows)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _next(self, schema: pa.Schema) -> csv.CSVWriter:
        self.close()
        self.names.append(f"part-{len(self.names):05d}.csv")
        self._free = self._rows_per_file
        return csv.CSVWriter(self._folder / self.names[-1], schema)
