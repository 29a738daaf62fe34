"""Validates statistics against a schema and against the statistics of other data, and decides whether they may pass."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from kfp_hybrid.components.data_validation import artifacts
from kfp_hybrid.components.data_validation.validate_statistics.severity import (
    DEFAULT_WARNINGS,
    ERROR,
    IGNORE,
    WARNING,
    severity_of,
)
from kfp_hybrid.reports.text import elide
from kfp_hybrid.step import StepError

DRIFT, SKEW = "drift", "skew"
NO_ROWS = "NO_DATA_IN_SPAN"
_NOTHING_TO_CHECK = (NO_ROWS, "SCHEMA_MISSING_COLUMN", "FEATURE_TYPE_NOT_PRESENT")
_LONGEST_REASON = 400
# The largest value of L-infinity and Jensen-Shannon is 1, so that this threshold measures and never complains.
_MEASURE_ONLY = 2.0


@dataclass(frozen=True, eq=False)
class Side:
    """A data set that takes part: a split of this run, or what it is compared with."""

    name: str
    statistics: statistics_pb2.DatasetFeatureStatistics


@dataclass(frozen=True, eq=False)
class Comparison:
    """Newer data, a split of this run, against older data (drift) or serving data (skew)."""

    kind: str
    newer: Side
    older: Side


@dataclass(frozen=True)
class Finding:
    """One anomaly; `feature` is empty when it concerns the whole split, `comparison` None when the schema found it."""

    split: str
    feature: str
    kind: str
    title: str
    description: str
    comparison: Comparison | None = None
    severity: str = ERROR


@dataclass(frozen=True)
class Distance:
    """How far a feature moved between two data sets, 0 to 1; the threshold is None where the schema has none."""

    feature: str
    comparison: Comparison
    measure: str
    value: float
    threshold: float | None

    @property
    def exceeded(self) -> bool:
        """Whether the distance is above the threshold."""
        return self.threshold is not None and self.value > self.threshold


@dataclass(frozen=True)
class Validation:
    """Everything that was found out; `findings` are ordered, the worst first, and have no ignored ones."""

    schema: schema_pb2.Schema
    environment: str
    splits: Sequence[Side]
    comparisons: Sequence[Comparison]
    findings: Sequence[Finding]
    distances: Sequence[Distance]
    ignored: int

    @property
    def valid(self) -> bool:
        """Whether no anomaly is an error."""
        return self.count(ERROR) == 0

    def count(self, severity: str) -> int:
        """The number of anomalies of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def reason(self) -> str:
        """One sentence that says what was found and names the worst feature and its split."""
        return elide(" ".join(_reason(self).split()), _LONGEST_REASON)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the anomalies artifact says about itself."""
        return {"valid": self.valid, "errors": self.count(ERROR), "warnings": self.count(WARNING)}

    @property
    def metrics(self) -> dict[str, float]:
        """Counts, and the largest distances."""
        numbers: dict[str, float] = {
            "errors": self.count(ERROR),
            "warnings": self.count(WARNING),
            "ignored": self.ignored,
            "features_with_anomalies": len({finding.feature for finding in self.findings if finding.feature}),
        }
        for kind in (DRIFT, SKEW):
            values = [distance.value for distance in self.distances if distance.comparison.kind == kind]
            if values:
                numbers[f"largest_{kind}_distance"] = round(max(values), 6)
        return numbers


def validate_statistics(
    statistics: Path,
    schema: Path,
    environment: str = "",
    serving_statistics: Path | None = None,
    previous_statistics: Path | None = None,
    drift_splits: Mapping[str, str] | None = None,
    severity: Mapping[str, Any] | None = None,
) -> Validation:
    """Validate every split.

    Args:
        statistics: directory of the statistics artifact.
        schema: directory of the schema artifact.
        environment: one of the schema's environments; empty validates all features.
        serving_statistics: statistics of serving data, to detect skew.
        previous_statistics: statistics of a previous span, to detect drift.
        drift_splits: a split and the older split of the same run that it is compared with.
        severity: see `severity.severity_of`.

    Raises:
        StepError: an input that is missing or wrong, in one line.
    """
    splits = artifacts.read_statistics(statistics)
    promised = artifacts.read_schema(schema)
    if environment and environment not in promised.default_environment:
        valid = ", ".join(promised.default_environment) or "none; define them with infer_schema"
        raise StepError(f"no environment {environment!r} in the schema; its environments: {valid}")
    sides = [Side(name, split) for name, split in splits.items()]
    comparisons = [
        *_with_others(DRIFT, "previous", sides, previous_statistics),
        *_with_splits(sides, drift_splits or {}),
        *_with_others(SKEW, "serving", sides, serving_statistics),
    ]
    names = dict.fromkeys(f.name for f in promised.feature)
    for split in splits.values():
        names |= dict.fromkeys(artifacts.feature_names(split))
    rate = severity_of(severity or {}, names)

    found, distances = _check(sides, comparisons, promised, environment)
    rated = [replace(finding, severity=rate(finding.feature, finding.kind)) for finding in found]
    kept = _worst_first((finding for finding in rated if finding.severity != IGNORE), distances)
    return Validation(promised, environment, sides, comparisons, kept, distances, len(rated) - len(kept))


def write_anomalies(validation: Validation, directory: Path) -> None:
    """Write `<split>.pbtxt`, a `tensorflow.metadata.v0.Anomalies`, for every split; the directory appears whole."""
    with artifacts.new_directory(directory) as unfinished:
        for side in validation.splits:
            proto = _proto([f for f in validation.findings if f.split == side.name],
                           [d for d in validation.distances if d.comparison.newer is side])  # fmt: skip
            proto.baseline.CopyFrom(validation.schema)
            text = text_format.MessageToString(proto, as_utf8=True)
            (unfinished / f"{side.name}.pbtxt").write_text(text, encoding="utf-8")


def log(validation: Validation) -> None:
    """Log every anomaly, the worst first, and the reason."""
    for finding in validation.findings:
        logging.log(logging.ERROR if finding.severity == ERROR else logging.WARNING, "%s, %s: %s (%s)", finding.split,
                    finding.feature or "all features", finding.description, finding.kind)  # fmt: skip
    logging.info("%s: %s", "valid" if validation.valid else "not valid", validation.reason)


def _with_others(kind: str, title: str, sides: Sequence[Side], artifact: Path | None) -> list[Comparison]:
    """Each split against the split of the same name in another run's statistics, or against its only split."""
    if artifact is None:
        return []
    others = artifacts.read_statistics(artifact)
    older = {name: Side(title if len(others) == 1 else f"{title} {name}", split) for name, split in others.items()}
    comparisons = []
    for side in sides:
        name = side.name if side.name in others else next(iter(others)) if len(others) == 1 else None
        if name is None:
            logging.warning("split %s is not checked for %s: the %s statistics have only %s", side.name, kind, title,
                            ", ".join(others))  # fmt: skip
            continue
        comparisons.append(Comparison(kind, side, older[name]))
    if not comparisons:
        raise StepError(f"the {title} statistics have the splits {', '.join(others)}, and this run has "
                        f"{', '.join(side.name for side in sides)}; at least one name must agree")  # fmt: skip
    return comparisons


