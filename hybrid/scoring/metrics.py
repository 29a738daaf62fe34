"""The metrics of one model on one set of rows: exact, vectorised, numpy only.

One class per task. Each holds a few numbers per row (float32 where it can, so ten million rows are some
hundred megabytes), picks rows (`take`) and computes every metric of its task. A metric that the rows do
not define, such as the AUC of rows of one class, is None.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]

Z95 = 1.959963984540054  # the standard normal's quantile for two-sided 95 % intervals
SMALLEST_PROBABILITY = 1e-7  # keeps the logarithm finite; the value Keras uses (keras.backend.epsilon)
CALIBRATION_BINS = 10
FEWEST_ROWS_OF_A_CLASS = 20  # with fewer, an AUC of 0.75 is within three standard errors of a coin's 0.5


@dataclass(frozen=True)
class Metric:
    """What a reader and a threshold need to know about a metric.

    Args:
        title: its name in a report.
        ideal: the value of a perfect model; the further from it, the worse. None: it describes the rows or
            the model and is neither good nor bad.
        meaning: one line for people.
    """

    title: str
    ideal: float | None
    meaning: str

    def distance(self, value: float) -> float:
        """How far `value` is from a perfect model's; 0 for a metric that is neither good nor bad."""
        return 0.0 if self.ideal is None else abs(value - self.ideal)

    def improvement(self, value: float, before: float) -> float:
        """How much closer to a perfect model's value a change from `before` comes; negative when it moves away."""
        return self.distance(before) - self.distance(value)


BINARY = {
    "auc": Metric("AUC-ROC", 1, "probability that a positive row scores above a negative one, ties counting half"),
    "auc_pr": Metric("AUC-PR", 1, "average precision: the precision at every recall, averaged"),
    "accuracy": Metric("Accuracy", 1, "share of rows decided correctly at the decision threshold"),
    "precision": Metric("Precision", 1, "share of the rows called positive that are positive"),
    "recall": Metric("Recall", 1, "share of the positive rows that are called positive"),
    "f1": Metric("F1", 1, "harmonic mean of precision and recall"),
    "log_loss": Metric("Log loss", 0, "mean negative log likelihood, in nats"),
    "calibration_error": Metric("Calibration error", 0, "expected calibration error over ten equally filled bins"),
    "calibration_ratio": Metric("Calibration ratio", 1, "mean prediction over mean label: above 1 promises too much"),
    "prediction_mean": Metric("Mean prediction", None, "mean score"),
    "label_mean": Metric("Mean label", None, "share of positive rows"),
}
MULTICLASS = {
    "accuracy": Metric("Accuracy", 1, "share of rows whose most probable class is the true one"),
    "macro_f1": Metric("Macro F1", 1, "F1 of each class, averaged over the classes that occur"),
    "kappa": Metric("Cohen's kappa", 1, "accuracy beyond what guessing with the same class shares reaches"),
    "log_loss": Metric("Log loss", 0, "mean negative log probability of the true class, in nats"),
    "calibration_error": Metric("Calibration error", 0, "expected calibration error of the most probable class"),
    "confidence_mean": Metric("Mean confidence", None, "mean probability of the most probable class"),
}
REGRESSION = {
    "mae": Metric("MAE", 0, "mean absolute error"),
    "rmse": Metric("RMSE", 0, "root of the mean squared error"),
    "r2": Metric("R²", 1, "share of the label's variance that the model explains"),
    "bias": Metric("Bias", 0, "mean of prediction minus label"),
    "prediction_mean": Metric("Mean prediction", None, "mean prediction"),
    "label_mean": Metric("Mean label", None, "mean label"),
}
METRICS = {"binary": BINARY, "multiclass": MULTICLASS, "regression": REGRESSION}
PRIMARY = {"binary": "auc", "multiclass": "accuracy", "regression": "mae"}  # ranks the slices
PRIMARY_INTERVAL = {
    "binary": "DeLong, DeLong & Clarke-Pearson 1988",
    "multiclass": "Wilson 1927",
    "regression": "normal approximation",
}


class Scores(Protocol):
    """What the evaluation needs of a task's scores; one entry per row."""

    def __len__(self) -> int:
        """The number of rows."""

    def take(self, rows: Array) -> "Scores":
        """The same for the rows with these indices."""

    def conclusive(self) -> bool:
        """Whether there are enough rows of every kind for a verdict on them."""

    def metrics(self) -> dict[str, float | None]:
        """Every metric of the task, by name; None where the rows do not define it."""

    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the task's primary metric; None where it is undefined."""


