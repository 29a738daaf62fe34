"""What an evaluation leaves behind: evaluation.json for programs, and what both consoles draw."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kfp_hybrid.components.evaluation.evaluate_model.evaluation import Evaluation
from kfp_hybrid.components.evaluation.evaluate_model.thresholds import Measurement, Verdict
from kfp_hybrid.scoring.metrics import (
    METRICS,
    PRIMARY,
    BinaryScores,
    MulticlassScores,
    OperatingPoints,
    confusion_matrix,
)

FORMAT = "kfp-hybrid/evaluation"
VERSION = 1
FILE_NAME = "evaluation.json"
CURVE_POINTS = 200  # of a curve for people; the consoles keep the ROC curve in the artifact's metadata
MOST_CLASSES = 30  # of a confusion matrix for people
OTHER_CLASSES = "(other classes)"

Array = np.ndarray[Any, Any]


def write_evaluation(evaluation: Evaluation, directory: Path) -> None:
    """Write evaluation.json; it appears whole or not at all.

    Args:
        evaluation: what to write.
        directory: created if need be.
    """
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / f".{FILE_NAME}.{os.getpid()}"
    text = json.dumps(describe(evaluation), indent=1, ensure_ascii=False, allow_nan=False)
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(directory / FILE_NAME)


def describe(evaluation: Evaluation) -> dict[str, Any]:
    """The content of evaluation.json."""
    request, scored = evaluation.request, evaluation.scored
    worst = evaluation.worst_slice
    return {
        "format": FORMAT,
        "version": VERSION,
        "blessed": evaluation.blessed,
        "reason": evaluation.reason,
        "task": request.answer.task,
        "label": {"name": request.answer.label, "classes": list(request.answer.classes)},
        "split": request.split,
        "schema_fingerprint": request.examples.schema_fingerprint,
        "rows": evaluation.overall.rows,
        "rows_without_label": scored.unlabelled,
        "decision_threshold": request.decision_threshold,
        "minimum_slice_rows": request.minimum_slice_rows,
        "overall": _describe_measurement(evaluation.overall),
        "slices": [_describe_measurement(group) for group in evaluation.slices],
        "small_slices": {c: {"slices": n, "rows": rows} for c, (n, rows) in evaluation.small_slices.items()},
        "worst_slice": worst.name if worst else None,
        "thresholds": [_describe_verdict(verdict) for verdict in evaluation.verdicts],
        **_describe_scores(scored.model, request.answer.classes),
    }


def _describe_measurement(group: Measurement) -> dict[str, Any]:
    description = asdict(group)
    description["interval"] = list(group.interval) if group.interval else None
    return description


def _describe_verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        **asdict(verdict.threshold),
        "passed": verdict.passed,
        "value": verdict.value,
        "slice": verdict.where.name if verdict.where else None,
        "failed_slices": verdict.failed_slices,
        "skipped": verdict.skipped,
    }


def _describe_scores(scores: Any, classes: tuple[Any, ...]) -> dict[str, Any]:
    reliability = {name: values.tolist() for name, values in asdict(scores.reliability).items()}
    description: dict[str, Any] = {"reliability": reliability}
    if isinstance(scores, BinaryScores):
        thresholds, true_positives, false_positives = curve(scores)
        description["operating_points"] = {
            "threshold": thresholds,
            "true_positives": true_positives,
            "false_positives": false_positives,
        }
    if isinstance(scores, MulticlassScores):
        description["classes"] = [
            {"class": value, **metrics} for value, metrics in zip(classes, scores.per_class(), strict=True)
        ]
    return description


def log_metrics(evaluation: Evaluation, artifact: Any) -> None:
    """Log every defined metric, its change against the baseline, and the worst slice's as plain numbers.

    Args:
        evaluation: what to log.
        artifact: a dsl.Metrics.
    """
    overall, worst = evaluation.overall, evaluation.worst_slice
    task = evaluation.request.answer.task
    primary = PRIMARY[task]
    numbers: dict[str, float | None] = {"blessed": int(evaluation.blessed), "rows": overall.rows}
    for name, value in overall.metrics.items():
        numbers[name] = value
        if METRICS[task][name].ideal is not None:
            numbers[f"{name}_change"] = overall.change(name)
    numbers[f"{primary}_worst_slice"] = worst.metrics[primary] if worst else None
    for name, value in numbers.items():
        if value is not None:
            artifact.log_metric(name, value)


def log_classification(evaluation: Evaluation, artifact: Any) -> None:
    """Log the ROC curve (binary) and the confusion matrix (classification); nothing for a regression.

    Args:
        evaluation: what to log.
        artifact: a dsl.ClassificationMetrics.
    """
    scores = evaluation.scored.model
    if isinstance(scores, BinaryScores):
        thresholds, true_positives, false_positives = curve(scores)
        artifact.log_roc_curve(
            [count / scores.points.negatives for count in false_positives],
            [count / scores.points.positives for count in true_positives],
            thresholds,
        )
    if isinstance(scores, (BinaryScores, MulticlassScores)):
        artifact.log_confusion_matrix(*shown_confusion(scores, evaluation.request.answer.classes))


def curve(scores: BinaryScores, points: int = CURVE_POINTS) -> tuple[list[float], list[int], list[int]]:
    """What decision thresholds do, from calling no row positive to calling all of them.

    Args:
        scores: rows of both classes.
        points: the most points of the curve.

    Returns:
        Falling thresholds, positive rows and negative rows at or above each. The first is just above the highest
        score, where an infinite one is customary: JSON knows no infinity.
    """
    thin: OperatingPoints = scores.points.thin(points - 1)
    none = float(np.nextafter(thin.thresholds[0], np.float32(2)))
    return [none, *thin.thresholds.tolist()], [0, *thin.true_positives.tolist()], [0, *thin.false_positives.tolist()]


def shown_confusion(scores: Any, classes: tuple[Any, ...]) -> tuple[list[str], list[list[int]]]:
    """A confusion matrix that fits on a page: the most frequent classes, the others as one.

    Args:
        scores: binary or multiclass scores.
        classes: class values.

    Returns:
        Names of the classes, and rows by true class (down) and decided class (across).
    """
    if isinstance(scores, BinaryScores):
        return list(map(str, classes)), scores.confusion().tolist()
    names = list(map(str, classes))
    if len(classes) <= MOST_CLASSES:
        return names, confusion_matrix(scores.labels, scores.predicted, len(classes)).tolist()
    rows = np.bincount(scores.labels, minlength=len(classes))
    frequent = np.sort(np.argsort(-rows, kind="stable")[: MOST_CLASSES - 1])
    position = np.full(len(classes), len(frequent))
    position[frequent] = np.arange(len(frequent))
    matrix = confusion_matrix(position[scores.labels], position[scores.predicted], MOST_CLASSES)
    return [*(names[i] for i in frequent), OTHER_CLASSES], matrix.tolist()
