"""Thresholds: what a model must reach to be blessed, and whether it does.

`{"auc": {"min": 0.8, "min_change": -0.005, "slice_min": 0.7}}` reads: AUC at least 0.8, at most 0.005 lower than the
baseline's, and at least 0.7 on every slice that is large enough.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kfp_hybrid.scoring.metrics import METRICS, PRIMARY
from kfp_hybrid.step import StepError

KEYS = ("min", "max", "min_change", "max_change", "slice_min", "slice_max", "slice_min_change", "slice_max_change")

# docs.md says why. What a constant prediction reaches is AUC 0.5, kappa 0 and R² 0, whatever the data.
DEFAULTS: dict[str, dict[str, dict[str, float]]] = {
    "binary": {"auc": {"min": 0.55, "min_change": -0.005, "slice_min": 0.5}},
    "multiclass": {"kappa": {"min": 0.05}, "accuracy": {"min_change": -0.005}},
    "regression": {"r2": {"min": 0.05, "min_change": -0.005}},
}


@dataclass(frozen=True)
class Threshold:
    """One limit on one metric.

    Args:
        metric: name of the metric.
        key: one of `KEYS`.
        limit: the value that the metric (or its change against the baseline) may just reach.
    """

    metric: str
    key: str
    limit: float

    @property
    def per_slice(self) -> bool:
        """Whether every slice must hold it, not the split as a whole."""
        return self.key.startswith("slice_")

    @property
    def relative(self) -> bool:
        """Whether it limits the change against the baseline."""
        return self.key.endswith("_change")

    @property
    def upper(self) -> bool:
        """Whether the limit is a maximum."""
        return "max" in self.key

    def holds(self, value: float) -> bool:
        """Whether `value` is within the limit; the limit itself is."""
        return value <= self.limit if self.upper else value >= self.limit

    def __str__(self) -> str:
        return f"{self.metric} {self.key} {self.limit:g}"


@dataclass(frozen=True)
class Measurement:
    """What was measured on one group of rows.

    Args:
        name: "" for the whole split, otherwise the slice, like "carrier=HA".
        column: the slice's column, "" for the whole split.
        column_value: the slice's value or range, "" for the whole split.
        rows: rows in the group.
        metrics: the model's metrics; None where undefined.
        baseline: the baseline's on the same rows; None without a baseline.
        interval: 95 % confidence interval of the task's primary metric; None where undefined.
        conclusive: whether thresholds apply (enough rows of every class).
    """

    name: str
    column: str
    column_value: str
    rows: int
    metrics: Mapping[str, float | None]
    baseline: Mapping[str, float | None] | None
    interval: tuple[float, float] | None
    conclusive: bool = True

    def change(self, metric: str) -> float | None:
        """The metric minus the baseline's; None without a baseline or where one of the two is undefined."""
        value, before = self.metrics[metric], (self.baseline or {}).get(metric)
        return None if value is None or before is None else value - before

    def value(self, threshold: Threshold) -> float | None:
        """What `threshold` limits."""
        return self.change(threshold.metric) if threshold.relative else self.metrics[threshold.metric]


@dataclass(frozen=True)
class Verdict:
    """Whether a threshold holds.

    Args:
        threshold: the threshold.
        passed: None when it could not be applied.
        value: what it limits: the metric or its change; for a slice threshold the worst slice's.
        where: the worst slice, None for the whole split.
        failed_slices: how many slices fail a slice threshold.
        skipped: why it could not be applied; "" when it was.
    """

    threshold: Threshold
    passed: bool | None
    value: float | None = None
    where: Measurement | None = None
    failed_slices: int = 0
    skipped: str = ""

    def __str__(self) -> str:
        """Like "auc of carrier=HA (342 rows) is 0.6605, below slice_min 0.7"."""
        place = f" of {self.where.name} ({self.where.rows} rows)" if self.where else ""
        if self.value is None:
            what = f"the change of {self.threshold.metric}" if self.threshold.relative else self.threshold.metric
            return f"{what} is undefined, so {self.threshold} does not hold"
        verb = "changed against the baseline by" if self.threshold.relative else "is"
        value, limit = distinct(self.value, self.threshold.limit)
        side = "within" if self.passed else "above" if self.threshold.upper else "below"
        others = self.failed_slices - 1
        more = (
            f" (as {'are' if others > 1 else 'is'} {others} more slice{'s' if others > 1 else ''})"
            if others > 0
            else ""
        )
        return f"{self.threshold.metric}{place} {verb} {value}, {side} {self.threshold.key} {limit}{more}"