@dataclass(frozen=True)
class OperatingPoints:
    """What every decision threshold does: one entry per distinct score, highest first.

    Args:
        thresholds: distinct scores, falling; a row is called positive when its score is at least the threshold.
        true_positives: int64, positive rows at or above each threshold.
        false_positives: int64, negative rows at or above each threshold.
    """

    thresholds: Array
    true_positives: Array
    false_positives: Array

    @classmethod
    def of(cls, labels: Array, scores: Array) -> "OperatingPoints":
        """Sort the rows once and count.

        Args:
            labels: bool [N].
            scores: float [N], N >= 1.
        """
        order = np.argsort(scores)[::-1]
        scores = scores[order]
        last_of_ties = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
        true_positives = np.cumsum(labels[order], dtype=np.int64)[last_of_ties]
        return cls(scores[last_of_ties], true_positives, last_of_ties + 1 - true_positives)

    @property
    def positives(self) -> int:
        """Positive rows."""
        return int(self.true_positives[-1])

    @property
    def negatives(self) -> int:
        """Negative rows."""
        return int(self.false_positives[-1])

    @property
    def _tied(self) -> tuple[Array, Array]:
        """Positive and negative rows at exactly each threshold."""
        return np.diff(self.true_positives, prepend=0), np.diff(self.false_positives, prepend=0)

    def auc(self) -> float | None:
        """Area under the ROC curve: the Mann-Whitney statistic, ties counting half (Hanley & McNeil 1982)."""
        if not self.positives or not self.negatives:
            return None
        tied_positives, tied_negatives = self._tied
        twice = np.sum(tied_negatives * (2 * self.true_positives - tied_positives))  # exact: integers
        return float(twice) / (2.0 * self.positives * self.negatives)

    def auc_interval(self) -> tuple[float, float] | None:
        """95 % interval of the AUC from the variance of DeLong, DeLong & Clarke-Pearson (Biometrics 1988).

        The placement of a positive row is the share of negative rows it beats, and the other way round; rows with
        the same score share it, so counts per threshold are enough.
        """
        auc = self.auc()
        if auc is None or min(self.positives, self.negatives) < 2:
            return None
        tied_positives, tied_negatives = self._tied
        of_positives = 1 - (self.false_positives - tied_negatives / 2) / self.negatives
        of_negatives = (self.true_positives - tied_positives / 2) / self.positives
        variance = 0.0
        for placement, rows in ((of_positives, tied_positives), (of_negatives, tied_negatives)):
            n = rows.sum()
            variance += float(np.sum(rows * (placement - auc) ** 2)) / (n - 1) / n
        margin = Z95 * math.sqrt(variance)
        return max(0.0, auc - margin), min(1.0, auc + margin)

    def average_precision(self) -> float | None:
        """Average precision, the area under the precision-recall steps.

        Not interpolated: a straight line between two points of this curve is too optimistic (Davis & Goadrich,
        ICML 2006).
        """
        if not self.positives:
            return None
        precision = self.true_positives / (self.true_positives + self.false_positives)
        return float(np.sum(self._tied[0] * precision)) / self.positives

    def thin(self, points: int) -> "OperatingPoints":
        """At most `points` of them, evenly spread along the ROC curve, with the lowest threshold among them."""
        if len(self.thresholds) <= points:
            return self
        along = self.true_positives / max(1, self.positives) + self.false_positives / max(1, self.negatives)
        keep = np.unique(np.searchsorted(along, np.linspace(along[0], along[-1], points)))
        return OperatingPoints(self.thresholds[keep], self.true_positives[keep], self.false_positives[keep])


@dataclass(frozen=True)
class Reliability:
    """Rows in bins of equal size by prediction: what was predicted and what came true.

    Equally filled rather than equally wide bins (Nixon et al., "Measuring Calibration in Deep Learning", 2019): of
    a rare event nearly all rows would share the first wide bin. Rows with the same prediction share a bin.

    Args:
        predicted: mean prediction per bin, rising.
        observed: mean outcome per bin.
        rows: rows per bin, none empty.
    """

    predicted: Array
    observed: Array
    rows: Array

    @classmethod
    def of(cls, predictions: Array, outcomes: Array, bins: int = CALIBRATION_BINS) -> "Reliability":
        """Bin N >= 1 rows by their prediction.

        Args:
            predictions: float [N].
            outcomes: bool or float [N].
        """
        edges = np.unique(np.quantile(predictions, np.linspace(0, 1, bins + 1)[1:-1]))
        bin_of_row = np.searchsorted(edges, predictions, side="right")
        rows = np.bincount(bin_of_row)
        sums = (np.bincount(bin_of_row, weights=values) for values in (predictions, outcomes))
        predicted, observed = (values[rows > 0] / rows[rows > 0] for values in sums)
        return cls(predicted, observed, rows[rows > 0])

    def expected_error(self) -> float:
        """Expected calibration error: the bins' mean |observed - predicted|, weighted by their rows (Naeini 2015)."""
        return float(np.average(np.abs(self.observed - self.predicted), weights=self.rows))


