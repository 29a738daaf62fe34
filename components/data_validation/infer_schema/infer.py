"""Infers a schema from the statistics of the training split, and compares it with a curated one if there is any."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from kfp_hybrid.components.data_validation import artifacts
from kfp_hybrid.components.data_validation.infer_schema import constraints as json_constraints
from kfp_hybrid.components.data_validation.infer_schema import overrides as proto_overrides
from kfp_hybrid.components.data_validation.infer_schema.differences import differences
from kfp_hybrid.step import StepError

DIFFERENCES_FILE = "diff.txt"


@dataclass(frozen=True)
class Inference:
    """What became of the schema: the number of its features, and of its differences from the data's when curated."""

    features: int
    differences: int | None


def infer_schema(
    statistics: Path,
    schema: Path,
    split: str = "train",
    constraints: Mapping[str, Any] | None = None,
    schema_overrides: str = "",
    curated_schema: Path | None = None,
    curated_schema_text: str = "",
    max_domain_size: int = 100,
) -> Inference:
    """Write a schema artifact: `schema.pbtxt`, and `diff.txt` when a curated schema was given.

    Args:
        statistics: directory of the statistics artifact.
        schema: directory to write; it appears whole or not at all.
        split: the split whose statistics the schema is inferred from.
        constraints: demands beyond what the data show, see `docs.md`.
        schema_overrides: a partial schema as text proto that wins over inference and constraints.
        curated_schema: directory of a schema artifact to keep instead of the inferred one.
        curated_schema_text: the same as text proto, or the path of a file or directory that has it.
        max_domain_size: a text feature with more distinct values than this gets no domain.

    Returns:
        The counts for the artifact's metadata.

    Raises:
        StepError: an input that is missing or wrong, in one line.
    """
    chosen = _split(artifacts.read_statistics(statistics), split, statistics)
    features = {artifacts.feature_name(feature): feature.type for feature in chosen.features}
    wanted = constraints or {}
    json_constraints.check(wanted, features)
    override = artifacts.parse_schema(schema_overrides, "schema_overrides")
    proto_overrides.check(override, features)
    curated = _curated(curated_schema, curated_schema_text)
    if max_domain_size < 0:
        raise StepError(f"max_domain_size is {max_domain_size}; it must be 0 or more")

    inferred = _infer(chosen, max_domain_size)
    json_constraints.apply(wanted, inferred)
    proto_overrides.merge(inferred, override)
    _check_comparators(inferred)
    if curated is None:
        _write(schema, inferred, None)
        logging.info("inferred a schema of %d features from split %s", len(inferred.feature), split)
        return Inference(len(inferred.feature), None)
    lines = differences(curated, inferred)
    _write(schema, curated, lines)
    _report_differences(lines, curated, split)
    return Inference(len(curated.feature), len(lines))


def _split(splits: Mapping[str, statistics_pb2.DatasetFeatureStatistics], split: str, source: Path
           ) -> statistics_pb2.DatasetFeatureStatistics:  # fmt: skip
    if split not in splits:
        raise StepError(f"no split {split!r} in the statistics {source}; set split to one of: {', '.join(splits)}")
    if not splits[split].num_examples:
        raise StepError(f"split {split!r} has no rows, so there is nothing to infer a schema from; check the split "
                        "ratios and filters of ingest_examples")  # fmt: skip
    return splits[split]


def _infer(statistics: statistics_pb2.DatasetFeatureStatistics, max_domain_size: int) -> schema_pb2.Schema:
    import tensorflow_data_validation as tfdv

    return tfdv.infer_schema(
        statistics_pb2.DatasetFeatureStatisticsList(datasets=[statistics]), max_string_domain_size=max_domain_size
    )


def _curated(artifact: Path | None, text: str) -> schema_pb2.Schema | None:
    if artifact is not None and text:
        raise StepError("curated_schema and curated_schema_text are both given; give one of the two")
    if artifact is not None:
        return artifacts.read_schema(artifact)
    if not text.strip():
        return None
    if any(mark in text for mark in "{\n:"):
        return artifacts.parse_schema(text, "curated_schema_text")
    path = Path(text.strip())
    if path.is_dir():
        return artifacts.read_schema(path)
    if not path.is_file():
        raise StepError(f"curated_schema_text is neither a schema as text proto nor a file that exists: {text.strip()}")
    return artifacts.parse_schema(path.read_text(encoding="utf-8"), str(path))


def _check_comparators(schema: schema_pb2.Schema) -> None:
    useless = proto_overrides.comparators_that_measure_nothing(schema)
    if useless:
        raise StepError(f"schema_overrides compares the numbers of {', '.join(useless)} by infinity_norm or normalized_"
                        "abs_difference, which is always 0 for numbers; use jensen_shannon_divergence")  # fmt: skip


def _report_differences(lines: list[str], curated: schema_pb2.Schema, split: str) -> None:
    logging.info("kept the curated schema of %d features; %d differences from the data of split %s%s",
                 len(curated.feature), len(lines), split, ":" if lines else "")  # fmt: skip
    for line in lines:
        logging.info("  %s", line)
    for name in proto_overrides.comparators_that_measure_nothing(curated):
        logging.warning("the curated schema compares the numbers of %s by infinity_norm or normalized_abs_difference, "
                        "which is always 0 for numbers; use jensen_shannon_divergence", name)  # fmt: skip


def _write(directory: Path, schema: schema_pb2.Schema, lines: list[str] | None) -> None:
    with artifacts.new_directory(directory) as unfinished:
        text = text_format.MessageToString(schema, as_utf8=True)
        (unfinished / artifacts.SCHEMA_FILE).write_text(text, encoding="utf-8")
        if lines is not None:
            (unfinished / DIFFERENCES_FILE).write_text(_difference_text(lines), encoding="utf-8")


def _difference_text(lines: list[str]) -> str:
    if not lines:
        return "The curated schema and the data agree.\n"
    return "\n".join(["- only in the curated schema, + only in the data, ~ differs", "", *lines]) + "\n"
