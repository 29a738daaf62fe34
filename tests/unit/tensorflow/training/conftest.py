"""Small examples with the statistics and the schema that TFDV would give for them, made without TFDV."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from kfp_hybrid.data.examples import ExamplesWriter

INT, FLOAT, STRING = (getattr(statistics_pb2.FeatureNameStatistics, name) for name in ("INT", "FLOAT", "STRING"))


@dataclasses.dataclass(frozen=True)
class Artifacts:
    """Paths of the three input artifacts of train_model."""

    examples: Path
    statistics: Path
    schema: Path


def feature_statistics(name: str, column: pa.ChunkedArray) -> statistics_pb2.FeatureNameStatistics:
    statistics = statistics_pb2.FeatureNameStatistics()
    statistics.path.step.append(name)
    present = column.drop_null()
    if pa.types.is_string(column.type) or pa.types.is_null(column.type):
        statistics.type = STRING
        common = statistics.string_stats.common_stats
        counts = sorted(((c["values"], c["counts"]) for c in pc.value_counts(present).to_pylist()), key=lambda c: -c[1])
        statistics.string_stats.unique = len(counts)
        for label, count in counts[:1000]:
            statistics.string_stats.rank_histogram.buckets.add(label=label, sample_count=count)
    else:
        statistics.type = INT if pa.types.is_integer(column.type) else FLOAT
        common = statistics.num_stats.common_stats
        if len(present):
            _describe_numbers(statistics.num_stats, present.to_numpy())
    common.num_non_missing = len(present)
    common.num_missing = column.null_count
    common.max_num_values = 1
    return statistics


def _describe_numbers(statistics: statistics_pb2.NumericStatistics, values: np.ndarray) -> None:
    statistics.mean, statistics.std_dev = float(values.mean()), float(values.std())
    statistics.min, statistics.max = float(values.min()), float(values.max())
    limits = np.quantile(values, np.linspace(0, 1, 11))
    quantiles = statistics.histograms.add(type=statistics_pb2.Histogram.QUANTILES)
    for low, high in itertools.pairwise(limits):
        quantiles.buckets.add(low_value=low, high_value=high, sample_count=len(values) / 10)


def dataset_statistics(split: str, table: pa.Table) -> statistics_pb2.DatasetFeatureStatistics:
    dataset = statistics_pb2.DatasetFeatureStatistics(name=split, num_examples=table.num_rows)
    dataset.features.extend(feature_statistics(name, table[name]) for name in table.column_names)
    return dataset


def inferred_schema(table: pa.Table, overrides: str = "") -> schema_pb2.Schema:
    """The schema of a table; a text proto is merged into it, feature by feature."""
    schema = schema_pb2.Schema()
    for field in table.schema:
        is_int, is_float = pa.types.is_integer(field.type), pa.types.is_floating(field.type)
        type_ = schema_pb2.INT if is_int else schema_pb2.FLOAT if is_float else schema_pb2.BYTES
        schema.feature.add(name=field.name, type=type_)
    merged = text_format.Parse(overrides, schema_pb2.Schema())
    for feature in merged.feature:
        next(known for known in schema.feature if known.name == feature.name).MergeFrom(feature)
    del merged.feature[:]
    schema.MergeFrom(merged)
    return schema


def write_artifacts(folder: Path, splits: dict[str, dict[str, Any]], schema: str = "") -> Artifacts:
    """Write examples, statistics and schema.

    Args:
        folder: where to.
        splits: split -> column -> values.
        schema: text proto that is merged into the inferred schema.
    """
    tables = {name: pa.table(columns) for name, columns in splits.items()}
    train = next(iter(tables.values()))
    tables = {name: table.cast(train.schema) for name, table in tables.items()}
    types = {field.name: str(field.type) for field in train.schema}
    with ExamplesWriter(folder / "examples", types, splits=list(tables)) as writer:
        for name, table in tables.items():
            for batch in table.to_batches():
                writer.write(name, batch)
    datasets = statistics_pb2.DatasetFeatureStatisticsList()
    datasets.datasets.extend(dataset_statistics(name, table) for name, table in tables.items())
    (folder / "statistics").mkdir()
    (folder / "statistics" / "stats.pb").write_bytes(datasets.SerializeToString())
    (folder / "schema").mkdir()
    (folder / "schema" / "schema.pbtxt").write_text(
        text_format.MessageToString(inferred_schema(train, schema)), encoding="utf-8"
    )
    return Artifacts(folder / "examples", folder / "statistics", folder / "schema")


def flights(rows: int, seed: int = 0) -> dict[str, Any]:
    """Rows whose label depends on a number, a category and on a number being missing."""
    random = np.random.default_rng(seed)
    delay = random.normal(0, 10, rows)
    carrier = random.choice(["AA", "UA", "B6", "ünï"], rows)
    wind = random.gamma(2.0, 5.0, rows)
    without_wind = random.random(rows) < 0.2
    logit = 0.3 * delay + 2.0 * (carrier == "AA") + 1.5 * without_wind - 0.5
    late = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    without_carrier = random.random(rows) < 0.1
    return {
        "delay": np.round(delay).astype(np.int64),
        "wind": pa.array(wind, mask=without_wind),
        "carrier": pa.array(carrier, mask=without_carrier),
        "weekday": random.integers(0, 7, rows),
        "late": late,
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Artifacts]:
    """`write_artifacts` into the test's folder."""
    return lambda splits, schema="", folder="in": write_artifacts(_made(tmp_path / folder), splits, schema)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def flight_artifacts(write: Callable[..., Artifacts]) -> Artifacts:
    """4,000 training and 1,000 eval rows of `flights`; weekday is categorical, late is not known when serving."""
    schema = """
        default_environment: "TRAINING" default_environment: "SERVING"
        feature { name: "weekday" int_domain { is_categorical: true } }
        feature { name: "late" not_in_environment: "SERVING" }
    """
    return write({"train": flights(4000), "eval": flights(1000, seed=1)}, schema)


@pytest.fixture
def make_flights() -> Callable[..., dict[str, Any]]:
    """`flights`."""
    return flights


@pytest.fixture
def describe() -> Callable[[dict[str, Any]], statistics_pb2.DatasetFeatureStatistics]:
    """Statistics of columns."""
    return lambda columns: dataset_statistics("train", pa.table(columns))


@pytest.fixture
def infer() -> Callable[..., schema_pb2.Schema]:
    """Schema of columns, with a text proto merged into it."""
    return lambda columns, overrides="": inferred_schema(pa.table(columns), overrides)
