"""How far the scores of a TFLite variant are from those of its SavedModel."""

from dataclasses import dataclass

import numpy as np

from kfp_hybrid.edge.model import decisions
from kfp_hybrid.scoring.metrics import OperatingPoints

METRIC = {"binary": "AUC", "multiclass": "accuracy", "regression": "mean absolute error"}


@dataclass(frozen=True)
class Agreement:
    """The comparison of one variant with the SavedModel, on the same rows.

    Attributes:
        rows: rows compared.
        differences: float64 [rows], absolute difference of the scores; the largest one where a row has several. For a
            regression in standard deviations of the SavedModel's scores, so that limits need no unit.
        flips: share of the rows whose decision differs; None for a regression.
        correlation: Pearson's correlation of the scores; None where the SavedModel gives every row the same score.
            Unlike the mean difference it does not depend on how rare the positive class is.
        metric_name: AUC, accuracy or mean absolute error.
        metric: that metric of the variant; None where the labels do not define it.
        reference_metric: the same of the SavedModel.
        metric_drop: by how much the variant's metric is worse: difference, for the error relative growth.
    """

    rows: int
    differences: np.ndarray
    flips: float | None
    correlation: float | None
    metric_name: str
    metric: float | None
    reference_metric: float | None
    metric_drop: float | None

    @property
    def mean_difference(self) -> float:
        """Mean of the differences."""
        return float(np.mean(self.differences))

    @property
    def max_difference(self) -> float:
        """Largest difference."""
        return float(np.max(self.differences))


def compare(reference: np.ndarray, scores: np.ndarray, task: str, labels: np.ndarray | None) -> Agreement:
    """Compare a variant's scores with the SavedModel's.

    Args:
        reference: float32 [N, K], finite, N >= 1.
        scores: float32 [N, K], finite.
        task: binary, multiclass or regression.
        labels: class positions or values [N], NaN where a row has none; None when no row has one.
    """
    differences = np.abs(scores.astype(np.float64) - reference).max(axis=1)
    if task == "regression":
        differences /= float(np.std(reference)) or 1.0
    before, after = _metric(reference, task, labels), _metric(scores, task, labels)
    return Agreement(
        rows=len(reference),
        differences=differences,
        flips=None if task == "regression" else float(np.mean(decisions(scores) != decisions(reference))),
        correlation=_correlation(reference, scores),
        metric_name=METRIC[task],
        metric=after,
        reference_metric=before,
        metric_drop=_drop(before, after, task),
    )


def _correlation(reference: np.ndarray, scores: np.ndarray) -> float | None:
    a, b = (values.astype(np.float64) - values.mean(axis=0, dtype=np.float64) for values in (reference, scores))
    if not np.ptp(reference, axis=0).any():
        return None
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.sum(a * b)) / norm if norm and np.ptp(scores, axis=0).any() else 0.0


def _metric(scores: np.ndarray, task: str, labels: np.ndarray | None) -> float | None:
    if labels is None:
        return None
    labelled = ~np.isnan(labels)
    labels, scores = labels[labelled], scores[labelled]
    if not len(labels):
        return None
    if task == "binary":
        return OperatingPoints.of(labels == 1, scores[:, -1]).auc()
    if task == "multiclass":
        return float(np.mean(decisions(scores) == labels))
    return float(np.mean(np.abs(scores[:, 0] - labels)))


def _drop(before: float | None, after: float | None, task: str) -> float | None:
    if before is None or after is None:
        return None
    if task != "regression":
        return before - after
    return after / before - 1 if before else float(after > 0)
