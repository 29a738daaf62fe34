"""One pass over a split: every batch goes through the model (and the baseline), and only scores are kept."""

import concurrent.futures
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kfp_hybrid.components.evaluation.evaluate_model.request import Request
from kfp_hybrid.components.evaluation.evaluate_model.slices import Slice, SliceColumn, slice_column
from kfp_hybrid.scoring.metrics import (
    BinaryScores,
    MulticlassScores,
    RegressionScores,
    concatenate,
)
from kfp_hybrid.scoring.saved_model import ServingModel
from kfp_hybrid.step import StepError

Array = np.ndarray[Any, Any]

SECONDS_BETWEEN_LOGS = 5.0
PROBABILITY_TOLERANCE = 0.01  # scores may be rounded, as a model in float16 rounds them


@dataclass(frozen=True)
class ScoredSplit:
    """The scored rows of a split.

    Args:
        model: the model's scores, one entry per row that has a label.
        baseline: the baseline's on the same rows, or None.
        slices: all slices, of any size.
        unlabelled: rows without a label, which are left out.
    """

    model: Any
    baseline: Any
    slices: list[Slice]
    unlabelled: int


def score_split(request: Request) -> ScoredSplit:
    """Score every labelled row of the request's split.

    Raises:
        StepError: a model cannot be used on these rows, or the rows cannot be evaluated.
    """
    models = [ServingModel(request.model, "model")]
    if request.baseline:
        models.append(ServingModel(request.baseline, "baseline"))
    for model in models:
        model.require(request.examples.columns)

    collected: list[list[Any]] = [[] for _ in models]
    columns = [slice_column(name, request.examples.columns[name]) for name in request.slice_columns]
    labelled, started = 0, time.monotonic()
    for batch in _labelled_batches(request, models, columns):
        labels = _labels(request, batch)
        labelled += len(labels)
        for model, parts in zip(models, collected, strict=True):
            parts.append(_scores(request, model, labels, model.score(batch)))
        for column in columns:
            column.add(batch.column(column.name))

    total = request.examples.rows(request.split)
    logging.info("scored %d rows in %.1f s", total, time.monotonic() - started)
    if not labelled:
        raise StepError(f"none of the {total} rows of split {request.split!r} has a label in {request.answer.label!r}")
    if labelled < total:
        logging.warning("%d rows without a label are left out", total - labelled)
    scores = [concatenate(parts) for parts in collected]
    _require_both_classes(request, scores[0])
    return ScoredSplit(
        model=scores[0],
        baseline=scores[1] if request.baseline else None,
        slices=[slice_ for column in columns for slice_ in column.slices(request.slice_buckets)],
        unlabelled=total - labelled,
    )


def _labelled_batches(
    request: Request, models: list[ServingModel], columns: list[SliceColumn]
) -> Iterator[pa.RecordBatch]:
    """The batches without their unlabelled rows, one read ahead while the models work; logs progress."""
    names = {request.answer.label, *(column.name for column in columns)}.union(*(model.columns for model in models))
    batches = request.examples.batches(request.split, sorted(names), request.batch_size)
    total, done = request.examples.rows(request.split), 0
    last_log = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = reader.submit(next, batches, None)
            done += batch.num_rows
            if labelled := _with_label(batch, request.answer.label):
                yield labelled
            if time.monotonic() - last_log > SECONDS_BETWEEN_LOGS:
                logging.info("scored %d of %d rows", done, total)
                last_log = time.monotonic()


def _with_label(batch: pa.RecordBatch, label: str) -> pa.RecordBatch | None:
    """The batch's rows that have a label; None when there are none."""
    missing = pc.is_null(batch.column(label), nan_is_null=True)
    if missing.true_count:
        batch = batch.filter(pc.invert(missing))
    return batch if batch.num_rows else None


def _labels(request: Request, batch: pa.RecordBatch) -> Array:
    """Class positions, or for a regression the float64 labels."""
    values = batch.column(request.answer.label)
    if request.answer.task != "regression":
        return request.answer.encoder().encode_labels(values)
    numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if not np.isfinite(numbers).all():
        raise StepError(f"label {request.answer.label!r} holds infinite values; remove those rows")
    return numbers


def _scores(request: Request, model: ServingModel, labels: Array, scores: Array) -> Any:
    """What is kept of a batch's scores, float32 [N, K], in the order of the request's classes."""
    task, classes = request.answer.task, len(request.answer.classes)
    is_baseline = model.role == "baseline"
    if task == "regression":
        _require_width(model, scores, (1,), task)
        return RegressionScores(labels, scores[:, 0])
    _require_width(model, scores, (1, 2) if task == "binary" else (classes,), task)
    _require_probabilities(model, scores)
    if scores.shape[1] == 1:
        scores = np.hstack([1 - scores, scores])
    if is_baseline:
        scores = scores[:, request.baseline_order]
    if task == "binary":
        return BinaryScores(labels == 1, scores[:, 1], request.decision_threshold)
    return MulticlassScores.of(labels, scores)


def _require_width(model: ServingModel, scores: Array, widths: tuple[int, ...], task: str) -> None:
    if scores.shape[1] not in widths:
        expected = " or ".join(map(str, widths))
        raise StepError(
            f"the {model.role} returns {scores.shape[1]} scores per row; expected {expected} for the {task} task"
        )


def _require_probabilities(model: ServingModel, scores: Array) -> None:
    low, high = float(scores.min()), float(scores.max())
    if low < 0 or high > 1:
        raise StepError(
            f"the {model.role} returns scores between {low:.3g} and {high:.3g}, which are no probabilities; "
            "export it with a sigmoid or softmax at its end"
        )
    if scores.shape[1] > 1 and (off := float(np.abs(scores.sum(axis=1) - 1).max())) > PROBABILITY_TOLERANCE:
        raise StepError(
            f"the {model.role} returns class scores whose sum is off 1 by up to {off:.3g}; "
            "export it with a softmax at its end"
        )


def _require_both_classes(request: Request, scores: Any) -> None:
    if request.answer.task != "binary":
        return
    positives = int(np.sum(scores.labels))
    if positives in (0, len(scores)):
        only = request.answer.classes[1 if positives else 0]
        raise StepError(
            f"all {len(scores)} rows of split {request.split!r} have the label {only!r}, so the AUC is undefined; "
            "evaluate on a split with both classes"
        )
