"""Computes the statistics of an examples artifact and writes them as one DatasetFeatureStatisticsList."""

import contextlib
import functools
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import pyarrow.compute as pc

from kfp_hybrid.components.data_validation.generate_statistics.chunks import (
    CHUNK_CELLS,
    Chunk,
    RowGroup,
    chunks_of,
    read_row_groups,
    text_columns,
)
from kfp_hybrid.components.data_validation.generate_statistics.options import Slice, StatisticsOptions, slice_name
from kfp_hybrid.components.data_validation.generate_statistics.parallel import map_in_order
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.step import StepError

# TFDV takes seconds to import: it is imported where it is needed, after mistakes in the parameters have been reported.
if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatistics

    from kfp_hybrid.components.data_validation.generate_statistics.statistics import PartialStatistics

STATISTICS_FILE = "stats.pb"
LOG_SECONDS = 5.0


@dataclass(frozen=True)
class Request:
    """What the user asks for: the parameters of the component, which documents them."""

    slice_columns: Sequence[str] = ()
    max_slices: int = 50
    weight_column: str = ""
    num_top_values: int = 20
    num_rank_histogram_buckets: int = 1000
    num_histogram_buckets: int = 10
    num_quantiles_histogram_buckets: int = 10
    processes: int = 0
    beam_options: Mapping[str, Any] = field(default_factory=dict)

    def check(self, examples: Examples) -> None:
        """Find the mistakes that show without reading a row.

        Raises:
            StepError: a number is out of range, or a column does not exist or has the wrong type.
        """
        _check_at_least(0, processes=self.processes)
        _check_at_least(
            1,
            max_slices=self.max_slices,
            num_top_values=self.num_top_values,
            num_rank_histogram_buckets=self.num_rank_histogram_buckets,
            num_histogram_buckets=self.num_histogram_buckets,
            num_quantiles_histogram_buckets=self.num_quantiles_histogram_buckets,
        )
        for column in self.slice_columns:
            _check_column(examples, "slice_columns", column, ("int64", "string"))
        if self.weight_column:
            _check_column(examples, "weight_column", self.weight_column, ("int64", "double"))

    def options(self, examples: Examples, row_groups: Mapping[str, Sequence[RowGroup]]) -> StatisticsOptions:
        """What to compute for these examples; reads the columns that the parameters name.

        Raises:
            StepError: a column of slices has too many values, or one of weights has bad ones.
        """
        if self.weight_column:
            check_weights(examples, self.weight_column)
        strings = tuple(name for name, type_ in examples.columns.items() if type_ == "string")
        return StatisticsOptions(
            string_columns=strings,
            text_columns=text_columns([group for groups in row_groups.values() for group in groups], strings),
            weight_column=self.weight_column,
            slices=find_slices(examples, self.slice_columns, self.max_slices),
            num_top_values=self.num_top_values,
            num_rank_histogram_buckets=self.num_rank_histogram_buckets,
            num_histogram_buckets=self.num_histogram_buckets,
            num_quantiles_histogram_buckets=self.num_quantiles_histogram_buckets,
        )


def _check_at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < least:
            raise StepError(f"{name} is {number}; give a number of at least {least}")


def _check_column(examples: Examples, parameter: str, column: str, types: Sequence[str]) -> None:
    if column not in examples.columns:
        raise StepError(f"{parameter} names {column!r}; the examples have the columns {', '.join(examples.columns)}")
    if examples.columns[column] not in types:
        raise StepError(
            f"{parameter} names {column!r}, a column of type {examples.columns[column]}; "
            f"give one of type {' or '.join(types)}"
        )


def generate_statistics(examples_path: str, statistics_path: str, request: Request) -> dict[str, int | float]:
    """Write the statistics of every split, and of every slice asked for, to `<statistics_path>/stats.pb`.

    Args:
        examples_path: directory of an examples artifact.
        statistics_path: directory to write; it need not exist.
        request: what to compute.

    Returns:
        Numbers for the artifact's metadata: `rows_<split>` for every split, `features`, `slices` (of all splits
        together) and `seconds`.

    Raises:
        StepError: a parameter does not fit the examples, or a file cannot be read or written.
    """
    start = time.monotonic()
    examples = Examples.open(examples_path)
    request.check(examples)
    row_groups = read_row_groups(examples)
    options = request.options(examples, row_groups)
    directory = Path(statistics_path)
    with _disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    if request.beam_options:
        from kfp_hybrid.components.data_validation.generate_statistics import beam_pipeline

        datasets = beam_pipeline.statistics_of(examples, options, request.beam_options, directory)
    else:
        datasets = statistics_of(row_groups, options, request.processes)
    with _disk_errors(directory):
        _write(datasets, directory / STATISTICS_FILE)
    seconds = round(time.monotonic() - start, 3)
    logging.info("wrote the statistics of %d data sets to %s in %.1f s", len(datasets), statistics_path, seconds)
    return {
        **{f"rows_{split}": examples.rows(split) for split in examples.splits},
        "features": len(examples.columns),
        "slices": len(datasets) - len(examples.splits),
        "seconds": seconds,
    }