def _with_splits(sides: Sequence[Side], drift_splits: Mapping[str, str]) -> list[Comparison]:
    by_name = {side.name: side for side in sides}
    for newer, older in drift_splits.items():
        for name in (newer, older):
            if name not in by_name:
                raise StepError(f"no split {name!r} for drift_splits in the statistics; valid: {', '.join(by_name)}")
        if newer == older:
            raise StepError(f"drift_splits compares split {newer!r} with itself; name an older split")
    return [Comparison(DRIFT, by_name[newer], by_name[older]) for newer, older in drift_splits.items()]


def _check(sides: Sequence[Side], comparisons: Sequence[Comparison], schema: schema_pb2.Schema, environment: str
           ) -> tuple[list[Finding], list[Distance]]:  # fmt: skip
    findings: list[Finding] = []
    distances: list[Distance] = []
    for side in sides:
        against_schema = _findings(side, _anomalies(side, schema, environment), None)
        findings += against_schema
        known = {(f.feature, f.kind, f.description) for f in against_schema}
        for comparison in (c for c in comparisons if c.newer is side):
            anomalies = _anomalies(side, schema, environment, comparison)
            if anomalies.data_missing:
                continue
            new = _findings(side, anomalies, comparison)
            findings += [f for f in new if (f.feature, f.kind, f.description) not in known]
            distances += _distances(comparison, schema, environment)
    return findings, distances


def _anomalies(side: Side, schema: schema_pb2.Schema, environment: str, comparison: Comparison | None = None
               ) -> anomalies_pb2.Anomalies:  # fmt: skip
    import tensorflow_data_validation as tfdv

    older = _alone(comparison.older) if comparison else None
    return tfdv.validate_statistics(
        _alone(side),
        schema,
        environment=environment or None,
        previous_statistics=older if comparison and comparison.kind == DRIFT else None,
        serving_statistics=older if comparison and comparison.kind == SKEW else None,
    )


def _alone(side: Side) -> statistics_pb2.DatasetFeatureStatisticsList:
    return statistics_pb2.DatasetFeatureStatisticsList(datasets=[side.statistics])


