"""Draws a validation as one HTML page: anomalies on top, then each feature with its data sets side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from kfp_hybrid import reports
from kfp_hybrid.components.data_validation import artifacts
from kfp_hybrid.components.data_validation.validate_statistics import distributions
from kfp_hybrid.components.data_validation.validate_statistics.severity import ERROR, WARNING
from kfp_hybrid.components.data_validation.validate_statistics.validate import Distance, Finding, Side, Validation
from kfp_hybrid.reports.text import elide, number

MOST_SIDES = 4
_VALUES_SHOWN = 8
_RANKED = 9
_DISTANCES_SHOWN = 3
_LONGEST_VALUE, _LONGEST_DESCRIPTION, _LONGEST_NAME = 60, 300, 120
_TONES = {ERROR: "bad", WARNING: "warn"}
_MEASURES = {"L_INFTY": "L-infinity", "JENSEN_SHANNON_DIVERGENCE": "Jensen-Shannon divergence"}
_TYPES = {schema_pb2.INT: "whole number", schema_pb2.FLOAT: "number", schema_pb2.BYTES: "text"}

Features = Mapping[str, statistics_pb2.FeatureNameStatistics]


def write_report(validation: Validation, output: Path) -> None:
    """Write the report.

    Args:
        validation: what was found out.
        output: the HTML file.
    """
    everybody = _sides(validation)
    sides = everybody[:MOST_SIDES]
    by_side = [{artifacts.feature_name(f): f for f in side.statistics.features} for side in sides]
    promised = {feature.name: feature for feature in validation.schema.feature}
    names = list(dict.fromkeys([*promised, *(name for features in by_side for name in features)]))
    features = [_feature(position, name, promised.get(name), by_side, sides, validation)
                for position, name in enumerate(names)]  # fmt: skip
    reports.render(
        Path(__file__).with_name("report.html.j2"),
        output,
        title="Data validation",
        eyebrow="validate_statistics" + (f" · environment {validation.environment}" if validation.environment else ""),
        verdict={"tone": "good" if validation.valid else "bad", "label": "Valid" if validation.valid else "Not valid"},
        reason=validation.reason,
        cards=_cards(validation, everybody, names),
        sides=[side.name for side in sides],
        not_drawn=[side.name for side in everybody[MOST_SIDES:]],
        anomalies=[_anomaly(finding, names) for finding in validation.findings],
        distances=_largest_distances(validation, names),
        features=sorted(features, key=lambda f: (-f["errors"], -f["warnings"], -f["distance"])),
    )  # fmt: skip


def _sides(validation: Validation) -> list[Side]:
    """All data sets that take part: those that are compared come first, those without rows last."""
    compared = [side for c in validation.comparisons for side in (c.older, c.newer)]
    return sorted(dict.fromkeys([*compared, *validation.splits]), key=lambda side: not side.statistics.num_examples)


def _cards(validation: Validation, sides: Sequence[Side], names: Sequence[str]) -> list[dict[str, Any]]:
    errors, warnings = validation.count(ERROR), validation.count(WARNING)
    exceeded = {distance.feature for distance in validation.distances if distance.exceeded}
    cards = [
        {"label": "Errors", "value": errors, "tone": "bad" if errors else "good"},
        {"label": "Warnings", "value": warnings, "tone": "warn" if warnings else "good"},
        {"label": "Features", "value": len(names)},
    ]
    if validation.comparisons:
        cards.append({"label": "Features that moved", "value": len(exceeded), "tone": "warn" if exceeded else "good"})
    return cards + [{"label": f"Rows, {side.name}", "value": side.statistics.num_examples} for side in sides]


def _anomaly(finding: Finding, names: Sequence[str]) -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "tone": _TONES[finding.severity],
        "split": finding.split,
        "feature": elide(finding.feature or "all features", _LONGEST_NAME),
        "target": names.index(finding.feature) if finding.feature in names else None,
        "kind": finding.kind,
        "description": elide(finding.description, _LONGEST_DESCRIPTION),
    }


def _largest_distances(validation: Validation, names: Sequence[str]) -> list[dict[str, Any]]:
    """The features that moved most, each with the largest of its distances."""
    by_feature: dict[str, Distance] = {}
    for distance in sorted(validation.distances, key=_by_value):
        by_feature.setdefault(distance.feature, distance)
    return [_distance(d) | {"feature": elide(name, _LONGEST_NAME), "target": names.index(name)}
            for name, d in list(by_feature.items())[:_RANKED]]  # fmt: skip


def _by_value(distance: Distance) -> tuple[float, bool]:
    return -distance.value, not distance.exceeded


def _distance(distance: Distance) -> dict[str, Any]:
    newer, older = distance.comparison.newer.name, distance.comparison.older.name
    return {
        "label": f"{distance.comparison.kind} {older} → {newer}",
        "measure": _MEASURES.get(distance.measure, distance.measure),
        "value": distance.value,
        "threshold": distance.threshold,
        "exceeded": distance.exceeded,
    }  # fmt: skip


def _feature(position: int, name: str, promised: schema_pb2.Feature | None, by_side: Sequence[Features],
             sides: Sequence[Side], validation: Validation) -> dict[str, Any]:  # fmt: skip
    own = [features.get(name) for features in by_side]
    findings = [finding for finding in validation.findings if finding.feature == name]
    distances = sorted((d for d in validation.distances if d.feature == name), key=_by_value)
    numeric = any(feature is not None and feature.HasField("num_stats") for feature in own)
    rows = _number_rows(own) if numeric else _text_rows(own)
    errors = sum(finding.severity == ERROR for finding in findings)
    return {
        "number": position,
        "name": elide(name, _LONGEST_NAME),
        "type": _TYPES.get(promised.type, "other") if promised else "not in the schema",
        "facts": _facts(promised, validation.schema) if promised else [],
        "numeric": numeric,
        "errors": errors,
        "warnings": len(findings) - errors,
        "distances": [_distance(distance) for distance in distances[:_DISTANCES_SHOWN]],
        "distance": distances[0].value if distances else -1.0,
        "missing": max((_missing(f) for f in own if f is not None), default=0.0),
        "rows": rows,
        "chart": _number_chart(own, sides) if numeric else _text_chart(own, sides),
    }


def _facts(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> list[str]:
    facts = ["required" if feature.presence.min_fraction == 1 else "optional"]
    domain = feature.string_domain if feature.HasField("string_domain") else next(
        (d for d in schema.string_domain if d.name == feature.domain), None)  # fmt: skip
    if domain is not None:
        facts.append(f"{len(domain.value)} values")
    return facts


def _common(feature: statistics_pb2.FeatureNameStatistics) -> statistics_pb2.CommonStatistics:
    stats = feature.WhichOneof("stats")
    return getattr(feature, stats).common_stats if stats else statistics_pb2.CommonStatistics()


def _missing(feature: statistics_pb2.FeatureNameStatistics) -> float:
    common = _common(feature)
    rows = common.num_missing + common.num_non_missing
    return common.num_missing / rows if rows else 0.0


Own = Sequence[statistics_pb2.FeatureNameStatistics | None]
Row = tuple[str, str, list[Any]]


def _number_rows(own: Own) -> list[Row]:
    filled = [f.num_stats if f is not None and _common(f).num_non_missing else None for f in own]

    def row(label: str, field: str) -> Row:
        return label, "number", [getattr(stats, field) if stats else None for stats in filled]

    zeros = [stats.num_zeros / stats.common_stats.num_non_missing if stats else None for stats in filled]
    return [*_common_rows(own), row("mean", "mean"), row("std", "std_dev"), ("zeros", "percent", zeros),
            row("min", "min"), row("median", "median"), row("max", "max")]  # fmt: skip


def _text_rows(own: Own) -> list[Row]:
    frequent = [distributions.text_shares(f) if f is not None else {} for f in own]
    shown = distributions.common_values(frequent, _VALUES_SHOWN)
    tops = [f.string_stats.top_values[0] if f is not None and f.string_stats.top_values else None for f in own]
    counts = [_common(f).num_non_missing if f is not None else 0 for f in own]
    shares = [top.frequency / count if top and count else None for top, count in zip(tops, counts, strict=True)]
    return [
        *_common_rows(own),
        ("unique", "number", [f.string_stats.unique if f is not None else None for f in own]),
        ("top", "text", [elide(top.value, _LONGEST_VALUE) if top else None for top in tops]),
        ("top share", "percent", shares),
        ("others", "percent", [max(0.0, 1 - sum(of.get(value, 0) for value in shown)) if of else None
                                  for of in frequent]),
        ("length", "number", [f.string_stats.avg_length if f is not None and n else None
                              for f, n in zip(own, counts, strict=True)]),
    ]  # fmt: skip


def _common_rows(own: Own) -> list[Row]:
    return [("count", "number", [_common(f).num_non_missing if f is not None else None for f in own]),
            ("missing", "percent", [_missing(f) if f is not None else None for f in own])]  # fmt: skip


def _number_chart(own: Own, sides: Sequence[Side]) -> dict[str, Any] | None:
    curves = [distributions.distribution(f) if f is not None else None for f in own]
    known = [curve for curve in curves if curve is not None]
    if not known:
        return None
    bins = distributions.common_bins(known)
    series = [{"name": side.name, "values": curve.fractions(bins.edges).tolist() if curve else []}
              for side, curve in zip(sides, curves, strict=True)]  # fmt: skip
    return {"edges": bins.edges.tolist(), "labels": _bin_labels(bins), "series": series, "below": bins.below,
            "above": bins.above, "whole": bins.whole}  # fmt: skip


def _bin_labels(bins: distributions.Bins) -> list[str]:
    labels = []
    for low, high in zip(bins.edges, bins.edges[1:], strict=False):
        first, last = (low + 0.5, high - 0.5) if bins.whole else (low, high)
        labels.append(number(first) if first == last else f"{number(first)} – {number(last)}")
    if bins.below:
        labels[0] = f"below {number(bins.edges[1])}"
    if bins.above:
        labels[-1] = f"above {number(bins.edges[-2])}"
    return labels


def _text_chart(own: Own, sides: Sequence[Side]) -> dict[str, Any] | None:
    shares = [distributions.text_shares(f) if f is not None else {} for f in own]
    values = distributions.common_values(shares, _VALUES_SHOWN)
    if not values:
        return None
    series = [{"name": side.name, "values": [of.get(value, 0.0) for value in values]}
              for side, of in zip(sides, shares, strict=True)]  # fmt: skip
    return {"labels": [elide(value, _LONGEST_VALUE) for value in values], "series": series}