@dataclass(frozen=True)
class BinaryScores:
    """Scores of a classifier with two classes.

    Args:
        labels: bool [N], True = positive class.
        scores: float32 [N], probability of the positive class.
        decision_threshold: a row is called positive when its score is at least this.
    """

    labels: Array
    scores: Array
    decision_threshold: float = 0.5

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.labels)

    def take(self, rows: Array) -> "BinaryScores":
        """The same for the rows with these indices."""
        return BinaryScores(self.labels[rows], self.scores[rows], self.decision_threshold)

    def conclusive(self) -> bool:
        """Whether both classes have the rows that a verdict on their ranking needs."""
        positives = int(np.sum(self.labels))
        return min(positives, len(self) - positives) >= FEWEST_ROWS_OF_A_CLASS

    @functools.cached_property
    def points(self) -> OperatingPoints:
        """What every decision threshold does."""
        return OperatingPoints.of(self.labels, self.scores)

    @functools.cached_property
    def reliability(self) -> Reliability:
        """Predicted probability against observed frequency."""
        return Reliability.of(self.scores, self.labels)

    def confusion(self) -> Array:
        """Rows by true class (down) and decided class (across): [[TN, FP], [FN, TP]]."""
        return confusion_matrix(self.labels, self.scores >= self.decision_threshold, 2)

    def metrics(self) -> dict[str, float | None]:
        """Every metric of `BINARY`; None where the rows do not define it."""
        (tn, fp), (fn, tp) = self.confusion().tolist()
        prediction_mean, label_mean = float(np.mean(self.scores, dtype=np.float64)), float(np.mean(self.labels))
        return {
            "auc": self.points.auc(),
            "auc_pr": self.points.average_precision(),
            "accuracy": ratio(tp + tn, len(self)),
            "precision": ratio(tp, tp + fp),
            "recall": ratio(tp, tp + fn),
            "f1": ratio(2 * tp, 2 * tp + fp + fn),
            "log_loss": log_loss(np.where(self.labels, self.scores, 1 - self.scores)),
            "calibration_error": self.reliability.expected_error(),
            "calibration_ratio": ratio(prediction_mean, label_mean),
            "prediction_mean": prediction_mean,
            "label_mean": label_mean,
        }

    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the AUC (DeLong)."""
        return self.points.auc_interval()


@dataclass(frozen=True)
class MulticlassScores:
    """Scores of a classifier with K classes: what its metrics need of them, so that memory does not grow with K.

    Args:
        labels: int32 [N], index of the true class.
        predicted: int32 [N], index of the most probable class.
        confidence: float32 [N], probability of the most probable class.
        likelihood: float32 [N], probability of the true class.
        classes: K.
    """

    labels: Array
    predicted: Array
    confidence: Array
    likelihood: Array
    classes: int

    @classmethod
    def of(cls, labels: Array, probabilities: Array) -> "MulticlassScores":
        """From true classes [N] and probabilities float32 [N, K]."""
        predicted = np.argmax(probabilities, axis=1).astype(np.int32)
        row = np.arange(len(labels))
        return cls(labels, predicted, probabilities[row, predicted], probabilities[row, labels], probabilities.shape[1])

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.labels)

    def take(self, rows: Array) -> "MulticlassScores":
        """The same for the rows with these indices."""
        return MulticlassScores(
            self.labels[rows], self.predicted[rows], self.confidence[rows], self.likelihood[rows], self.classes
        )

    def conclusive(self) -> bool:
        """Always: the number of rows is all that counts."""
        return True

    @functools.cached_property
    def reliability(self) -> Reliability:
        """Probability of the most probable class against how often it is the true one."""
        return Reliability.of(self.confidence, self.predicted == self.labels)

    def confusion(self) -> Array:
        """Rows by true class (down) and most probable class (across), [K, K]."""
        return confusion_matrix(self.labels, self.predicted, self.classes)

    @functools.cached_property
    def _counts(self) -> tuple[Array, Array, Array]:
        """Rows per class: called rightly, true, and called; [K] each."""
        right = self.labels[self.predicted == self.labels]
        rightly, true, called = (
            np.bincount(rows, minlength=self.classes) for rows in (right, self.labels, self.predicted)
        )
        return rightly, true, called

    def per_class(self) -> list[dict[str, float | None]]:
        """Precision, recall, F1 and rows of every class, in the order of the classes."""
        return [
            {"precision": ratio(r, c), "recall": ratio(r, t), "f1": ratio(2 * r, t + c), "rows": t}
            for r, t, c in zip(*(count.tolist() for count in self._counts), strict=True)
        ]

    def metrics(self) -> dict[str, float | None]:
        """Every metric of `MULTICLASS`; None where the rows do not define it."""
        accuracy = float(np.mean(self.predicted == self.labels))
        f1 = [of_class["f1"] for of_class in self.per_class() if of_class["f1"] is not None]
        return {
            "accuracy": accuracy,
            "macro_f1": float(np.mean(f1)),
            "kappa": self._kappa(accuracy),
            "log_loss": log_loss(self.likelihood),
            "calibration_error": self.reliability.expected_error(),
            "confidence_mean": float(np.mean(self.confidence, dtype=np.float64)),
        }

    def _kappa(self, accuracy: float) -> float | None:
        """Cohen's kappa (1960); undefined when both the labels and the model know one class only."""
        _, true, called = self._counts
        by_chance = float((true / len(self)) @ (called / len(self)))
        return ratio(accuracy - by_chance, 1 - by_chance)

    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the accuracy (Wilson)."""
        low, high = wilson_interval(np.sum(self.predicted == self.labels), len(self))
        return float(low), float(high)


@dataclass(frozen=True)
class RegressionScores:
    """Predictions of a number.

    Args:
        labels: float64 [N].
        predictions: float32 [N].
    """

    labels: Array
    predictions: Array

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.labels)

    def take(self, rows: Array) -> "RegressionScores":
        """The same for the rows with these indices."""
        return RegressionScores(self.labels[rows], self.predictions[rows])

    def conclusive(self) -> bool:
        """Always: the number of rows is all that counts."""
        return True

    @functools.cached_property
    def errors(self) -> Array:
        """Prediction minus label, float64 [N]."""
        return self.predictions - self.labels

    @functools.cached_property
    def reliability(self) -> Reliability:
        """Mean prediction against mean label."""
        return Reliability.of(self.predictions, self.labels)

    def metrics(self) -> dict[str, float | None]:
        """Every metric of `REGRESSION`; None where the rows do not define it."""
        squared = float(np.mean(self.errors**2))
        # The variance of equal numbers need not come out as 0 in floating point.
        variance = float(np.var(self.labels)) if np.ptp(self.labels) else 0.0
        unexplained = ratio(squared, variance)
        return {
            "mae": float(np.mean(np.abs(self.errors))),
            "rmse": math.sqrt(squared),
            "r2": None if unexplained is None else 1 - unexplained,
            "bias": float(np.mean(self.errors)),
            "prediction_mean": float(np.mean(self.predictions, dtype=np.float64)),
            "label_mean": float(np.mean(self.labels)),
        }

    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean absolute error (normal approximation)."""
        if len(self) < 2:
            return None
        absolute = np.abs(self.errors)
        mean, margin = float(np.mean(absolute)), Z95 * float(np.std(absolute, ddof=1)) / math.sqrt(len(self))
        return max(0.0, mean - margin), mean + margin


