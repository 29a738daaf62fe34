"""Reads rows from files, assigns them to splits, and writes the examples artifact."""

import difflib
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from kfp_hybrid.components.data_processing.ingest_examples.splitting import (
    NO_SPLIT,
    Splitter,
    as_text,
    is_among,
    make_splitter,
)
from kfp_hybrid.data.csv import CsvReader
from kfp_hybrid.data.examples import Examples, ExamplesWriter
from kfp_hybrid.data.parquet import ParquetReader
from kfp_hybrid.data.reading import BadRow, Chunk, Reader, with_types
from kfp_hybrid.data.sources import Source, choose_format, resolve
from kfp_hybrid.data.tfrecord import TFRecordReader
from kfp_hybrid.step import StepError

PROGRESS_SECONDS = 5.0
SAMPLES = 3
SAMPLE_CHARACTERS = 120


@dataclass(frozen=True)
class Request:
    """What to read and how to split it; the parameters of the component `ingest_examples`, which explains them."""

    source: str
    format: str = "auto"
    split_ratios: Mapping[str, float] = field(default_factory=lambda: {"train": 0.8, "eval": 0.2})
    key_columns: Sequence[str] = ()
    split_column: str = ""
    split_values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    span_column: str = ""
    spans: Sequence[Any] = ()
    max_bad_fraction: float = 0.01

    def check(self) -> Splitter:
        """Check the parameters against each other.

        Raises:
            StepError: one is wrong.
        """
        if not 0 <= self.max_bad_fraction <= 1:
            raise StepError(f"max_bad_fraction is {self.max_bad_fraction}; it must be from 0 to 1")
        if self.span_column and not self.spans:
            raise StepError(f"span_column is {self.span_column}, but spans is empty; list the spans to keep")
        if self.spans and not self.span_column:
            raise StepError("spans is given without span_column; name the column that says to which span a row belongs")
        return make_splitter(self.split_ratios, self.key_columns, self.split_column, self.split_values)


def ingest_examples(path: str, request: Request) -> dict[str, Any]:
    """Read the rows that a request asks for and write them as an examples artifact.

    Args:
        path: the directory that appears; whole, or not at all.
        request: what to read and how to split it.

    Returns:
        The metadata of the artifact: rows, rows_<split>, quarantined_rows, excluded_rows, schema_fingerprint.

    Raises:
        StepError: a parameter is wrong, the source cannot be read, or too many of its rows are bad.
    """
    splitter = request.check()
    started = time.monotonic()
    sources = resolve(request.source)
    reader = _open(sources, request.format)

    def write(columns: dict[str, str]) -> Examples:
        _require_columns(request, columns)
        return _Ingestion(request, splitter, reader, columns).run(path, [source.name for source in sources])

    examples = with_types(reader, write)
    _log_summary(examples, len(sources), time.monotonic() - started)
    return _metadata(examples)


def _open(sources: list[Source], format_: str) -> Reader:
    readers: dict[str, Any] = {"csv": CsvReader, "parquet": ParquetReader, "tfrecord": TFRecordReader}
    reader: Reader = readers[choose_format(sources, format_)](sources)
    return reader


def _require_columns(request: Request, columns: Collection[str]) -> None:
    asked = {
        "key_columns": request.key_columns,
        "split_column": [request.split_column] if request.split_column else [],
        "span_column": [request.span_column] if request.span_column else [],
    }
    for parameter, names in asked.items():
        for name in names:
            if name not in columns:
                similar = difflib.get_close_matches(name, columns, 1)
                hint = f" (did you mean {similar[0]}?)" if similar else ""
                raise StepError(
                    f"{parameter}: there is no column {name!r}{hint}; the columns are: {', '.join(columns)}"
                )


