"""The HTML report of an evaluation: everything the template draws, as plain numbers and texts."""

from pathlib import Path
from typing import Any

import numpy as np

from kfp_hybrid.components.evaluation.evaluate_model.evaluation import Evaluation
from kfp_hybrid.components.evaluation.evaluate_model.outputs import curve, shown_confusion
from kfp_hybrid.components.evaluation.evaluate_model.thresholds import Measurement, Verdict, distinct
from kfp_hybrid.reports import render
from kfp_hybrid.reports.text import number
from kfp_hybrid.scoring.metrics import (
    METRICS,
    PRIMARY,
    PRIMARY_INTERVAL,
    BinaryScores,
    MulticlassScores,
    RegressionScores,
    wilson_interval,
)

KEY_FIGURES = {
    "binary": ["auc", "auc_pr", "log_loss", "precision", "recall", "f1", "calibration_ratio"],
    "multiclass": ["accuracy", "macro_f1", "kappa", "log_loss", "calibration_error"],
    "regression": ["mae", "rmse", "r2", "bias"],
}
SLICE_FIGURES = {  # beside the primary metric
    "binary": ["label_mean", "precision", "recall", "calibration_ratio"],
    "multiclass": ["macro_f1", "log_loss", "calibration_error"],
    "regression": ["label_mean", "rmse", "bias"],
}
MOST_ROWS = 200  # of a table; evaluation.json has all
HISTOGRAM_BINS = 50
TONES = {True: ("good", "holds"), False: ("bad", "fails"), None: ("warn", "not applied")}


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write the report; it appears whole or not at all.

    Args:
        evaluation: what to report.
        path: the HTML file.
    """
    request, overall, task = evaluation.request, evaluation.overall, evaluation.request.answer.task
    render(
        Path(__file__).with_name("report.html.j2"),
        path,
        title=f"How well the model predicts “{request.answer.label}”",
        eyebrow=f"Model evaluation · {task} · split {request.split} · {overall.rows:,} rows",
        verdict={"tone": "good", "label": "Blessed"} if evaluation.blessed else {"tone": "bad", "label": "Not blessed"},
        reason=evaluation.reason.partition(": ")[2],  # the verdict stands beside it as a badge
        task=task,
        has_baseline=overall.baseline is not None,
        unlabelled=evaluation.scored.unlabelled,
        interval=overall.interval,
        cards=[_card(name, evaluation) for name in KEY_FIGURES[task]],
        thresholds=[_threshold_row(verdict) for verdict in evaluation.verdicts],
        figures=_drawings(evaluation),
        slices=_slices(evaluation),
        metrics=[_metric_row(name, evaluation) for name in METRICS[task]],
    )


def _card(name: str, evaluation: Evaluation) -> dict[str, Any]:
    """A key figure; red when one of its thresholds fails."""
    metric, overall = METRICS[evaluation.request.answer.task][name], evaluation.overall
    card: dict[str, Any] = {"label": metric.title, "value": overall.metrics[name]}
    if (change := _change(name, evaluation)) is not None:
        card["note"] = f"{number(abs(change))} {'worse' if change < 0 else 'better'} than baseline"
    if any(verdict.threshold.metric == name and verdict.passed is False for verdict in evaluation.verdicts):
        card["tone"] = "bad"
    return card


def _change(name: str, evaluation: Evaluation) -> float | None:
    """How much better than the baseline's the metric is; None without a baseline or where undefined."""
    value, before = evaluation.overall.metrics[name], (evaluation.overall.baseline or {}).get(name)
    if value is None or before is None:
        return None
    return METRICS[evaluation.request.answer.task][name].improvement(value, before)


def _threshold_row(verdict: Verdict) -> list[Any]:
    """Cells of the table of thresholds."""
    threshold = verdict.threshold
    where = "every slice" if threshold.per_slice else "all rows"
    if verdict.where:
        where += f"; worst {verdict.where.name} ({verdict.where.rows:,} rows)"
    measured, limit = "–", f"{threshold.limit:g}"
    if verdict.value is not None:
        measured, limit = distinct(verdict.value, threshold.limit)
        if threshold.relative and verdict.value > 0:
            measured = f"+{measured}"
    tone, label = TONES[verdict.passed]
    if verdict.failed_slices:
        label += f" on {verdict.failed_slices} slice{'s' if verdict.failed_slices > 1 else ''}"
    return [
        threshold.metric,
        threshold.key,
        where,
        {"text": measured.replace("-", "−")},
        {"text": f"{'≤' if threshold.upper else '≥'} {limit}".replace("-", "−")},
        {"text": label + (f": {verdict.skipped}" if verdict.skipped else ""), "tone": tone},
    ]