def concatenate(parts: list[Any]) -> Any:
    """Scores of one task, collected batch by batch, as one; what is not an array is the same in every part."""
    first = parts[0]
    values = {field.name: getattr(first, field.name) for field in dataclasses.fields(first)}
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name, value in values.items()
        if isinstance(value, np.ndarray)
    }
    return dataclasses.replace(first, **arrays)


def confusion_matrix(true: Array, called: Array, classes: int) -> Array:
    """Rows by true class (down) and called class (across).

    Args:
        true: bool or int [N], class indices.
        called: bool or int [N], class indices.

    Returns:
        int64 [classes, classes].
    """
    cell = true.astype(np.int64) * classes + called
    return np.bincount(cell, minlength=classes * classes).reshape(classes, classes)


def log_loss(likelihood: Array) -> float:
    """Mean negative log likelihood of float [N] probabilities of what happened, in nats."""
    return -float(np.mean(np.log(np.maximum(likelihood, SMALLEST_PROBABILITY, dtype=np.float64))))


def wilson_interval(successes: Array | float, trials: Array | float) -> tuple[Array, Array]:
    """95 % interval of a share (E. B. Wilson, "Probable inference", JASA 1927).

    Args:
        successes: successes per group.
        trials: trials per group, at least 1.

    Returns:
        Lower and upper bounds, within 0..1.
    """
    share = np.asarray(successes) / trials
    centre = share + Z95**2 / (2 * np.asarray(trials))
    margin = Z95 * np.sqrt(share * (1 - share) / trials + (Z95 / (2 * np.asarray(trials))) ** 2)
    scale = 1 + Z95**2 / np.asarray(trials)
    return np.maximum(0, (centre - margin) / scale), np.minimum(1, (centre + margin) / scale)


def ratio(part: float, whole: float) -> float | None:
    """`part / whole`, or None when there is nothing to divide by."""
    return part / whole if whole else None