class _Ingestion:
    """One pass over the input with types that are thought to hold for all of it."""

    def __init__(self, request: Request, splitter: Splitter, reader: Reader, columns: dict[str, str]):
        self._request = request
        self._splitter = splitter
        self._reader = reader
        self._columns = columns
        self._rows = 0
        self._bad_rows = 0
        self._samples: list[BadRow] = []
        self._logged = time.monotonic()

    def run(self, path: str, sources: list[str]) -> Examples:
        request = self._request
        span = {"column": request.span_column, "values": list(request.spans)} if request.span_column else None
        with ExamplesWriter(path, self._columns, self._splitter.names, sources, span) as writer:
            for chunk in self._reader.chunks(self._columns, self._splitter.keys(self._columns)):
                self._write(writer, chunk)
                self._log_progress()
            self._require_enough_good_rows()
            self._require_rows_left(writer.excluded)
        return Examples.open(path)

    def _write(self, writer: ExamplesWriter, chunk: Chunk) -> None:
        for bad in chunk.bad:
            writer.quarantine(bad.source, bad.line, bad.reason, bad.row)
        self._samples += chunk.bad[: SAMPLES - len(self._samples)]
        self._bad_rows += sum(bad.rows for bad in chunk.bad)
        self._rows += chunk.batch.num_rows
        indices = self._splitter.assign(chunk)
        if self._request.span_column:
            indices[~is_among(chunk.batch, self._request.span_column, self._request.spans)] = NO_SPLIT
        for index, name in enumerate(self._splitter.names):
            writer.write(name, chunk.batch.filter(pa.array(indices == index)))
        writer.excluded += int(np.count_nonzero(indices == NO_SPLIT))

    def _log_progress(self) -> None:
        if time.monotonic() - self._logged > PROGRESS_SECONDS:
            self._logged = time.monotonic()
            logging.info("%s rows read", f"{self._rows:,}")

    def _require_enough_good_rows(self) -> None:
        total = self._rows + self._bad_rows
        if self._bad_rows <= self._request.max_bad_fraction * total:
            return
        samples = "; ".join(
            f"{bad.source} line {bad.line}: {bad.reason}: {bad.row[:SAMPLE_CHARACTERS]!r}" for bad in self._samples
        )
        raise StepError(
            f"{self._bad_rows:,} of {total:,} rows ({self._bad_rows / total:.2%}) cannot be read, more than "
            f"max_bad_fraction = {self._request.max_bad_fraction:g}; mend them or raise it. The first: {samples}"
        )

    def _require_rows_left(self, excluded: int) -> None:
        if not self._rows or excluded < self._rows:
            return
        wanted = []
        if self._request.span_column:
            wanted.append(f"{self._request.span_column} in {_listing(self._request.spans)}")
        if self._request.split_column:
            values = [value for values in self._request.split_values.values() for value in values]
            wanted.append(f"{self._request.split_column} in {_listing(values)}")
        raise StepError(f"none of the {self._rows:,} rows has {' and '.join(wanted)}; check these values")


def _listing(values: Sequence[Any]) -> str:
    return ", ".join(map(as_text, values))


def _log_summary(examples: Examples, files: int, seconds: float) -> None:
    total = sum(split.rows for split in examples.splits.values())
    splits = ", ".join(f"{name} {split.rows:,}" for name, split in examples.splits.items())
    logging.info(
        "%s rows of %d file(s) in %.1f s: %s; %s quarantined, %s excluded",
        *(f"{total:,}", files, seconds, splits, f"{examples.quarantine.rows:,}", f"{examples.excluded:,}"),
    )
    for name, split in examples.splits.items():
        if not split.rows:
            logging.warning("the split %s has no rows", name)


def _metadata(examples: Examples) -> dict[str, Any]:
    rows = {f"rows_{name}": split.rows for name, split in examples.splits.items()}
    return {
        "rows": sum(rows.values()),
        **rows,
        "quarantined_rows": examples.quarantine.rows,
        "excluded_rows": examples.excluded,
        "schema_fingerprint": examples.schema_fingerprint,
    }
