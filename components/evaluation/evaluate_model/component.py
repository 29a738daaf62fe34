"""Interface of evaluate_model."""

from typing import NamedTuple

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def evaluate_model(
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    baseline: dsl.Input[dsl.Model] | None = None,
    split: str = "eval",
    slice_columns: list[str] = [],  # noqa: B006
    thresholds: dict[str, dict[str, float]] = {},  # noqa: B006
    minimum_slice_rows: int = 200,
    slice_buckets: int = 5,
    decision_threshold: float = 0.5,
    label: str = "",
    task: str = "auto",
    classes: list[str] = [],  # noqa: B006
    batch_size: int = 16384,
    fail_if_not_blessed: bool = False,
) -> NamedTuple("Outputs", [("blessed", bool), ("reason", str)]):  # type: ignore[valid-type]
    """Measure a model on a split, overall and per slice, compare it with a baseline, and bless it or not.

    Args:
        examples: Examples to evaluate on (from ingest_examples).
        model: SavedModel whose serving_default takes raw features (from train_model, or any other with one output).
        baseline: SavedModel to compare with on the same rows, usually the one in production. Without it, thresholds on
            changes are skipped.
        split: Split to evaluate on.
        slice_columns: Columns to slice by. Text and numbers of at most 24 distinct values make one slice per value,
            other numbers are cut into buckets of equally many rows.
        thresholds: What the model must reach, as {"auc": {"min": 0.8, "min_change": -0.005, "slice_min": 0.7}}. The
            keys are min and max (the metric itself), min_change and max_change (metric minus baseline), and the same
            with slice_ before them (every slice). Empty means the defaults of the task.
        minimum_slice_rows: Smaller slices are neither measured nor judged.
        slice_buckets: Buckets of a numeric slice column.
        decision_threshold: A row is called positive when its score is at least this (binary only).
        label: Label column. Empty means the one the model names.
        task: binary, multiclass or regression. "auto" means the one the model names.
        classes: Class values in the order of the model's scores, for a model that does not name them.
        batch_size: Rows per call of the model.
        fail_if_not_blessed: Fail the step when the model is not blessed, after the report is written.

    Returns:
        evaluation: evaluation.json with every metric, slice and verdict, for later runs to compare with.
        metrics: The metrics of the whole split, their change against the baseline, and the worst slice's.
        classification: ROC curve and confusion matrix, which both consoles draw. Empty for a regression.
        report: Self-contained HTML: verdict, key figures, curves, calibration, slices from worst to best.
        blessed: Whether every threshold holds.
        reason: The verdict in one sentence, with the worst slice and the numbers that decided.
    """
    from pathlib import Path

    from kfp_hybrid.components.evaluation.evaluate_model.evaluate import evaluate_model
    from kfp_hybrid.step import step

    with step():
        return evaluate_model(
            examples=Path(examples.path),
            model=Path(model.path),
            baseline=Path(baseline.path) if baseline else None,
            evaluation=evaluation,
            metrics=metrics,
            classification=classification,
            report=Path(report.path),
            fail_if_not_blessed=fail_if_not_blessed,
            split=split,
            label=label,
            task=task,
            classes=classes,
            thresholds=thresholds,
            slice_columns=slice_columns,
            slice_buckets=slice_buckets,
            minimum_slice_rows=minimum_slice_rows,
            decision_threshold=decision_threshold,
            batch_size=batch_size,
        )