def statistics_of(
    row_groups: Mapping[str, Sequence[RowGroup]], options: StatisticsOptions, processes: int = 0
) -> list["DatasetFeatureStatistics"]:
    """The statistics of every split and its slices.

    Args:
        row_groups: split -> its row groups.
        options: what to compute.
        processes: how many to use; 0 for one per CPU that this process may use. Fewer when there is little to do.

    Returns:
        One entry per split, each followed by those of its slices.
    """
    from kfp_hybrid.components.data_validation.generate_statistics.statistics import PartialStatistics

    chunks = [chunk for split, groups in row_groups.items() for chunk in chunks_of(split, groups)]
    groups = [group for chunk in chunks for group in chunk.row_groups]
    useful_processes = 1 + sum(group.cells for group in groups) // CHUNK_CELLS
    processes = min(processes or joblib.cpu_count(), useful_processes, max(1, len(chunks)))
    partials = {split: PartialStatistics(options) for split in row_groups}
    progress = _Progress(sum(group.rows for group in groups))
    for split, partial in map_in_order(functools.partial(_accumulate, options), chunks, processes):
        progress.add(partial.rows)
        partials[split].merge(partial)
    return [dataset for split, partial in partials.items() for dataset in partial.extract(split)]


def _accumulate(options: StatisticsOptions, chunk: Chunk) -> tuple[str, "PartialStatistics"]:
    from kfp_hybrid.components.data_validation.generate_statistics.statistics import accumulate

    return chunk.split, accumulate(chunk, options)


class _Progress:
    def __init__(self, rows: int):
        self._rows = rows
        self._done = 0
        self._logged = time.monotonic()

    def add(self, rows: int) -> None:
        self._done += rows
        if time.monotonic() - self._logged >= LOG_SECONDS:
            self._logged = time.monotonic()
            logging.info("statistics: %s of %s rows", f"{self._done:,}", f"{self._rows:,}")


def find_slices(examples: Examples, columns: Sequence[str], max_slices: int) -> tuple[Slice, ...]:
    """The (column, value) pairs of the slices: every value of every column, in all splits, sorted.

    Raises:
        StepError: a column has more than `max_slices` values, or two slices would have the same name.
    """
    slices = [(column, value) for column in columns for value in _values(examples, column, max_slices)]
    names = [slice_name(key) for key in slices]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise StepError(f"slice_columns give two slices the same name, {doubled[0]!r}; leave one of the columns out")
    return tuple(slices)


def _values(examples: Examples, column: str, max_slices: int) -> list[int | str]:
    values: set[int | str] = set()
    for split in examples.splits:
        for batch in examples.batches(split, [column]):
            values.update(value for value in pc.unique(batch.column(0)).to_pylist() if value is not None)
            if len(values) > max_slices:
                raise StepError(
                    f"slice_columns names {column!r}, which has more than {max_slices} values; choose a column with "
                    "fewer values or raise max_slices"
                )
    return sorted(values)  # type: ignore[type-var]  # the values of a column have one type


def check_weights(examples: Examples, column: str) -> None:
    """See that every row has a weight.

    Raises:
        StepError: a weight is missing, negative or not finite.
    """
    for split in examples.splits:
        bad = 0
        for batch in examples.batches(split, [column]):
            weights = batch.column(0)
            good = pc.sum(pc.and_(pc.is_finite(weights), pc.greater_equal(weights, 0))).as_py() or 0
            bad += len(weights) - good
        if bad:
            raise StepError(
                f"weight_column {column!r} holds no finite number >= 0 in {bad} of {examples.rows(split)} rows of "
                f"split {split!r}; give every row a weight or leave weight_column empty"
            )


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StepError(f"cannot write {path}: {error.strerror or error}; check its permissions and space") from error


def _write(datasets: Sequence["DatasetFeatureStatistics"], file: Path) -> None:
    """Write the file whole or not at all."""
    from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList

    content = DatasetFeatureStatisticsList(datasets=datasets).SerializeToString(deterministic=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as unfinished:
        try:
            unfinished.write(content)
            unfinished.close()
            os.chmod(unfinished.name, 0o644)
            os.replace(unfinished.name, file)
        except BaseException:
            os.unlink(unfinished.name)
            raise
