"""What the readers of all formats share: chunks of rows, rows that cannot be read, and types found on the way.

The type of a column is decided by the whole input, but nobody wants to read the input twice. So a reader begins
with the types that it finds in the first rows, and `with_types` starts the work again in the rare case that a
later row contradicts them:

    def work(columns):
        with ExamplesWriter(path, columns) as writer:
            for chunk in reader.chunks(columns):
                writer.write("train", chunk.batch)

    with_types(reader, work)
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import pyarrow as pa

from kfp_hybrid.data.column_types import wider
from kfp_hybrid.step import StepError

T = TypeVar("T")


class BadRow(NamedTuple):
    """A row that cannot be read.

    Attributes:
        source: file that holds it.
        line: where it begins, counted from 1: the line of a text file, else the number of the row or record.
        reason: why it cannot be read, in one line.
        row: its text.
        rows: how many rows it stands for; an estimate when the rest of a file cannot be read.
    """

    source: str
    line: int
    reason: str
    row: str
    rows: int = 1


@dataclass(frozen=True)
class Chunk:
    """Some rows in the order of the input.

    Attributes:
        batch: the rows that could be read, with the columns and types that were asked for.
        keys: column -> its values before any type was decided: text from a text file (null where the field is
            empty), what the file holds otherwise; for the columns that were asked for.
        bad: the rows among them that could not be read.
    """

    batch: pa.RecordBatch
    keys: Mapping[str, pa.Array] = field(default_factory=dict)
    bad: list[BadRow] = field(default_factory=list)


class TypesWidened(Exception):
    """The input does not have the types that were assumed; `columns` are those of the whole input."""

    def __init__(self, columns: dict[str, str]):
        super().__init__(columns)
        self.columns = columns


class Reader(Protocol):
    """Streams the rows of one or more files."""

    def guess(self) -> dict[str, str]:
        """Column name -> type in the first rows; never wider than in the whole input."""

    def chunks(self, columns: Mapping[str, str], keys: Collection[str] = ()) -> Iterator[Chunk]:
        """Stream the rows.

        Args:
            columns: column name -> type to convert to.
            keys: columns whose `Chunk.keys` are needed.

        Raises:
            TypesWidened: at the end, when some rows need wider types; the chunks so far are of no use then.
        """


def with_types(reader: Reader, work: Callable[[dict[str, str]], T]) -> T:
    """Call `work(columns)` with types (column name -> type) that hold for the whole input; return its result.

    Args:
        reader: what `work` reads, all of it, by `reader.chunks(columns)`.
        work: called again from the start when a row contradicts the types of the first rows, so it keeps nothing
            of the first attempt.
    """
    columns = reader.guess()
    while True:
        try:
            return work(columns)
        except TypesWidened as widened:
            columns = widened.columns


def widen(columns: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """Columns with the wider of two types each; columns of only one side are kept."""
    widened = dict(columns)
    for name, type_ in found.items():
        widened[name] = wider(widened.get(name, "null"), type_)
    return widened


def final_types(reader: Reader) -> dict[str, str]:
    """Column name -> type in the whole input; reads all of it."""

    def pass_over(columns: dict[str, str]) -> dict[str, str]:
        for _ in reader.chunks(columns):
            pass
        return columns

    return with_types(reader, pass_over)


def require_same_columns(columns: Mapping[str, list[str]]) -> None:
    """Check that all files have the same columns in the same order.

    Args:
        columns: name of a file -> its columns.

    Raises:
        StepError: a file differs from the first one.
    """
    (first, names), *others = columns.items()
    for file, other in others:
        if other == names:
            continue
        missing = ", ".join(name for name in names if name not in other)
        extra = ", ".join(name for name in other if name not in names)
        difference = f"missing: {missing or 'none'}; additional: {extra or 'none'}"
        if not missing and not extra:
            difference = f"the order is {', '.join(other)} instead of {', '.join(names)}"
        raise StepError(
            f"{file} has other columns than {first} ({difference}); "
            "give files with the same columns, or ingest them separately"
        )
