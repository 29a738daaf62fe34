"""The examples artifact: the rows of a data set as Parquet files, one folder per split, with a manifest.

    <path>/manifest.json                      columns, splits, row and byte counts, sha256 of every file, sources,
                                              span, rows that were excluded
    <path>/<split>/part-00000.parquet         the rows; row groups of at most 131,072 rows
    <path>/quarantine/part-00000.parquet      rows that could not be parsed: source, line, reason, row

A column has one of the types `int64`, `double`, `string`, or `null` when the column has no value at all. A
missing value is an Arrow null. `manifest.json` is written last and the folder appears under its final name
whole or not at all.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kfp_hybrid import publishing
from kfp_hybrid.step import StepError

FORMAT = "kfp-hybrid/examples"
VERSION = 1
MANIFEST = "manifest.json"
QUARANTINE = "quarantine"
TYPES: dict[str, pa.DataType] = {"int64": pa.int64(), "double": pa.float64(), "string": pa.string(), "null": pa.null()}
QUARANTINE_SCHEMA = pa.schema(
    [("source", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("row", pa.string())]
)
ROW_GROUP_ROWS = 131_072
ROW_GROUP_BYTES = 64 << 20
ROW_GROUPS_PER_FILE = 8
# How much of the quarantine is held as Python objects.
QUARANTINE_ROWS = 8192
QUARANTINE_CHARACTERS = 16 << 20
SPLIT_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class File:
    """One Parquet file; `path` is relative to the artifact."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class RowGroup:
    """One row group of a Parquet file: the smallest part of a split that can be read alone.

    Attributes:
        file: absolute path of the file.
        index: number of the row group in it, from 0.
        rows: number of its rows.
    """

    file: Path
    index: int
    rows: int


@dataclass(frozen=True)
class Split:
    """The files of one split (or of the quarantine)."""

    files: tuple[File, ...] = ()

    @property
    def rows(self) -> int:
        """Number of rows in all files."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """Size of all files in bytes."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Examples:
    """An examples artifact that exists on disk.

    Attributes:
        path: the directory.
        columns: column name -> type, in the order of the source.
        splits: split name -> its files; a split can be empty.
        quarantine: the rows that could not be parsed.
        excluded: number of rows that a filter left out on purpose (span, values of no split).
        span: {"column": name, "values": [...]} when the rows were filtered by span, else None.
        sources: where the rows came from.
    """

    path: Path
    columns: dict[str, str]
    splits: dict[str, Split]
    quarantine: Split = Split()
    excluded: int = 0
    span: dict[str, Any] | None = None
    sources: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Examples":
        """Read the manifest of an examples artifact.

        Args:
            path: the directory of the artifact.

        Raises:
            StepError: the path is no examples artifact, or one of a newer version than this code reads.
        """
        directory = Path(path)
        try:
            manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        except OSError as error:
            raise StepError(
                f"{directory} is not an examples artifact: cannot read {MANIFEST} ({error.strerror}); "
                "give the output `examples` of ingest_examples"
            ) from error
        except ValueError as error:
            raise StepError(f"{directory / MANIFEST} is not valid JSON ({error}); run ingest_examples again") from error
        return _parse_manifest(directory, manifest)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of every split."""
        return arrow_schema(self.columns)

    @property
    def schema_fingerprint(self) -> str:
        """Sha256 (hex) of the names, types and order of the columns."""
        return schema_fingerprint(self.columns)

    def split(self, name: str) -> Split:
        """The split `name`.

        Raises:
            StepError: there is no such split.
        """
        if name not in self.splits:
            raise StepError(f"{self.path} has no split {name!r}; it has: {', '.join(self.splits)}")
        return self.splits[name]

    def files(self, split: str) -> list[Path]:
        """Absolute paths of the Parquet files of a split; empty for a split without rows."""
        return [self.path / file.path for file in self.split(split).files]

    def rows(self, split: str) -> int:
        """Number of rows of a split."""
        return self.split(split).rows

    def row_groups(self, split: str) -> list[RowGroup]:
        """The row groups of a split that have rows, in the order in which they were written.

        Raises:
            StepError: unknown split, or a file that is missing or damaged.
        """
        groups = []
        for file in self.files(split):
            with reading(file):
                metadata = pq.read_metadata(file)
            groups += [RowGroup(file, i, metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups)]
        return [group for group in groups if group.rows]

    def batches(
        self, split: str, columns: Sequence[str] | None = None, batch_size: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows of a split, in the order in which they were written.

        Args:
            split: name of the split.
            columns: the columns to read, in this order; all of them when None.
            batch_size: largest number of rows of a batch.

        Yields:
            Record batches of 1..batch_size rows; none at all for a split without rows.

        Raises:
            StepError: unknown split or column, or a file that is missing or damaged.
        """
        names = list(self.columns) if columns is None else list(columns)
        if unknown := [name for name in names if name not in self.columns]:
            raise StepError(f"{self.path} has no column {unknown[0]!r}; it has: {', '.join(self.columns)}")
        for file in self.files(split):
            with reading(file), pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(batch_size, columns=names):
                    yield pa.RecordBatch.from_arrays([batch.column(name) for name in names], names=names)

    def quarantined(self) -> Iterator[pa.RecordBatch]:
        """Stream the quarantined rows: source, line (1-based), reason, row (text)."""
        for entry in self.quarantine.files:
            with reading(self.path / entry.path), pq.ParquetFile(self.path / entry.path) as parquet:
                yield from parquet.iter_batches()

    def verify(self) -> None:
        """Compare every file with the size and the sha256 in the manifest.

        Raises:
            StepError: a file is missing or differs.
        """
        for split in [*self.splits.values(), self.quarantine]:
            for file in split.files:
                with reading(self.path / file.path):
                    actual = sha256(self.path / file.path)
                if actual != file.sha256:
                    raise StepError(
                        f"{self.path / file.path} is damaged: its sha256 is not the one in {MANIFEST}; "
                        "run ingest_examples again"
                    )


