"""How the scores of one model differ from those of another, or of the same one elsewhere, on the same rows."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfp_hybrid.edge.model import decisions
from kfp_hybrid.scoring.answer import Answer
from kfp_hybrid.scoring.difference import differences

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Comparison:
    """Scores beside the scores that they are compared with.

    Attributes:
        scores: float64 [N, outputs], NaN where there is none.
        reference: Likewise.
        answer: What they are about; None when nobody says.
    """

    scores: Array
    reference: Array
    answer: Answer | None

    @property
    def rows(self) -> int:
        """How many rows were compared."""
        return len(self.scores)

    @property
    def differences(self) -> Array:
        """float64 [N]: of the row's scores, the largest difference, as `kfp_hybrid.scoring.difference` measures it.

        It is infinite where one of the two has no score, and 0 where neither has.
        """
        return differences(self.scores, self.reference).max(axis=1)

    @property
    def max_difference(self) -> float:
        """The largest difference of a row."""
        return float(self.differences.max(initial=0.0))

    @property
    def mean_difference(self) -> float:
        """The mean difference of the rows, in the unit in which export_tflite limits it.

        For a regression these are standard deviations of the reference, so that a limit needs no unit.
        """
        if self.answer is None or self.answer.task != "regression":
            return float(self.differences.mean())
        return float(np.abs(self.scores - self.reference).mean()) / (float(np.std(self.reference)) or 1.0)

    @property
    def worst_row(self) -> int:
        """The position of the row with the largest difference."""
        return int(np.argmax(self.differences))

    @property
    def has_decisions(self) -> bool:
        """Whether a score decides for a class."""
        return self.answer is not None and self.answer.task != "regression"

    @property
    def changes(self) -> Counter[tuple[str, str]]:
        """Changed decisions: (class by the reference, class by the scores) -> rows; none without classes."""
        if self.answer is None or not self.has_decisions:
            return Counter()
        before, after = decisions(self.reference), decisions(self.scores)
        names = [str(value) for value in self.answer.classes]
        changed = np.flatnonzero(before != after)
        return Counter((names[before[row]], names[after[row]]) for row in changed)

    @property
    def changed_fraction(self) -> float:
        """The share of the rows whose decision changes."""
        return self.changes.total() / self.rows if self.rows else 0.0

    @property
    def shift(self) -> float:
        """How far the distribution of the scores has moved, 0 to 1: the largest distance of the two cumulative ones.

        This is the statistic of Kolmogorov and Smirnov; with several scores per row the largest one counts.
        """
        columns = zip(self.reference.T, self.scores.T, strict=True)
        return max((_largest_distance(before, after) for before, after in columns), default=0.0)


def comparable(scores: Array, reference: Array) -> bool:
    """Whether two models give equally many scores per row."""
    return scores.shape == reference.shape


def _largest_distance(before: Array, after: Array) -> float:
    before, after = (np.sort(values[np.isfinite(values)]) for values in (before, after))
    if not len(before) or not len(after):
        return 0.0 if len(before) == len(after) else 1.0
    at = np.concatenate([before, after])
    shares = [np.searchsorted(values, at, side="right") / len(values) for values in (before, after)]
    return float(np.abs(shares[0] - shares[1]).max())