def _metric_row(name: str, evaluation: Evaluation) -> list[Any]:
    """Cells of the table of all metrics."""
    metric, overall = METRICS[evaluation.request.answer.task][name], evaluation.overall
    row: list[Any] = [metric.title, {"text": name}, overall.metrics[name]]
    if overall.baseline is not None:
        row += [overall.baseline[name], overall.change(name)]
    return [*row, metric.meaning]


def _slices(evaluation: Evaluation) -> dict[str, Any]:
    """The table of slices, worst first, with the axis that its intervals share."""
    request, overall = evaluation.request, evaluation.overall
    task = request.answer.task
    primary, figures = PRIMARY[task], SLICE_FIGURES[task]
    shown = evaluation.slices[:MOST_ROWS]
    ends = [
        end
        for group in [overall, *shown]
        for end in (*(group.interval or ()), group.metrics[primary], (group.baseline or {}).get(primary))
    ]
    return {
        "asked": request.slice_columns,
        "columns": list(dict.fromkeys(group.column for group in shown)),
        "rows": [_slice_row(group, evaluation) for group in shown],
        "judged": any(threshold.per_slice for threshold in request.thresholds),
        "measured": len(evaluation.slices),
        "small": evaluation.small_slices,
        "minimum_rows": request.minimum_slice_rows,
        "primary": METRICS[task][primary].title,
        "overall": overall.metrics[primary],
        "method": PRIMARY_INTERVAL[task],
        "ends": [end for end in ends if end is not None],
        "figures": [METRICS[task][name].title for name in figures],
    }


def _slice_row(group: Measurement, evaluation: Evaluation) -> dict[str, Any]:
    task = evaluation.request.answer.task
    primary = PRIMARY[task]
    limits = [threshold for threshold in evaluation.request.thresholds if threshold.per_slice]
    values = [(threshold, group.value(threshold)) for threshold in limits]
    failed = [threshold.metric for threshold, value in values if value is not None and not threshold.holds(value)]
    badge = None
    if not group.conclusive:
        badge = {"tone": "", "label": "few rows of a class"}
    elif failed:
        badge = {"tone": "bad", "label": f"fails {', '.join(dict.fromkeys(failed))}"}
    elif any(value is not None for _, value in values):
        badge = {"tone": "good", "label": "holds"}
    return {
        "column": group.column,
        "value": group.column_value,
        "rows": group.rows,
        "share": group.rows / evaluation.overall.rows,
        "point": group.metrics[primary],
        "interval": group.interval,
        "baseline": (group.baseline or {}).get(primary),
        "figures": [group.metrics[name] for name in SLICE_FIGURES[task]],
        "badge": badge,
    }


def _drawings(evaluation: Evaluation) -> dict[str, Any]:
    """What is drawn for the task: series of points and histograms."""
    scores, baseline = evaluation.scored.model, evaluation.scored.baseline
    classes = evaluation.request.answer.classes
    if isinstance(scores, BinaryScores):
        return _binary_drawings(scores, baseline, classes)
    if isinstance(scores, MulticlassScores):
        return _multiclass_drawings(scores, baseline, classes)
    return _regression_drawings(scores, baseline)


def _named(model: Any, baseline: Any, points: Any) -> list[dict[str, Any]]:
    """A series for the model, and one for the baseline if there is one."""
    series = [{"name": "model", "points": points(model)}]
    return series if baseline is None else [*series, {"name": "baseline", "points": points(baseline)}]


