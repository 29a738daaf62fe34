"""Cuts the Parquet files of an examples artifact into chunks that can be read independently of each other.

The cut depends on the data only, not on the machine: the same examples give the same chunks, hence the same sums in
the same order and the same statistics, whatever the number of processes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kfp_hybrid.data.examples import Examples
from kfp_hybrid.step import StepError

CHUNK_CELLS = 4 << 20  # about a second of work: 210,000 rows of 20 columns
BATCH_ROWS = 65_536
BATCH_BYTES = 32 << 20

# Strings of a column are texts when they would make a sketch of thousands of them large: long on average, as stored
# (Parquet stores a value that repeats only once), and many.
TEXT_BYTES = 256
TEXT_COLUMN_BYTES = 64 << 20


@dataclass(frozen=True)
class RowGroup:
    """One row group of a Parquet file.

    Attributes:
        file: path of the file.
        index: which row group of the file.
        rows: number of rows.
        sizes: column name -> bytes, encoded but not compressed.
    """

    file: Path
    index: int
    rows: int
    sizes: dict[str, int]

    @property
    def cells(self) -> int:
        """Number of rows times number of columns."""
        return self.rows * len(self.sizes)


@dataclass(frozen=True)
class Chunk:
    """Consecutive row groups of a split; iterating reads their rows."""

    split: str
    row_groups: tuple[RowGroup, ...]

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for row_group in self.row_groups:
            try:
                with pq.ParquetFile(row_group.file) as parquet:
                    yield from parquet.iter_batches(_batch_rows(row_group), [row_group.index], use_threads=False)
            except (OSError, pa.ArrowException) as error:
                raise _damaged(row_group.file, error) from error


def read_row_groups(examples: Examples) -> dict[str, list[RowGroup]]:
    """The row groups of every split, from the footers of its files.

    Raises:
        StepError: a file is missing or damaged.
    """
    return {
        split: [group for file in examples.files(split) for group in _row_groups_of(file)] for split in examples.splits
    }


def _row_groups_of(file: Path) -> list[RowGroup]:
    try:
        metadata = pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, error) from error
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    return [
        RowGroup(
            file,
            index,
            group.num_rows,
            {
                column.path_in_schema: column.total_uncompressed_size
                for column in map(group.column, range(group.num_columns))
            },
        )
        for index, group in enumerate(groups)
    ]


def chunks_of(split: str, row_groups: Iterable[RowGroup]) -> Iterator[Chunk]:
    """Group consecutive row groups into chunks of CHUNK_CELLS, or a little more."""
    chunk: list[RowGroup] = []
    for row_group in row_groups:
        chunk.append(row_group)
        if sum(group.cells for group in chunk) >= CHUNK_CELLS:
            yield Chunk(split, tuple(chunk))
            chunk = []
    if chunk:
        yield Chunk(split, tuple(chunk))


def text_columns(row_groups: Iterable[RowGroup], columns: Iterable[str]) -> tuple[str, ...]:
    """Those of the columns that hold long and mostly distinct texts."""
    groups = list(row_groups)
    rows = sum(group.rows for group in groups)
    sizes = {name: sum(group.sizes[name] for group in groups) for name in columns}
    return tuple(name for name, size in sizes.items() if size > max(TEXT_COLUMN_BYTES, TEXT_BYTES * rows))


def _batch_rows(row_group: RowGroup) -> int:
    """Few rows when they are wide or long, so that memory stays bounded."""
    bytes_per_row = max(1, 8 * len(row_group.sizes), sum(row_group.sizes.values()) // max(1, row_group.rows))
    return min(BATCH_ROWS, max(1, BATCH_BYTES // bytes_per_row))


def _damaged(file: Path, error: Exception) -> StepError:
    return StepError(f"cannot read {file}: {error}; run ingest_examples again")
