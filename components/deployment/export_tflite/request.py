"""What is to be exported, checked before anything expensive is loaded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_hybrid.components.deployment.export_tflite.quantization import CALIBRATED, FLOAT32, QUANTIZATIONS
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.preprocessing import FILE_NAME, Preprocessing
from kfp_hybrid.scoring.answer import Answer, find_answer
from kfp_hybrid.step import StepError

POLICIES = ("smallest", "fastest", "most-accurate")


@dataclass(frozen=True)
class Limits:
    """What a variant may differ from the SavedModel and cost.

    Attributes:
        mean_difference: largest mean absolute difference of the scores (regression: in standard deviations).
        flip_fraction: largest share of the rows whose decision changes (classification).
        metric_drop: largest loss of AUC or accuracy, or relative growth of the mean absolute error.
        correlation: smallest correlation of the scores.
        latency_ms: largest p99 with one row and one thread, in milliseconds; 0 = no limit.
        size_bytes: largest size; 0 = no limit.
    """

    mean_difference: float
    flip_fraction: float
    metric_drop: float
    correlation: float = 0.95
    latency_ms: float = 0.0
    size_bytes: int = 0


# Several times what a healthy variant of a tabular model shows, and far below what a broken one does; docs.md has both.
DEFAULT_LIMITS = {
    "float32": Limits(mean_difference=0.0001, flip_fraction=0.001, metric_drop=0.0001),
    "float16": Limits(mean_difference=0.001, flip_fraction=0.005, metric_drop=0.001),
    "dynamic_range": Limits(mean_difference=0.01, flip_fraction=0.02, metric_drop=0.005),
    "int8": Limits(mean_difference=0.03, flip_fraction=0.03, metric_drop=0.01),
    "aeq_weight_only": Limits(mean_difference=0.01, flip_fraction=0.02, metric_drop=0.005),
    "aeq_int8": Limits(mean_difference=0.03, flip_fraction=0.03, metric_drop=0.01),
}


@dataclass(frozen=True)
class Request:
    """A checked request.

    Attributes:
        model: SavedModel directory.
        examples: the examples artifact.
        answer: what the scores are about.
        preprocessing: the model's constants; None for a model that takes numeric columns as they are.
        quantizations: variants that a policy chooses from.
        select: a policy, or the one variant that is wanted.
        split: split to compare on; has rows.
        sample_rows: rows of it to compare.
        calibration_split: split that the representative rows for quantized activations come from.
        calibration_rows: how many.
        limits: quantization -> limits.
    """

    model: Path
    examples: Examples
    answer: Answer
    preprocessing: Preprocessing | None
    quantizations: tuple[str, ...]
    select: str
    split: str
    sample_rows: int
    calibration_split: str
    calibration_rows: int
    limits: dict[str, Limits]

    @property
    def made(self) -> tuple[str, ...]:
        """All variants to make: float32 is always one of them, as what to fall back on and what others are made of."""
        return tuple(dict.fromkeys([FLOAT32, *self.quantizations]))

    @property
    def calibrates(self) -> bool:
        """Whether a variant needs representative rows."""
        return any(name in CALIBRATED for name in self.quantizations)

    @property
    def has_labels(self) -> bool:
        """Whether the examples have the label column, so that a metric can be computed."""
        return self.answer.label in self.examples.columns


def check_request(
    model: Path,
    examples: Path,
    *,
    quantizations: Sequence[str],
    select: str,
    split: str,
    sample_rows: int,
    calibration_split: str,
    calibration_rows: int,
    max_mean_difference: Mapping[str, float],
    max_flip_fraction: Mapping[str, float],
    max_metric_drop: Mapping[str, float],
    min_agreement: float,
    min_correlation: float,
    max_latency_ms: float,
    max_size_bytes: int,
    label: str,
    task: str,
    classes: Sequence[Any],
) -> Request:
    """Check every parameter against the examples and the model; imports no TensorFlow.

    Args:
        model: SavedModel directory.
        examples: examples directory.
        quantizations: variants to choose from.
        select: a policy or one of the variants.
        split: split to compare on.
        sample_rows: rows of it to compare, at least 1.
        calibration_split: split of the representative rows.
        calibration_rows: how many, at least 1.
        max_mean_difference: variant -> limit, where the default is not wanted.
        max_flip_fraction: likewise.
        max_metric_drop: likewise.
        min_agreement: share of rows whose decision must stay, for every variant without a max_flip_fraction of its own;
            0 = the defaults.
        min_correlation: for all variants.
        max_latency_ms: for all variants; 0 = no limit.
        max_size_bytes: for all variants; 0 = no limit.
        label: the label column; "" for the one the model names.
        task: "auto" for the one the model names.
        classes: class values; empty for those the model names.

    Raises:
        StepError: the first thing that is wrong.
    """
    _check_names(quantizations, select)
    _check_counts(sample_rows=sample_rows, calibration_rows=calibration_rows)
    limits = _limits(
        {"mean_difference": max_mean_difference, "flip_fraction": max_flip_fraction, "metric_drop": max_metric_drop},
        **_flip_fraction(min_agreement),
        correlation=_number("min_correlation", min_correlation, least=-1),
        latency_ms=_number("max_latency_ms", max_latency_ms),
        size_bytes=int(_number("max_size_bytes", max_size_bytes)),
    )
    answer = find_answer(model, label, task, classes)
    if min_agreement and answer.task == "regression":
        raise StepError("min_agreement is about decisions, but the model is a regression; give max_mean_difference")
    constants = model / "assets.extra" / FILE_NAME
    preprocessing = Preprocessing.load(constants) if constants.is_file() else None
    rows = Examples.open(examples)
    _check_split(rows, "split", split)
    if preprocessing:
        _check_features(rows, preprocessing.features)
    request = Request(
        model=model,
        examples=rows,
        answer=answer,
        preprocessing=preprocessing,
        quantizations=tuple(dict.fromkeys(quantizations)),
        select=select,
        split=split,
        sample_rows=sample_rows,
        calibration_split=calibration_split,
        calibration_rows=calibration_rows,
        limits=limits,
    )
    if request.calibrates:
        _check_split(rows, "calibration_split", calibration_split)
    return request


def _check_names(quantizations: Sequence[str], select: str) -> None:
    if not quantizations:
        raise StepError(f"quantizations is empty; give at least one of {', '.join(QUANTIZATIONS)}")
    if unknown := [name for name in quantizations if name not in QUANTIZATIONS]:
        raise StepError(f"quantizations: {unknown[0]!r} is unknown; it must be one of {', '.join(QUANTIZATIONS)}")
    if select not in (*POLICIES, *quantizations):
        choice = ", ".join([*POLICIES, *quantizations])
        raise StepError(f"select is {select!r}; it must be a policy or one of the quantizations: {choice}")


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise StepError(f"{name} is {value}; it must be at least 1")


def _limits(given: Mapping[str, Mapping[str, float]], **common: Any) -> dict[str, Limits]:
    """The default limits of every variant, changed as the user wants."""
    limits = {name: vars(default) | common for name, default in DEFAULT_LIMITS.items()}
    for key, values in given.items():
        for name, value in values.items():
            if name not in QUANTIZATIONS:
                raise StepError(f"max_{key}: {name!r} is unknown; its keys are {', '.join(QUANTIZATIONS)}")
            limits[name][key] = _number(f"max_{key} of {name}", value)
    return {name: Limits(**values) for name, values in limits.items()}


def _flip_fraction(min_agreement: float) -> dict[str, float]:
    """The limit that replaces the defaults, if there is one."""
    agreement = _number("min_agreement", min_agreement, most=1)
    return {"flip_fraction": round(1 - agreement, 9)} if agreement else {}


def _number(name: str, value: Any, least: float = 0, most: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < least:
        raise StepError(f"{name} is {value!r}; it must be a number of at least {least}")
    if value > most:
        raise StepError(f"{name} is {value!r}; it must be at most {most}")
    return float(value)


def _check_split(examples: Examples, parameter: str, split: str) -> None:
    if split not in examples.splits:
        raise StepError(f"{parameter}: the examples have no split {split!r}, only {', '.join(examples.splits)}")
    if not examples.rows(split):
        raise StepError(f"{parameter}: split {split!r} of {examples.path} has no rows; give another one")


def _check_features(examples: Examples, features: Sequence[str]) -> None:
    if missing := [name for name in features if name not in examples.columns]:
        raise StepError(
            f"the examples in {examples.path} lack the column {missing[0]!r}, which the model needs "
            f"({len(missing)} of {len(features)} are missing); export with the examples it was trained on"
        )