def _binary_drawings(scores: BinaryScores, baseline: BinaryScores | None, classes: tuple[Any, ...]) -> dict[str, Any]:
    highest = float(scores.scores.max())
    edges = np.linspace(0, 1 if highest > 0.5 else highest or 1, HISTOGRAM_BINS + 1)  # a rare event scores low
    histograms = [np.histogram(scores.scores[scores.labels == positive], edges)[0] for positive in (False, True)]
    return {
        "roc": _named(scores, baseline, _roc_points),
        "precision_recall": _named(scores, baseline, _precision_recall_points),
        "label_mean": float(np.mean(scores.labels)),
        "reliability": _reliability(scores, baseline),
        "edges": edges.tolist(),
        "distribution": [
            {"name": f"label {value}", "values": (counts / counts.sum()).tolist()}
            for value, counts in zip(classes, histograms, strict=True)
        ],
        "classes": list(map(str, classes)),
        "explorer": _explorer(scores),
    }


def _roc_points(scores: BinaryScores) -> list[tuple[float, float]]:
    _, true_positives, false_positives = curve(scores)
    points = scores.points
    return [
        (fp / points.negatives, tp / points.positives) for tp, fp in zip(true_positives, false_positives, strict=True)
    ]


def _precision_recall_points(scores: BinaryScores) -> list[tuple[float, float]]:
    _, true_positives, false_positives = curve(scores)
    called = zip(true_positives[1:], false_positives[1:], strict=True)  # the first point calls no row positive
    return [(tp / scores.points.positives, tp / (tp + fp)) for tp, fp in called]


def _reliability(scores: Any, baseline: Any) -> dict[str, Any]:
    """The points of the calibration plot and the end of its axes, which a rare event needs to be close."""
    series = _named(scores, baseline, _reliability_points)
    points = [point for one in series for point in one["points"]]
    return {"series": series, "end": max(max(point["x"], point["high"]) for point in points)}


def _reliability_points(scores: Any) -> list[dict[str, float]]:
    """Points with the Wilson interval of the observed share."""
    bins = scores.reliability
    low, high = wilson_interval(bins.observed * bins.rows, bins.rows)
    points = zip(*(column.tolist() for column in (bins.predicted, bins.observed, low, high, bins.rows)), strict=True)
    return [dict(zip(("x", "y", "low", "high", "rows"), point, strict=True)) for point in points]


def _explorer(scores: BinaryScores) -> dict[str, Any]:
    """Counts at the points of the curve and at the decision threshold, by rising threshold."""
    (_, fp), (_, tp) = scores.confusion().tolist()
    decision = (scores.decision_threshold, tp, fp)
    points = sorted({*zip(*curve(scores), strict=True), decision})
    return {
        "points": points,
        "start": points.index(decision),
        "positives": scores.points.positives,
        "negatives": scores.points.negatives,
    }


def _multiclass_drawings(
    scores: MulticlassScores, baseline: MulticlassScores | None, classes: tuple[Any, ...]
) -> dict[str, Any]:
    names, matrix = shown_confusion(scores, classes)
    per_class = [{"class": str(value), **found} for value, found in zip(classes, scores.per_class(), strict=True)]
    return {
        "reliability": _reliability(scores, baseline),
        "classes": names,
        "confusion": [{"cells": row, "rows": sum(row)} for row in matrix],
        "per_class": sorted(per_class, key=lambda row: row["f1"] or 0)[:MOST_ROWS],
        "all_classes": len(per_class),
        "most_rows": max(int(row["rows"] or 0) for row in per_class),
    }


def _regression_drawings(scores: RegressionScores, baseline: RegressionScores | None) -> dict[str, Any]:
    low, high = np.quantile(scores.errors, [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, HISTOGRAM_BINS + 1)
    named = {"model": scores} if baseline is None else {"model": scores, "baseline": baseline}
    errors = {name: np.histogram(np.clip(one.errors, edges[0], edges[-1]), edges)[0] for name, one in named.items()}
    return {
        "reliability": _named(scores, baseline, _mean_points),
        "edges": edges.tolist(),
        "distribution": [{"name": name, "values": (n / len(scores)).tolist()} for name, n in errors.items()],
    }


def _mean_points(scores: RegressionScores) -> list[tuple[float, float]]:
    return list(zip(scores.reliability.predicted.tolist(), scores.reliability.observed.tolist(), strict=True))