@contextlib.contextmanager
def reading(file: Path) -> Iterator[None]:
    """Report that a file of an examples artifact is missing or damaged.

    Raises:
        StepError: the body cannot read the file.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise StepError(f"cannot read {file}: {error}; run ingest_examples again") from error


def _parse_manifest(directory: Path, manifest: Any) -> Examples:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StepError(f"{directory / MANIFEST} does not describe an examples artifact (format is not {FORMAT})")
    if manifest.get("version") != VERSION:
        raise StepError(
            f"{directory / MANIFEST} has version {manifest.get('version')}, this code reads version {VERSION}; "
            "use the same release of kfp-hybrid for all steps"
        )
    try:
        return Examples(
            path=directory,
            columns={column["name"]: column["type"] for column in manifest["columns"]},
            splits={name: _parse_split(split) for name, split in manifest["splits"].items()},
            quarantine=_parse_split(manifest["quarantine"]),
            excluded=manifest.get("excluded", {"rows": 0})["rows"],
            span=manifest["span"],
            sources=tuple(manifest["sources"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise StepError(f"{directory / MANIFEST} is incomplete ({error!r}); run ingest_examples again") from error


def _parse_split(split: Mapping[str, Any]) -> Split:
    files = tuple(File(**file) for file in split["files"])
    for file in files:
        relative = PurePosixPath(file.path)
        if relative.is_absolute() or ".." in relative.parts:
            raise StepError(f"the {MANIFEST} names a file outside the examples artifact: {file.path}")
    return Split(files)


def arrow_schema(columns: Mapping[str, str]) -> pa.Schema:
    """The Arrow schema of columns given as name -> type."""
    return pa.schema([(name, TYPES[type_]) for name, type_ in columns.items()])


def schema_fingerprint(columns: Mapping[str, str]) -> str:
    """Sha256 (hex) of the canonical JSON of columns given as name -> type."""
    canonical = json.dumps(_column_list(columns), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _column_list(columns: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "type": type_} for name, type_ in columns.items()]


def sha256(file: Path) -> str:
    """Sha256 (hex) of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _Part:
    """The Parquet files of one split while they are being written."""

    def __init__(self, root: Path, name: str, schema: pa.Schema):
        self._root = root
        self._name = name
        self._schema = schema
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self._row_groups = 0
        self._paths: list[str] = []
        self._rows: list[int] = []

    def add(self, batch: pa.RecordBatch) -> None:
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        self._pending_bytes += batch.nbytes
        if self._pending_rows >= ROW_GROUP_ROWS or self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush(everything=False)

    def finish(self) -> Split:
        self._flush(everything=True)
        self._close()
        files = []
        for path, rows in zip(self._paths, self._rows, strict=True):
            file = self._root / path
            files.append(File(path, rows, file.stat().st_size, sha256(file)))
        return Split(tuple(files))

    def abandon(self) -> None:
        with contextlib.suppress(OSError, pa.ArrowException):
            self._close()

    def _flush(self, everything: bool) -> None:
        # Full row groups only, unless this is the end or the rows are so long that memory counts.
        table = pa.Table.from_batches(self._pending, self._schema)
        whole = everything or self._pending_bytes >= ROW_GROUP_BYTES
        rows = table.num_rows if whole else table.num_rows - table.num_rows % ROW_GROUP_ROWS
        for start in range(0, rows, ROW_GROUP_ROWS):
            self._write_row_group(table.slice(start, min(ROW_GROUP_ROWS, rows - start)))
        self._pending = table.slice(rows).to_batches()
        self._pending_rows = table.num_rows - rows
        self._pending_bytes = sum(batch.nbytes for batch in self._pending)

    def _write_row_group(self, table: pa.Table) -> None:
        if self._writer is None:
            path = f"{self._name}/part-{len(self._paths):05d}.parquet"
            (self._root / self._name).mkdir(exist_ok=True)
            self._writer = pq.ParquetWriter(self._root / path, self._schema)
            self._paths.append(path)
            self._rows.append(0)
            self._row_groups = 0
        self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        self._rows[-1] += table.num_rows
        self._row_groups += 1
        if self._row_groups == ROW_GROUPS_PER_FILE:
            self._close()

    def _close(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()


@dataclass
class ExamplesWriter:
    """Writes an examples artifact; a context manager that publishes it on a clean exit and leaves nothing otherwise.

        with ExamplesWriter(path, {"distance": "int64"}, splits=["train", "eval"]) as writer:
            writer.write("train", batch)
            writer.quarantine("flights.csv", 17, "expected 20 fields, found 19", "1,1,...")

    Attributes:
        path: the directory that appears. It may exist when it is empty or an older examples artifact.
        columns: column name -> type (a key of TYPES).
        splits: the splits; those that get no rows appear too.
        sources: where the rows come from, for the manifest.
        span: {"column": name, "values": [...]} when the rows are filtered by span.
        excluded: number of rows that a filter left out on purpose; set it before the end.
    """

    path: str | os.PathLike[str]
    columns: Mapping[str, str]
    splits: Iterable[str] = ("train",)
    sources: Iterable[str] = ()
    span: Mapping[str, Any] | None = None
    excluded: int = 0
    _unfinished: Path = field(init=False, repr=False)
    _parts: dict[str, _Part] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        self.splits = list(self.splits)
        for name in self.splits:
            if not SPLIT_NAME.fullmatch(name) or name in (QUARANTINE, MANIFEST):
                raise StepError(f"{name!r} cannot be the name of a split: use letters, digits, _ - and .")

    def __enter__(self) -> "ExamplesWriter":
        self._unfinished = _make_sibling(Path(self.path))
        schema = arrow_schema(self.columns)
        self._schema = schema
        self._parts = {name: _Part(self._unfinished, name, schema) for name in self.splits}
        self._bad = _Part(self._unfinished, QUARANTINE, QUARANTINE_SCHEMA)
        self._bad_rows: list[dict[str, Any]] = []
        self._bad_characters = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with _disk_errors(Path(self.path)):
                    self._finish()
                    _publish(self._unfinished, Path(self.path))
        finally:
            for part in [*self._parts.values(), self._bad]:
                part.abandon()
            shutil.rmtree(self._unfinished, ignore_errors=True)

    def write(self, split: str, batch: pa.RecordBatch) -> None:
        """Append rows to a split.

        Args:
            split: one of `splits`.
            batch: the rows; the columns of the artifact with their types, in their order.

        Raises:
            StepError: the disk is full or not writable.
        """
        if not batch.schema.equals(self._schema):
            raise ValueError(f"the batch has the schema {batch.schema}, the artifact {self._schema}")
        if batch.num_rows:
            with _disk_errors(Path(self.path)):
                self._parts[split].add(batch)

    def quarantine(self, source: str, line: int, reason: str, row: str) -> None:
        """Set a row aside that could not be parsed.

        Args:
            source: file that holds the row.
            line: where in the file the row begins, counted from 1.
            reason: why it could not be parsed, one line.
            row: its text.
        """
        self._bad_rows.append({"source": source, "line": line, "reason": reason, "row": row})
        self._bad_characters += len(row)
        if len(self._bad_rows) >= QUARANTINE_ROWS or self._bad_characters >= QUARANTINE_CHARACTERS:
            self._flush_bad_rows()

    def _flush_bad_rows(self) -> None:
        with _disk_errors(Path(self.path)):
            for batch in pa.Table.from_pylist(self._bad_rows, QUARANTINE_SCHEMA).to_batches():
                self._bad.add(batch)
        self._bad_rows = []
        self._bad_characters = 0

    def _finish(self) -> None:
        self._flush_bad_rows()
        splits = {name: part.finish() for name, part in self._parts.items()}
        quarantine = self._bad.finish()
        write_manifest(self._unfinished, self.columns, splits, quarantine, self.excluded, self.span, self.sources)


def write_manifest(
    folder: Path,
    columns: Mapping[str, str],
    splits: Mapping[str, Split],
    quarantine: Split = Split(),
    excluded: int = 0,
    span: Mapping[str, Any] | None = None,
    sources: Iterable[str] = (),
    **further: Any,
) -> None:
    """Make a folder of Parquet files an examples artifact.

    Args:
        folder: where the files of the splits are.
        columns: column name -> type (a key of TYPES).
        splits: split name -> its files.
        quarantine: the files of the rows that could not be parsed.
        excluded: number of rows that a filter left out on purpose.
        span: {"column": name, "values": [...]} when the rows are filtered by span.
        sources: where the rows come from.
        **further: entries that readers of examples pass over, JSON values.
    """
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "columns": _column_list(columns),
        "schema_fingerprint": schema_fingerprint(columns),
        "span": span,
        "splits": {name: _split_entry(split) for name, split in splits.items()},
        "quarantine": _split_entry(quarantine),
        "excluded": {"rows": excluded},
        "sources": list(sources),
        **further,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _split_entry(split: Split) -> dict[str, Any]:
    return {"rows": split.rows, "bytes": split.bytes, "files": [asdict(file) for file in split.files]}


def _make_sibling(path: Path) -> Path:
    """A new directory beside `path`, on the same file system, so that a rename can publish it."""
    with _disk_errors(path):
        if path.exists() and not (path / MANIFEST).is_file() and (not path.is_dir() or any(path.iterdir())):
            raise StepError(f"{path} exists and is not an examples artifact; it is not overwritten: move it away")
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".unfinished", dir=path.parent))


def _publish(unfinished: Path, path: Path) -> None:
    unfinished.chmod(0o755)  # mkdtemp makes it private, but the next step may run as another user
    if (path / MANIFEST).is_file():
        logging.info("replacing the examples in %s", path)
    publishing.replace(unfinished, path, last=MANIFEST)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StepError(f"cannot write {path}: {error.strerror or error}; check its permissions and space") from error
