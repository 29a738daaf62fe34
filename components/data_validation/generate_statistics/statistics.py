"""TFDV's statistics of a stream of Arrow record batches, without a Beam pipeline.

The numbers come from TFDV's own combiner generators: `PartialStatistics` feeds them, merges what they accumulated
from different parts of the data, and extracts their output.
"""

import functools
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_data_validation.statistics.generators.basic_stats_generator import BasicStatsGenerator
from tensorflow_data_validation.statistics.generators.stats_generator import CombinerStatsGenerator
from tensorflow_data_validation.statistics.generators.top_k_uniques_sketch_stats_generator import (
    TopKUniquesSketchStatsGenerator,
)
from tensorflow_data_validation.utils.example_weight_map import ExampleWeightMap
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx_bsl.arrow import array_util

from kfp_hybrid.components.data_validation.generate_statistics.options import Slice, StatisticsOptions, slice_name
from kfp_hybrid.step import StepError

# Up to this many distinct strings in a column their number is exact, as by TFDV's default.
EXACT_UNIQUES = 16_384
# Up to this many distinct strings the count of each is exact, beyond it at most rows/4096 too high. TFDV's default of
# 1024 is hardly faster.
EXACT_COUNTS = 4_096
# TFDV's default, for columns of long and mostly distinct texts: thousands of them would fill the memory.
TEXT_COUNTS = 1_024


@functools.cache
def make_generators(options: StatisticsOptions) -> list[CombinerStatsGenerator]:
    """TFDV's generators for these options; they hold no state, so that one list serves a whole process."""
    weights = ExampleWeightMap(options.weight_column or None)
    words = [name for name in options.string_columns if name not in options.text_columns]
    categorical = schema_pb2.StringDomain.Categorical
    generators = [
        BasicStatsGenerator(
            example_weight_map=weights,
            num_histogram_buckets=options.num_histogram_buckets,
            num_quantiles_histogram_buckets=options.num_quantiles_histogram_buckets,
        ),
        # TFDV counts each string of a column declared categorical under its own name, however long it is.
        _top_strings(
            options,
            weights,
            EXACT_COUNTS,
            dict.fromkeys(words, categorical.CATEGORICAL_YES)
            | dict.fromkeys(options.text_columns, categorical.CATEGORICAL_NO),
        ),
    ]
    if options.text_columns:
        left_out = dict.fromkeys(words, categorical.CATEGORICAL_NO)
        generators.append(_top_strings(options, weights, TEXT_COUNTS, left_out))
    return generators


def _top_strings(
    options: StatisticsOptions, weights: ExampleWeightMap, sketch_size: int, categorical: dict[str, int]
) -> TopKUniquesSketchStatsGenerator:
    schema = schema_pb2.Schema()
    for name, value in categorical.items():
        schema.feature.add(name=name, type=schema_pb2.BYTES).string_domain.is_categorical = value
    return TopKUniquesSketchStatsGenerator(
        schema=schema,
        example_weight_map=weights,
        num_top_values=options.num_top_values,
        num_rank_histogram_buckets=options.num_rank_histogram_buckets,
        num_misragries_buckets=sketch_size,
        num_kmv_buckets=EXACT_UNIQUES,
        length_counter_sampling_rate=0.0,  # a Beam counter that nobody reads here, and slow
    )


def to_features(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The form in which TFDV takes rows and in which its CSV decoder makes them.

    Args:
        batch: columns of int64, double, string or null; a missing value is a null.

    Returns:
        The same columns as lists of at most one value; a double as float32, a missing value as a null list.
    """
    return pa.RecordBatch.from_arrays([_to_lists(column) for column in batch.columns], batch.schema.names)


def _to_lists(column: pa.Array) -> pa.Array:
    if pa.types.is_null(column.type):
        return column
    if pa.types.is_float64(column.type):
        column = column.cast(pa.float32())
    return array_util.ToSingletonListArray(column)


class PartialStatistics:
    """What TFDV's generators accumulated from some of the rows of a data set, and from each of its slices.

    Merging the parts of a data set, cut in any way, gives the statistics of the whole: the same numbers of rows,
    missing values, zeros and distinct strings, the same extremes, the same counts of strings up to EXACT_COUNTS of
    them, means and deviations but for rounding, and everything else within the error of TFDV's sketches.
    """

    def __init__(self, options: StatisticsOptions):
        self.options = options
        self.rows = 0
        self._accumulators: dict[Slice | None, list[Any]] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in rows.

        Args:
            batch: columns of int64, double, string or null; a missing value is a null.
        """
        if not batch.num_rows:
            return
        self.rows += batch.num_rows
        self._add(None, batch)
        for column, value in self.options.slices:
            rows = batch.filter(pc.equal(batch.column(batch.schema.get_field_index(column)), value))
            if rows.num_rows:
                self._add((column, value), rows)

    def _add(self, key: Slice | None, batch: pa.RecordBatch) -> None:
        generators = make_generators(self.options)
        accumulators = self._accumulators.get(key) or [generator.create_accumulator() for generator in generators]
        features = to_features(batch)
        self._accumulators[key] = [
            generator.add_input(accumulator, features)
            for generator, accumulator in zip(generators, accumulators, strict=True)
        ]

    def merge(self, other: "PartialStatistics") -> None:
        """Take in what `other` accumulated; `other` must not be used afterwards."""
        self.rows += other.rows
        for key, theirs in other._accumulators.items():
            ours = self._accumulators.get(key)
            self._accumulators[key] = theirs if ours is None else self._merged(ours, theirs)

    def _merged(self, ours: list[Any], theirs: list[Any]) -> list[Any]:
        generators = make_generators(self.options)
        return [generator.merge_accumulators(pair) for generator, *pair in zip(generators, ours, theirs, strict=True)]

    def compact(self) -> None:
        """Shrink the sketches, which makes them cheap to send to another process."""
        generators = make_generators(self.options)
        for key, accumulators in self._accumulators.items():
            self._accumulators[key] = [
                generator.compact(accumulator) for generator, accumulator in zip(generators, accumulators, strict=True)
            ]

    def extract(self, name: str) -> list[statistics_pb2.DatasetFeatureStatistics]:
        """The statistics; the accumulators must not be used afterwards.

        Args:
            name: of the data set.

        Returns:
            The statistics of the data set, named `name`, then those of its slices that have rows, named
            `<name>/<column>_<value>`, in the order of the options.

        Raises:
            StepError: all values of a numeric column have the weight 0, of which TFDV can make no statistics.
        """
        # As TFDV does: a data set without rows has no features either.
        whole = self._extract(None, name) if self.rows else statistics_pb2.DatasetFeatureStatistics(name=name)
        slices = [key for key in self.options.slices if key in self._accumulators]
        return [whole, *(self._extract(key, f"{name}/{slice_name(key)}") for key in slices)]

    def _extract(self, key: Slice | None, name: str) -> statistics_pb2.DatasetFeatureStatistics:
        generators = make_generators(self.options)
        try:
            statistics = stats_impl.extract_statistics_output(self._accumulators[key], generators).datasets[0]
        except AssertionError as error:  # TFDV's median of nothing
            raise StepError(
                f"{name} cannot be weighted: there is a numeric column whose values all have the weight 0 in "
                f"{self.options.weight_column!r}; leave these rows out or give them a small weight"
            ) from error
        statistics.name = name
        return statistics


def accumulate(batches: Iterable[pa.RecordBatch], options: StatisticsOptions) -> PartialStatistics:
    """The partial statistics of a part of a data set."""
    partial = PartialStatistics(options)
    for batch in batches:
        partial.add(batch)
    partial.compact()
    return partial
