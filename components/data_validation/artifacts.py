"""Reads the statistics and schema artifacts that the data validation components hand to each other.

A statistics artifact is a directory with `stats.pb`, a binary `DatasetFeatureStatisticsList` with one entry per split;
slices are further entries named `<split>/<slice>`. A schema artifact is a directory with `schema.pbtxt`.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from kfp_hybrid.step import StepError

STATISTICS_FILE = "stats.pb"
SCHEMA_FILE = "schema.pbtxt"


def read_statistics(artifact: Path) -> dict[str, statistics_pb2.DatasetFeatureStatistics]:
    """The statistics of each split by its name; slices are left out.

    Args:
        artifact: directory of the statistics artifact.

    Raises:
        StepError: the directory holds no statistics, or no split in them.
    """
    file = artifact / STATISTICS_FILE
    if not file.is_file():
        raise StepError(f"no statistics in {artifact}: it has no {STATISTICS_FILE}; give it the output of "
                        "generate_statistics")  # fmt: skip
    try:
        datasets = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes()).datasets
    except DecodeError:
        raise StepError(f"{file} holds no DatasetFeatureStatisticsList; make it with generate_statistics") from None
    splits = {dataset.name: dataset for dataset in datasets if "/" not in dataset.name}
    if not splits:
        raise StepError(f"{file} has statistics of no split; make it again with generate_statistics")
    return splits


def read_schema(artifact: Path) -> schema_pb2.Schema:
    """The schema of a schema artifact.

    Args:
        artifact: directory of the schema artifact.

    Raises:
        StepError: the directory holds no schema, or it is not a schema as text proto.
    """
    file = artifact / SCHEMA_FILE
    if not file.is_file():
        raise StepError(f"no schema in {artifact}: it has no {SCHEMA_FILE}; give it the output of infer_schema")
    return parse_schema(file.read_text(encoding="utf-8"), str(file))


def parse_schema(text: str, source: str) -> schema_pb2.Schema:
    """The schema that a text proto describes.

    Args:
        text: a `tensorflow.metadata.v0.Schema` as text proto.
        source: where the text comes from, for the error message.

    Raises:
        StepError: the text is not a schema; the message says in which line.
    """
    try:
        return text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        raise StepError(f"{source} is not a schema as text proto (line:column {error}); for the fields see "
                        "tensorflow_metadata/proto/v0/schema.proto") from None  # fmt: skip


@contextlib.contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """A directory to fill, which appears under its name only when all of it was written.

    Args:
        directory: the name it gets; what an earlier try left there is replaced.

    Yields:
        The directory to write into, a sibling of `directory`.
    """
    unfinished = directory.with_name(f".{directory.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        shutil.rmtree(directory, ignore_errors=True)
        unfinished.replace(directory)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def feature_name(feature: statistics_pb2.FeatureNameStatistics) -> str:
    """The name that a feature's statistics carry, with the steps of a path joined by dots."""
    return ".".join(feature.path.step) or feature.name


def feature_names(statistics: statistics_pb2.DatasetFeatureStatistics) -> list[str]:
    """The names of all features in a split's statistics, in their order."""
    return [feature_name(feature) for feature in statistics.features]