def _findings(side: Side, anomalies: anomalies_pb2.Anomalies, comparison: Comparison | None) -> list[Finding]:
    if anomalies.data_missing:
        return [Finding(side.name, "", NO_ROWS, "No rows", "The split has no rows.")]
    infos = [(".".join(info.path.step) or key, info) for key, info in sorted(anomalies.anomaly_info.items())]
    if anomalies.HasField("dataset_anomaly_info"):
        infos.append(("", anomalies.dataset_anomaly_info))
    return [Finding(side.name, feature, anomalies_pb2.AnomalyInfo.Type.Name(reason.type),
                    _in_words(reason.short_description, comparison), _in_words(reason.description, comparison),
                    comparison) for feature, info in infos for reason in info.reason]  # fmt: skip


def _in_words(text: str, comparison: Comparison | None) -> str:
    """TFDV's description without its jargon, and with the names of what was compared."""
    text = re.sub(r"\s*\(up ?to six significant digits\)", "", text)
    text = text.replace("Linfty", "L-infinity").replace("approximate Jensen", "Jensen").strip()
    if comparison is not None:
        names = f"between {comparison.newer.name} and {comparison.older.name}"
        text = re.sub("between (current and previous|training and serving)", lambda _: names, text)
        text = re.sub("(?<![A-Za-z])previous data", lambda _: f"{comparison.older.name} data", text)
    return text


def _distances(comparison: Comparison, schema: schema_pb2.Schema, environment: str) -> list[Distance]:
    """The distance of every feature, also of those that the schema compares with nothing."""
    measured = schema_pb2.Schema()
    measured.CopyFrom(schema)
    field = f"{comparison.kind}_comparator"
    unlimited = {feature.name for feature in measured.feature if not feature.HasField(field)}
    for feature in measured.feature:
        if feature.name in unlimited:
            measure = "infinity_norm" if feature.type == schema_pb2.BYTES else "jensen_shannon_divergence"
            getattr(getattr(feature, field), measure).threshold = _MEASURE_ONLY
    distances = []
    for info in _anomalies(comparison.newer, measured, environment, comparison).drift_skew_info:
        name = ".".join(info.path.step)
        for one in info.drift_measurements if comparison.kind == DRIFT else info.skew_measurements:
            measure = anomalies_pb2.DriftSkewInfo.Measurement.Type.Name(one.type)
            threshold = None if name in unlimited else one.threshold
            distances.append(Distance(name, comparison, measure, one.value, threshold))
    return distances


def _worst_first(findings: Iterable[Finding], distances: Iterable[Distance]) -> list[Finding]:
    moved = {(d.feature, d.comparison): d.value for d in distances}

    def weight(finding: Finding) -> float:
        if finding.kind in _NOTHING_TO_CHECK:
            return 2.0
        if finding.comparison is not None:
            return moved.get((finding.feature, finding.comparison), 0.0)
        return 0.0 if finding.kind in DEFAULT_WARNINGS else 1.0

    return sorted(findings, key=lambda f: (f.severity != ERROR, -weight(f), f.split, f.feature, f.kind))


def _reason(validation: Validation) -> str:
    errors, warnings = validation.count(ERROR), validation.count(WARNING)
    names = [side.name for side in validation.splits]
    where = f"split {names[0]}" if len(names) == 1 else f"splits {', '.join(names[:-1])} and {names[-1]}"
    if not validation.findings:
        return f"No anomalies in {where}: all {len(validation.schema.feature)} features agree with the schema."
    worst = validation.findings[0]
    subject = f"feature {worst.feature} of split {worst.split}" if worst.feature else f"split {worst.split}"
    counts = [_counted(n, noun) for n, noun in ((errors, "error"), (warnings, "warning")) if n]
    what = worst.description[:1].lower() + worst.description[1:].rstrip(".")
    return f"{' and '.join(counts)} in {where}; the worst is {subject}: {what}."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _proto(findings: Sequence[Finding], distances: Sequence[Distance]) -> anomalies_pb2.Anomalies:
    proto = anomalies_pb2.Anomalies(anomaly_name_format=anomalies_pb2.Anomalies.SERIALIZED_PATH)
    proto.data_missing = any(finding.kind == NO_ROWS for finding in findings)
    for feature, count in Counter(finding.feature for finding in findings).items():
        info = proto.anomaly_info[feature] if feature else proto.dataset_anomaly_info
        if feature:
            info.path.step.append(feature)
        own = [finding for finding in findings if finding.feature == feature]
        worst = any(finding.severity == ERROR for finding in own)
        info.severity = anomalies_pb2.AnomalyInfo.ERROR if worst else anomalies_pb2.AnomalyInfo.WARNING
        info.short_description = own[0].title if count == 1 else "Multiple anomalies"
        info.description = " ".join(finding.description for finding in own)
        for finding in own:
            info.reason.add(type=finding.kind, short_description=finding.title, description=finding.description)
    for distance in distances:
        info = proto.drift_skew_info.add()
        info.path.step.append(distance.feature)
        measurements = info.drift_measurements if distance.comparison.kind == DRIFT else info.skew_measurements
        measurements.add(type=distance.measure, value=distance.value, threshold=distance.threshold)
    return proto
