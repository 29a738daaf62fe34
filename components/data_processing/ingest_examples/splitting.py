"""Which rows are kept, and which split each one belongs to."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kfp_hybrid.components.data_processing.ingest_examples.row_hash import hash_rows
from kfp_hybrid.data.column_types import text_type
from kfp_hybrid.data.reading import Chunk
from kfp_hybrid.step import StepError

NO_SPLIT = -1
SplitIndices = npt.NDArray[np.int64]


class Splitter(Protocol):
    """Assigns rows to splits."""

    @property
    def names(self) -> list[str]:
        """The splits."""

    def keys(self, columns: Collection[str]) -> list[str]:
        """The columns whose `Chunk.keys` it looks at."""

    def assign(self, chunk: Chunk) -> SplitIndices:
        """For each row, the index of its split in `names`, or NO_SPLIT."""


@dataclass(frozen=True)
class HashSplitter:
    """Splits by a hash of the key columns, or of all columns when there are none.

    The hash is a number from 0 to 1; the splits lie side by side on that line, sorted by name, because a
    dictionary that travels through a pipeline's parameters does not keep its order.
    """

    ratios: dict[str, float]
    key_columns: list[str]

    @property
    def names(self) -> list[str]:
        """The splits."""
        return sorted(self.ratios)

    def keys(self, columns: Collection[str]) -> list[str]:
        """The columns whose `Chunk.keys` it looks at."""
        return self.key_columns or list(columns)

    def assign(self, chunk: Chunk) -> SplitIndices:
        """For each row, the index of its split in `names`."""
        position = (hash_rows(chunk.keys) >> np.uint64(11)) * 2.0**-53
        borders = np.cumsum([self.ratios[name] for name in self.names])[:-1]
        return np.searchsorted(borders, position, side="right")


@dataclass(frozen=True)
class ColumnSplitter:
    """Splits by the values of a column, such as months; a row with another value or none is in no split."""

    column: str
    values: dict[str, list[Any]]

    @property
    def names(self) -> list[str]:
        """The splits."""
        return sorted(self.values)

    def keys(self, columns: Collection[str]) -> list[str]:
        """It looks at no `Chunk.keys`."""
        return []

    def assign(self, chunk: Chunk) -> SplitIndices:
        """For each row, the index of its split in `names`, or NO_SPLIT."""
        indices = np.full(chunk.batch.num_rows, NO_SPLIT, np.int64)
        for index, name in enumerate(self.names):
            indices[is_among(chunk.batch, self.column, self.values[name])] = index
        return indices


def make_splitter(
    split_ratios: Mapping[str, float],
    key_columns: Sequence[str],
    split_column: str,
    split_values: Mapping[str, Sequence[Any]],
) -> Splitter:
    """The splitter that the parameters of ingest_examples describe.

    Raises:
        StepError: they contradict each other.
    """
    if split_column:
        if key_columns:
            raise StepError("give either key_columns (split by hash) or split_column (split by value), not both")
        return ColumnSplitter(split_column, _check_values(split_column, split_values))
    if split_values:
        raise StepError("split_values is given without split_column; name the column that holds these values")
    return HashSplitter(_check_ratios(split_ratios), list(key_columns))


def _check_ratios(ratios: Mapping[str, float]) -> dict[str, float]:
    if not ratios:
        raise StepError('split_ratios is empty; give the share of every split, such as {"train": 0.8, "eval": 0.2}')
    for name, ratio in ratios.items():
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio <= 1:
            raise StepError(f"split_ratios: the share of {name} is {ratio!r}; it must be a number from 0 to 1")
    total = math.fsum(ratios.values())
    if abs(total - 1) > 1e-6:
        raise StepError(f"split_ratios: the shares of {', '.join(ratios)} add up to {total:g}; they must add up to 1")
    return {name: float(ratio) for name, ratio in ratios.items()}


def _check_values(column: str, values: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    if not values:
        raise StepError(
            f"split_column is {column}, but split_values is empty; "
            'give the values of every split, such as {"train": [1, 2, 3], "eval": [4]}'
        )
    owner: dict[str, str] = {}
    for name, wanted in values.items():
        if not isinstance(wanted, (list, tuple)):
            raise StepError(f"split_values: the values of {name} must be a list, such as [1, 2], and not {wanted!r}")
        for value in wanted:
            other = owner.setdefault(as_text(value), name)
            if other != name:
                raise StepError(f"split_values: {as_text(value)} is a value of both {other} and {name}")
    return {name: list(wanted) for name, wanted in values.items()}


def is_among(batch: pa.RecordBatch, column: str, values: Sequence[Any]) -> npt.NDArray[np.bool_]:
    """Which rows have one of some values in a column; a missing value is none of them.

    Args:
        batch: the rows.
        column: name of the column.
        values: numbers or texts. 1, 1.0 and "1" are the same, for a runner may turn one into another.

    Raises:
        StepError: a value cannot occur in the column because of its type.
    """
    array = batch.column(batch.schema.get_field_index(column))
    wanted: list[Any] = []
    if pa.types.is_int64(array.type):
        wanted = [_as_integer(column, value) for value in values]
    elif pa.types.is_floating(array.type):
        wanted = [_as_number(column, value) for value in values]
    elif pa.types.is_string(array.type):
        wanted = [text for value in values for text in {as_text(value), str(value)}]
    return pc.is_in(array, value_set=pa.array(wanted, array.type)).to_numpy(zero_copy_only=False)


def as_text(value: Any) -> str:
    """A value as text; 1.0 is 1."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _as_integer(column: str, value: Any) -> int:
    text = as_text(value)
    if text_type(text.encode()) != "int64":
        raise StepError(f"{text!r} cannot be a value of column {column}, which holds integers")
    return int(text)


def _as_number(column: str, value: Any) -> float:
    text = as_text(value)
    if text_type(text.encode()) not in ("int64", "double"):
        raise StepError(f"{text!r} cannot be a value of column {column}, which holds numbers")
    return float(text)
