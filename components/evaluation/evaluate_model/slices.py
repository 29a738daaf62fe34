"""Slices: which rows share a value, or a range of values, of a column.

A text column makes one slice per value; so does a numeric column of few distinct values (months, hours). Any other
numeric column is cut into buckets that hold equally many rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from kfp_hybrid.reports.text import elide
from kfp_hybrid.step import StepError

Array = np.ndarray[Any, Any]

MOST_DISTINCT_NUMBERS = 24  # hours of a day: with more distinct values a numeric column is cut into buckets
MOST_DISTINCT_TEXTS = 100_000  # bounds memory; a column with more identifies rows rather than groups them
LONGEST_NAME = 80  # characters of a value in a sentence
MISSING = "(missing)"


@dataclass(frozen=True)
class Slice:
    """Rows that share a value.

    Args:
        column: the column.
        value: the value or range, as text.
        rows: int64, indices of the rows.
    """

    column: str
    value: str
    rows: Array

    @property
    def name(self) -> str:
        """Like "carrier=HA" or "distance=[17, 502)": one line that fits into a sentence, whatever the value."""
        printable = self.value if self.value.isprintable() else repr(self.value)[1:-1]
        return f"{self.column}={elide(printable, LONGEST_NAME)}"


@dataclass
class TextColumn:
    """Collects a text column batch by batch as one int32 code per row."""

    name: str
    _codes: dict[str | None, int] = field(default_factory=dict)
    _parts: list[Array] = field(default_factory=list)

    def add(self, values: pa.Array) -> None:
        """Append rows."""
        encoded = values.cast(pa.string()).dictionary_encode(null_encoding="encode")
        codes = [self._codes.setdefault(value, len(self._codes)) for value in encoded.dictionary.to_pylist()]
        if len(codes) and len(self._codes) > MOST_DISTINCT_TEXTS:
            raise StepError(
                f"slice_columns: {self.name!r} has more than {MOST_DISTINCT_TEXTS} distinct values; "
                "slice by a column that groups rows"
            )
        self._parts.append(np.asarray(codes, np.int32)[encoded.indices.to_numpy(zero_copy_only=False)])

    def slices(self, buckets: int) -> Iterator[Slice]:
        """One slice per value.

        Args:
            buckets: not used; text is not cut.
        """
        names = [MISSING if value is None else value for value in self._codes]
        return _split(self.name, names, np.concatenate(self._parts))


@dataclass
class NumericColumn:
    """Collects a numeric column batch by batch as float64."""

    name: str
    _parts: list[Array] = field(default_factory=list)

    def add(self, values: pa.Array) -> None:
        """Append rows."""
        self._parts.append(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))

    def slices(self, buckets: int) -> Iterator[Slice]:
        """One slice per value, or per bucket when there are many distinct values.

        Args:
            buckets: how many equally filled buckets to aim at; equal values always share one.
        """
        values = np.concatenate(self._parts)
        present = values[~np.isnan(values)]
        distinct = np.unique(present)
        if len(distinct) <= MOST_DISTINCT_NUMBERS:
            starts, names = distinct, [f"{value:.12g}" for value in distinct]
        else:
            # Edges are values that occur, so that a range says exactly which rows it holds.
            edges = np.unique(np.quantile(present, np.linspace(0, 1, buckets + 1), method="inverted_cdf"))
            starts, names = edges[:-1], _ranges(edges)
        codes = np.searchsorted(starts, values, side="right") - 1
        codes[np.isnan(values)] = len(names)
        return _split(self.name, [*names, MISSING], codes)


SliceColumn = TextColumn | NumericColumn


def slice_column(name: str, type_: str) -> SliceColumn:
    """The collector for a column.

    Args:
        name: column name.
        type_: its type in the examples artifact.
    """
    return NumericColumn(name) if type_ in ("int64", "double") else TextColumn(name)


def _ranges(edges: Array) -> list[str]:
    """Names of the ranges between rising edges, like "[17, 502)", with as many digits as tell the edges apart."""
    for digits in range(6, 18):
        texts = [f"{edge:.0f}" if edge.is_integer() and abs(edge) < 1e15 else f"{edge:.{digits}g}" for edge in edges]
        if len(set(texts)) == len(texts):
            break
    ranges = [f"[{start}, {end})" for start, end in pairwise(texts)]
    return [*ranges[:-1], f"{ranges[-1][:-1]}]"]  # the last one holds its end


def _split(column: str, names: list[str], codes: Array) -> Iterator[Slice]:
    """The rows of each code; sorting once is cheaper than one pass over the rows per value."""
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    for name, rows in zip(names, np.split(order, ends[:-1]), strict=True):
        if len(rows):
            yield Slice(column, name, rows)
