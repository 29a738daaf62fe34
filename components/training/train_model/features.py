"""Choosing features and their constants from what is already known: the statistics and the schema.

Nothing here reads the examples. Means, deviations and deciles come from the numeric statistics of the
training split, vocabularies from the schema's domains or the rank histogram of the string statistics.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from kfp_hybrid.preprocessing import TASKS, Categorical, Label, Numeric, Preprocessing
from kfp_hybrid.step import StepError

STATISTICS_FILE = "stats.pb"
SCHEMA_FILE = "schema.pbtxt"
SERVING = "SERVING"

IDENTIFIER_SHARE = 0.5  # a string column with more distinct values than this share of its rows names the row
IDENTIFIER_ROWS = 100  # ... unless there are so few rows that the share says nothing
MAX_CLASSES = 1000
FEW_INTEGERS = 20  # a label with so few values may have been meant as classes

_NUMBERS = (statistics_pb2.FeatureNameStatistics.FLOAT, statistics_pb2.FeatureNameStatistics.INT)
_INT = statistics_pb2.FeatureNameStatistics.INT


def read_statistics(directory: str | Path, split: str) -> statistics_pb2.DatasetFeatureStatistics:
    """Read the statistics of one split.

    Args:
        directory: a statistics artifact.
        split: name of the split.

    Raises:
        StepError: the artifact cannot be read, or has no such split.
    """
    file = Path(directory) / STATISTICS_FILE
    try:
        statistics = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes())
    except OSError as error:
        raise StepError(
            f"{file}: cannot be read ({error.strerror}); expected the output of generate_statistics"
        ) from None
    except DecodeError:
        raise StepError(f"{file}: is not a DatasetFeatureStatisticsList; run generate_statistics again") from None
    by_split = {dataset.name: dataset for dataset in statistics.datasets}
    if split not in by_split:
        raise StepError(f"{file}: has no statistics of split {split!r}, only of {', '.join(by_split) or 'nothing'}")
    return by_split[split]


def read_schema(directory: str | Path) -> schema_pb2.Schema:
    """Read a schema artifact.

    Raises:
        StepError: the artifact cannot be read as a text proto.
    """
    file = Path(directory) / SCHEMA_FILE
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), schema_pb2.Schema())
    except OSError as error:
        raise StepError(f"{file}: cannot be read ({error.strerror}); expected the output of infer_schema") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise StepError(f"{file}: is not a Schema text proto: {str(error).splitlines()[0]}") from None


def make_preprocessing(
    statistics: statistics_pb2.DatasetFeatureStatistics,
    schema: schema_pb2.Schema,
    label: str,
    task: str = "auto",
    features: Sequence[str] = (),
    max_vocabulary: int = 1000,
) -> Preprocessing:
    """Choose features and derive all constants of the preprocessing.

    Args:
        statistics: statistics of the training split.
        schema: the schema. Its domains give vocabularies, its environments say what is known when serving.
        label: name of the label column.
        task: "binary", "multiclass", "regression", or "auto" (see `choose_task`).
        features: the only features to use; all suitable ones when empty.
        max_vocabulary: a string feature with more distinct values is left out, unless the schema lists its values or
            `features` names it (then the most frequent values are its vocabulary).

    Raises:
        StepError: the label is unknown or useless, a requested feature cannot be used, or no feature is left.
    """
    known = {".".join(s.path.step) or s.name: s for s in statistics.features}
    described = {feature.name: feature for feature in schema.feature}
    for where, names in (("the schema", described), ("the statistics of the training split", known)):
        if label not in names:
            raise StepError(
                f"label {label!r} is not in {where}, which has {', '.join(names)}; set `label` to one of these"
            )
    candidates = feature_candidates(schema, label, features)
    if absent := [name for name in candidates if name not in known]:
        raise StepError(
            f"feature {absent[0]!r} is in the schema but not in the statistics of the training split; "
            "make both from the same examples, or name the `features` to use"
        )
    task = choose_task(known[label], described[label], task)
    numeric, categorical = [], []
    for name in candidates:
        if reason := _unusable(known[name], described[name], schema, name in features, max_vocabulary):
            if name in features:
                raise StepError(f"feature {name!r} cannot be used: {reason}; take it out of `features`")
            logging.info("feature %s is left out: %s", name, reason)
        elif _is_categorical(known[name], described[name]):
            values = _vocabulary(known[name], described[name], schema)
            type_ = "int" if known[name].type == _INT else "string"
            limit = len(values) if _domain(described[name], schema) else max_vocabulary
            categorical.append(Categorical(name, type_, tuple(values[:limit])))
        else:
            numeric.append(_numeric(name, known[name].num_stats))
    if not numeric and not categorical:
        raise StepError("no feature is left to train on; see the log for why each was left out, or set `features`")
    described_label = _label(label, known[label], described[label], schema, task)
    preprocessing = Preprocessing(task, described_label, tuple(numeric), tuple(categorical))
    preprocessing.validate()
    return preprocessing


def choose_task(label: statistics_pb2.FeatureNameStatistics, feature: schema_pb2.Feature, task: str = "auto") -> str:
    """The task that a label asks for: what the user says, or what its type and values suggest.

    A string label is binary with two values and multiclass with more; an integer label is binary when all its values
    are two neighbours such as 0 and 1, and multiclass when the schema marks it as categorical; every other number is a
    regression.

    Raises:
        StepError: `task` is unknown, or regression is asked of a label that is not a number.
    """
    if task not in ("auto", *TASKS):
        raise StepError(f"parameter task is {task!r}, must be auto, {', '.join(TASKS)}")
    if task == "regression" and label.type not in _NUMBERS:
        raise StepError(f"label {feature.name!r} is not a number, so it cannot be the target of a regression")
    if task != "auto":
        return task
    if label.HasField("string_stats"):
        return "binary" if label.string_stats.unique <= 2 else "multiclass"
    low, high = label.num_stats.min, label.num_stats.max
    if label.type == _INT and high - low == 1:
        return "binary"
    if _is_categorical(label, feature):
        return "multiclass"
    if label.type == _INT and high - low < FEW_INTEGERS:
        logging.warning(
            "label %s holds integers from %d to %d and is taken for a number; if they are classes, set task=multiclass",
            *(feature.name, low, high),
        )
    return "regression"


def feature_candidates(schema: schema_pb2.Schema, label: str, features: Sequence[str] = ()) -> list[str]:
    """Features that are known when serving, without the label, limited to `features`, in the order of the schema.

    Raises:
        StepError: `features` names the label, or a feature that is not in the schema or not known when serving.
    """
    names = [f.name for f in schema.feature if f.name != label and _in_serving(f, schema)]
    for name in features:
        if name == label:
            raise StepError(f"parameter features names the label {label!r}")
        if name not in {f.name for f in schema.feature}:
            raise StepError(f"parameter features names {name!r}, which is not in the schema")
        if name not in names:
            raise StepError(f"parameter features names {name!r}, which the schema says is unknown when serving")
    return [name for name in names if not features or name in features]


def _in_serving(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> bool:
    if feature.lifecycle_stage in (schema_pb2.DEPRECATED, schema_pb2.PLANNED, schema_pb2.DISABLED):
        return False
    if SERVING in feature.in_environment:
        return True
    if SERVING in feature.not_in_environment:
        return False
    named = {e for f in schema.feature for e in (*f.in_environment, *f.not_in_environment)}
    return SERVING in schema.default_environment or SERVING not in named


def _is_categorical(statistics: statistics_pb2.FeatureNameStatistics, feature: schema_pb2.Feature) -> bool:
    if statistics.HasField("string_stats"):
        return True
    return statistics.type == _INT and feature.int_domain.is_categorical


def _unusable(
    statistics: statistics_pb2.FeatureNameStatistics,
    feature: schema_pb2.Feature,
    schema: schema_pb2.Schema,
    requested: bool,
    max_vocabulary: int,
) -> str:
    """Why a feature cannot be used, or an empty string."""
    present = _common(statistics).num_non_missing
    if not present:
        return "it has no value in the training split"
    if _common(statistics).max_num_values > 1:
        return "it has several values in a row"
    if not _is_categorical(statistics, feature):
        if statistics.type not in _NUMBERS:
            return "it is neither a number nor a string"
        finite = math.isfinite(statistics.num_stats.mean) and math.isfinite(statistics.num_stats.std_dev)
        return "" if finite else "its mean is not finite, so it holds infinite or enormous values"
    if _domain(feature, schema):
        return ""
    distinct = _distinct(statistics)
    if statistics.type == _INT and distinct > max_vocabulary:
        return f"it is categorical and spans {distinct} integers, more than max_vocabulary ({max_vocabulary})"
    if requested:
        return ""
    if present >= IDENTIFIER_ROWS and distinct > IDENTIFIER_SHARE * present:
        return f"{distinct} distinct values in {present} rows, it looks like an identifier"
    if distinct > max_vocabulary:
        return f"{distinct} distinct values, more than max_vocabulary ({max_vocabulary})"
    return ""


def _common(statistics: statistics_pb2.FeatureNameStatistics) -> statistics_pb2.CommonStatistics:
    kind = statistics.WhichOneof("stats")
    return getattr(statistics, kind).common_stats if kind else statistics_pb2.CommonStatistics()


def _distinct(statistics: statistics_pb2.FeatureNameStatistics) -> int:
    if statistics.HasField("string_stats"):
        return statistics.string_stats.unique
    return int(statistics.num_stats.max - statistics.num_stats.min) + 1


def _domain(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> list[str]:
    """The values that the schema lists for a feature; empty when it lists none."""
    if feature.HasField("string_domain"):
        return _unique(feature.string_domain.value)
    if feature.HasField("domain"):
        return _unique(next((d.value for d in schema.string_domain if d.name == feature.domain), []))
    bounded = (
        feature.HasField("int_domain") and feature.int_domain.HasField("min") and feature.int_domain.HasField("max")
    )
    if bounded and feature.int_domain.max - feature.int_domain.min < MAX_CLASSES:
        return [str(value) for value in range(feature.int_domain.min, feature.int_domain.max + 1)]
    return []


def _vocabulary(
    statistics: statistics_pb2.FeatureNameStatistics, feature: schema_pb2.Feature, schema: schema_pb2.Schema
) -> list[str]:
    """The known values: of the schema, or of the statistics with the most frequent first."""
    if listed := _domain(feature, schema):
        return listed
    if statistics.HasField("string_stats"):
        ranked = [bucket.label for bucket in statistics.string_stats.rank_histogram.buckets]
        return _unique(ranked or [top.value for top in statistics.string_stats.top_values])
    return [str(value) for value in range(int(statistics.num_stats.min), int(statistics.num_stats.max) + 1)]


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))


def _numeric(name: str, statistics: statistics_pb2.NumericStatistics) -> Numeric:
    mean, std = _scale(statistics)
    return Numeric(name=name, mean=mean, std=std, missing=mean, boundaries=_deciles(statistics))


def _scale(statistics: statistics_pb2.NumericStatistics) -> tuple[float, float]:
    """Mean and standard deviation; the deviation of a constant is 1, so that it can be divided by."""
    std = statistics.std_dev if np.float32(statistics.std_dev) > 0 else 1.0
    return statistics.mean, std


def _deciles(statistics: statistics_pb2.NumericStatistics) -> tuple[float, ...]:
    """Inner limits of the quantile histogram, at most 9 and without those that float32 cannot tell apart."""
    for histogram in statistics.histograms:
        if histogram.type == statistics_pb2.Histogram.QUANTILES:
            count = len(histogram.buckets)
            last = {count * i // 10 for i in range(1, 10)} - {0}  # buckets below each decile
            limits = np.asarray([histogram.buckets[i - 1].high_value for i in sorted(last)], np.float32)
            return tuple(np.unique(limits[np.isfinite(limits)]).tolist())
    return ()


def _label(
    name: str,
    statistics: statistics_pb2.FeatureNameStatistics,
    feature: schema_pb2.Feature,
    schema: schema_pb2.Schema,
    task: str,
) -> Label:
    common = _common(statistics)
    if not common.num_non_missing:
        raise StepError(f"label {name!r} has no value in the training split")
    if common.num_missing:
        raise StepError(
            f"label {name!r} is missing in {common.num_missing} of {common.num_missing + common.num_non_missing} rows "
            "of the training split; take these rows out of the source"
        )
    if statistics.type in _NUMBERS and not statistics.HasField("string_stats"):
        numbers = statistics.num_stats
        if numbers.min == numbers.max:
            raise StepError(f"label {name!r} is {numbers.min:g} in every training row; there is nothing to learn")
        if task == "regression":
            mean, std = _scale(numbers)
            if not (math.isfinite(mean) and math.isfinite(std)):
                raise StepError(f"label {name!r} holds values that are not finite; leave these rows out when ingesting")
            return Label(name, (), mean, std)
    classes = _classes(statistics, feature, schema, task)
    if len(classes) == 1:
        raise StepError(f"label {name!r} is {classes[0]!r} in every training row; there is nothing to learn")
    if task == "binary" and len(classes) != 2:
        raise StepError(
            f"label {name!r} has {len(classes)} values, so its task cannot be binary; set `task` to multiclass"
        )
    if len(classes) > MAX_CLASSES:
        raise StepError(f"label {name!r} has {len(classes)} values, more than {MAX_CLASSES}; is it an identifier?")
    return Label(name, tuple(classes))


def _classes(
    statistics: statistics_pb2.FeatureNameStatistics, feature: schema_pb2.Feature, schema: schema_pb2.Schema, task: str
) -> list[str] | list[int]:
    if statistics.HasField("string_stats") and statistics.type != _INT:
        # The order of a domain is the user's; a rank histogram's changes with the data, so it is sorted.
        return _domain(feature, schema) or sorted(_vocabulary(statistics, feature, schema))
    if statistics.HasField("string_stats"):
        return sorted(int(value) for value in _vocabulary(statistics, feature, schema))
    low, high = int(statistics.num_stats.min), int(statistics.num_stats.max)
    if task == "binary":
        return [low, high]  # also for labels such as -1 and 1; any other value is refused when labels are read
    if high - low >= MAX_CLASSES:
        raise StepError(f"label {feature.name!r} spans {high - low + 1} integers, more than {MAX_CLASSES} classes")
    return list(range(low, high + 1))