def parse_thresholds(thresholds: Mapping[str, Any], task: str, sliced: bool) -> list[Threshold]:
    """Check what the user asked for; nothing asked means the task's defaults.

    Args:
        thresholds: metric name -> key -> limit.
        task: binary, multiclass or regression.
        sliced: whether there are slices; the defaults for slices apply only then.

    Raises:
        StepError: an unknown metric or key, a limit that is not a finite number, or a limit for slices without slices;
            says what is valid.
    """
    parsed = []
    for metric, limits in (thresholds or DEFAULTS[task]).items():
        if metric not in METRICS[task]:
            known = ", ".join(METRICS[task])
            raise StepError(f"thresholds: a {task} model has no metric {metric!r}; its metrics are {known}")
        if not isinstance(limits, Mapping) or not limits:
            raise StepError(f'thresholds: {metric!r} must map a key to a number, like {{"{metric}": {{"min": 0.5}}}}')
        parsed += [Threshold(metric, key, _limit(metric, key, limit)) for key, limit in limits.items()]
    if sliced:
        return parsed
    if thresholds and (unusable := [threshold for threshold in parsed if threshold.per_slice]):
        raise StepError(f"thresholds: {unusable[0]} needs slices; name columns in slice_columns")
    return [threshold for threshold in parsed if not threshold.per_slice]


def _limit(metric: str, key: str, limit: Any) -> float:
    if key not in KEYS:
        raise StepError(f"thresholds: {metric!r} has the unknown key {key!r}; valid keys are {', '.join(KEYS)}")
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not math.isfinite(limit):
        raise StepError(f"thresholds: {key!r} of {metric!r} must be a finite number, not {limit!r}")
    return float(limit)


def judge(thresholds: Iterable[Threshold], overall: Measurement, slices: list[Measurement]) -> list[Verdict]:
    """Apply every threshold to what was measured.

    Args:
        thresholds: from `parse_thresholds`.
        overall: the whole split.
        slices: the slices that are large enough to be measured.
    """
    return [_judge_one(threshold, overall, slices) for threshold in thresholds]


def _judge_one(threshold: Threshold, overall: Measurement, slices: list[Measurement]) -> Verdict:
    if threshold.relative and overall.baseline is None:
        return Verdict(threshold, None, skipped="there is no baseline model")
    if not threshold.per_slice:
        value = overall.value(threshold)
        return Verdict(threshold, value is not None and threshold.holds(value), value)

    judged = [(value, group) for group in slices if group.conclusive and (value := group.value(threshold)) is not None]
    if not judged:
        return Verdict(threshold, None, skipped="there is no slice with enough rows")
    furthest = max if threshold.upper else min
    value, worst = furthest(judged, key=lambda pair: pair[0])
    failed = sum(not threshold.holds(value) for value, _ in judged)
    return Verdict(threshold, not failed, value, worst, failed)


def worst_first(slices: list[Measurement], task: str) -> list[Measurement]:
    """The slices by how far their primary metric is from a perfect model's; last those where it is undefined."""
    primary = PRIMARY[task]

    def distance(group: Measurement) -> float:
        value = group.metrics[primary]
        return -1.0 if value is None else METRICS[task][primary].distance(value)

    return sorted(slices, key=distance, reverse=True)


def reason(verdicts: list[Verdict], overall: Measurement, slices: list[Measurement], task: str) -> str:
    """One sentence: the verdict, the numbers behind it, the worst slice, and what could not be checked.

    Args:
        verdicts: from `judge`.
        overall: the whole split.
        slices: worst first.
        task: binary, multiclass or regression.
    """
    primary = PRIMARY[task]
    worst = next((group for group in slices if group.conclusive), None)
    failed = [verdict for verdict in verdicts if verdict.passed is False]
    if failed:
        clauses = ["not blessed: " + " and ".join(map(str, failed))]
    else:
        held = sum(verdict.passed is True for verdict in verdicts)
        clauses = [f"blessed: {primary} is {number(overall.metrics[primary])} and {_thresholds_hold(held)}"]
    if worst is not None and not any(verdict.where == worst for verdict in failed):
        value = number(worst.metrics[primary])
        clauses.append(f"the worst slice is {worst.name} ({worst.rows} rows) with {primary} {value}")
    for why in dict.fromkeys(verdict.skipped for verdict in verdicts if verdict.skipped):
        skipped = " and ".join(str(verdict.threshold) for verdict in verdicts if verdict.skipped == why)
        clauses.append(f"{why}, so {skipped} could not be checked")
    return "; ".join(clauses)


def _thresholds_hold(held: int) -> str:
    special = {0: "no threshold applies", 1: "the one threshold that applies holds", 2: "both thresholds hold"}
    return special.get(held, f"all {held} thresholds hold")


def number(value: float | None) -> str:
    """Four significant digits."""
    return "undefined" if value is None else f"{value:.4g}"


def distinct(value: float, limit: float) -> tuple[str, str]:
    """Two numbers as text, with as many digits as it takes to tell them apart."""
    for digits in (4, 6, 9, 17):
        texts = f"{value:.{digits}g}", f"{limit:.{digits}g}"
        if texts[0] != texts[1] or value == limit:
            break
    return texts
