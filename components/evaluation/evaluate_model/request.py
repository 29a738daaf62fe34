"""What is to be evaluated, checked before anything expensive is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_hybrid.components.evaluation.evaluate_model.thresholds import Threshold, parse_thresholds
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.scoring.answer import Answer, find_answer
from kfp_hybrid.scoring.saved_model import saved_preprocessing
from kfp_hybrid.step import StepError


@dataclass(frozen=True)
class Request:
    """A checked request.

    Args:
        examples: the examples artifact.
        split: the split to evaluate on; has rows.
        model: SavedModel directory.
        baseline: SavedModel directory to compare with, or None.
        answer: what the scores are about.
        baseline_order: the baseline's score columns in the order of `answer.classes`.
        thresholds: what the model must reach.
        slice_columns: columns of the examples.
        slice_buckets: equally filled buckets that a numeric slice column is cut into.
        minimum_slice_rows: smaller slices are not measured.
        decision_threshold: a row is called positive when its score is at least this (binary).
        batch_size: rows per call of the model.
    """

    examples: Examples
    split: str
    model: Path
    baseline: Path | None
    answer: Answer
    baseline_order: list[int]
    thresholds: list[Threshold]
    slice_columns: list[str]
    slice_buckets: int
    minimum_slice_rows: int
    decision_threshold: float
    batch_size: int


def check_request(
    examples: Path,
    model: Path,
    baseline: Path | None,
    *,
    split: str,
    label: str,
    task: str,
    classes: Sequence[Any],
    thresholds: Mapping[str, Any],
    slice_columns: Sequence[str],
    slice_buckets: int,
    minimum_slice_rows: int,
    decision_threshold: float,
    batch_size: int,
) -> Request:
    """Check every parameter against the examples and the models; imports no TensorFlow.

    Args:
        examples: examples artifact.
        model: SavedModel directory.
        baseline: SavedModel directory, or None.
        split: the split to evaluate on.
        label: the label column, "" for the one the model names.
        task: "auto" for the one the model names.
        classes: class values in the order of the scores, empty for those the model names.
        thresholds: metric -> key -> limit, empty for the task's defaults.
        slice_columns: columns to slice by.
        slice_buckets: buckets of a numeric slice column, at least 2.
        minimum_slice_rows: rows of the smallest slice, at least 1.
        decision_threshold: between 0 and 1.
        batch_size: rows per call of the model, at least 1.

    Raises:
        StepError: the first thing that is wrong.
    """
    for name, value, least in (
        ("slice_buckets", slice_buckets, 2),
        ("minimum_slice_rows", minimum_slice_rows, 1),
        ("batch_size", batch_size, 1),
    ):
        if value < least:
            raise StepError(f"{name} is {value}; it must be at least {least}")
    if not 0 < decision_threshold < 1:
        raise StepError(f"decision_threshold is {decision_threshold:g}; it must lie between 0 and 1")
    answer = find_answer(model, label, task, classes)
    limits = parse_thresholds(thresholds, answer.task, bool(slice_columns))
    rows = Examples.open(examples)
    if not rows.rows(split):
        raise StepError(f"split {split!r} of {examples} has no rows; there is nothing to evaluate on")
    _check_columns(rows, answer, slice_columns)
    return Request(
        examples=rows,
        split=split,
        model=model,
        baseline=baseline,
        answer=answer,
        baseline_order=_baseline_order(baseline, answer) if baseline else [],
        thresholds=limits,
        slice_columns=list(dict.fromkeys(slice_columns)),
        slice_buckets=slice_buckets,
        minimum_slice_rows=minimum_slice_rows,
        decision_threshold=decision_threshold,
        batch_size=batch_size,
    )


def _check_columns(examples: Examples, answer: Answer, slice_columns: Sequence[str]) -> None:
    available = ", ".join(examples.columns)
    if answer.label not in examples.columns:
        raise StepError(f"the examples have no label column {answer.label!r}; their columns are {available}")
    if answer.task == "regression" and examples.columns[answer.label] == "string":
        raise StepError(f"label {answer.label!r} is text in the examples, but the model predicts a number")
    for column in slice_columns:
        if column not in examples.columns:
            raise StepError(f"slice_columns: the examples have no column {column!r}; their columns are {available}")


def _baseline_order(baseline: Path, answer: Answer) -> list[int]:
    """The baseline's score columns in the order of the model's classes."""
    if not (baseline / "saved_model.pb").is_file():
        raise StepError(f"the baseline {baseline} is not a SavedModel: it has no saved_model.pb")
    other = saved_preprocessing(baseline)
    if other is None:  # it says nothing, so it is taken to answer the same question
        return list(range(len(answer.classes)))
    if other.task != answer.task:
        raise StepError(f"the baseline was trained for {other.task}, the model for {answer.task}; leave it out")
    own, others = list(map(str, answer.classes)), list(map(str, other.label.classes))
    if sorted(own) != sorted(others):
        raise StepError(
            f"the baseline's classes are {others}, the model's {own}; they cannot be compared: leave it out"
        )
    return [others.index(name) for name in own]
