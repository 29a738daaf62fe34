"""An evaluation: a split is scored, measured overall and per slice, and judged."""

import logging
from collections import defaultdict
from dataclasses import dataclass

from kfp_hybrid.components.evaluation.evaluate_model.request import Request
from kfp_hybrid.components.evaluation.evaluate_model.scoring import ScoredSplit, score_split
from kfp_hybrid.components.evaluation.evaluate_model.thresholds import (
    Measurement,
    Verdict,
    judge,
    reason,
    worst_first,
)
from kfp_hybrid.scoring.metrics import Scores


@dataclass(frozen=True)
class Evaluation:
    """Everything that was found out.

    Args:
        request: what was asked.
        scored: the scores of the model and of the baseline, and the rows of every slice.
        overall: the whole split.
        slices: the slices of at least the minimum size, worst first.
        small_slices: column -> (slices below the minimum size, their rows).
        verdicts: one per threshold.
        reason: the verdict in one sentence.
    """

    request: Request
    scored: ScoredSplit
    overall: Measurement
    slices: list[Measurement]
    small_slices: dict[str, tuple[int, int]]
    verdicts: list[Verdict]
    reason: str

    @property
    def blessed(self) -> bool:
        """Whether no threshold fails."""
        return not any(verdict.passed is False for verdict in self.verdicts)

    @property
    def worst_slice(self) -> Measurement | None:
        """The worst of the slices that can be judged; None when there is none."""
        return next((group for group in self.slices if group.conclusive), None)


def evaluate(request: Request) -> Evaluation:
    """Score, measure and judge.

    Raises:
        StepError: a model cannot be used on these rows, or the rows cannot be evaluated.
    """
    scored = score_split(request)
    overall = _measure("", "", "", scored.model, scored.baseline)
    slices, small_slices = _measure_slices(scored, request.minimum_slice_rows)
    slices = worst_first(slices, request.answer.task)
    verdicts = judge(request.thresholds, overall, slices)
    logging.info("measured %d slices", len(slices))
    return Evaluation(
        request=request,
        scored=scored,
        overall=overall,
        slices=slices,
        small_slices=small_slices,
        verdicts=verdicts,
        reason=reason(verdicts, overall, slices, request.answer.task),
    )


def _measure_slices(scored: ScoredSplit, minimum_rows: int) -> tuple[list[Measurement], dict[str, tuple[int, int]]]:
    measured = []
    small: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for group in scored.slices:
        if len(group.rows) < minimum_rows:
            slices, rows = small[group.column]
            small[group.column] = slices + 1, rows + len(group.rows)
            continue
        baseline = None if scored.baseline is None else scored.baseline.take(group.rows)
        measured.append(_measure(group.name, group.column, group.value, scored.model.take(group.rows), baseline))
    return measured, dict(small)


def _measure(name: str, column: str, value: str, scores: Scores, baseline: Scores | None) -> Measurement:
    return Measurement(
        name=name,
        column=column,
        column_value=value,
        rows=len(scores),
        metrics=scores.metrics(),
        baseline=None if baseline is None else baseline.metrics(),
        interval=scores.interval(),
        conclusive=scores.conclusive(),
    )
