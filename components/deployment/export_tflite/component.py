"""The interface of export_tflite."""

from typing import NamedTuple

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def export_tflite(
    model: dsl.Input[dsl.Model],
    examples: dsl.Input[dsl.Dataset],
    bundle: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    quantizations: list[str] = [  # noqa: B006 - kfp reads the default
        "float32",
        "dynamic_range",
        "float16",
        "int8",
        "aeq_weight_only",
        "aeq_int8",
    ],
    select: str = "smallest",
    split: str = "eval",
    sample_rows: int = 10000,
    calibration_split: str = "train",
    calibration_rows: int = 1000,
    max_mean_difference: dict[str, float] = {},  # noqa: B006
    max_flip_fraction: dict[str, float] = {},  # noqa: B006
    max_metric_drop: dict[str, float] = {},  # noqa: B006
    min_agreement: float = 0.0,
    min_correlation: float = 0.95,
    max_latency_ms: float = 0.0,
    max_size_bytes: int = 0,
    label: str = "",
    task: str = "auto",
    classes: list = [],  # noqa: B006
    fail_if_rejected: bool = False,
) -> NamedTuple("Outputs", [("accepted", bool), ("reason", str)]):  # type: ignore[valid-type]
    """Convert a SavedModel to TFLite, measure every variant against it, and bundle the best one for a device.

    Each variant runs on the plain LiteRT interpreter (no Flex ops) on real rows. One that cannot be made, cannot be run
    or does not agree with the SavedModel is rejected with the reason.

    Args:
        model: The SavedModel: one of train_model, or any whose serving_default takes numeric columns only.
        examples: The examples that the variants are compared and calibrated on.
        quantizations: The variants to choose from: float32, dynamic_range (int8 weights), float16 (float16 weights),
            int8 (weights and activations), and of ai-edge-quantizer aeq_weight_only (int8 weights, computed in float32)
            and aeq_int8 (weights and activations). float32 is made in any case, to fall back on.
        select: Which accepted variant goes into the bundle: smallest, fastest, most-accurate, or the name of the only
            one you want. When a policy finds none of the variants acceptable, it takes float32, if that is.
        split: The split whose rows the variants are compared on.
        sample_rows: How many rows of it, spread over the split.
        calibration_split: The split whose rows calibrate int8 and aeq_int8.
        calibration_rows: How many rows of it, spread over the split.
        max_mean_difference: Largest mean absolute difference of the scores (regression: in standard deviations), by
            variant, where you do not want the default: float32 0.0001, float16 0.001, dynamic_range and aeq_weight_only
            0.01, int8 and aeq_int8 0.03.
        max_flip_fraction: Largest share of rows whose decision changes, likewise; by default float32 0.001, float16
            0.005, dynamic_range and aeq_weight_only 0.02, int8 and aeq_int8 0.03.
        max_metric_drop: Largest loss of AUC (binary) or accuracy (multiclass), or relative growth of the mean absolute
            error (regression), likewise; by default float32 0.0001, float16 0.001, dynamic_range and aeq_weight_only
            0.005, int8 and aeq_int8 0.01.
        min_agreement: Smallest share of rows whose decision stays, such as 0.99, for all variants that
            max_flip_fraction does not name; 0 for the defaults above.
        min_correlation: Smallest correlation of the scores with the SavedModel's, for all variants.
        max_latency_ms: Largest p99 latency of one row with one thread on the machine that runs this step; 0 for none.
        max_size_bytes: Largest size of the TFLite file; 0 for none.
        label: The label column. Empty takes the one the model names; needed for a model that names none.
        task: The same for the task: auto, binary, multiclass or regression.
        classes: The same for the class values, in the order of the scores.
        fail_if_rejected: Fail the step when no variant is accepted; otherwise it succeeds with accepted = False.

    Returns:
        bundle: The edge bundle of the selected variant: model.tflite, preprocessing constants, labels, samples for a
            self-test, and a manifest with checksums and what was measured. Without one it only says why.
        metrics: Size, agreement and latency of every variant.
        report: All of that as a page, with the verdict on top.
        accepted: Whether a variant was accepted and bundled.
        reason: Which one and with what numbers, or why there is none, in one sentence.
    """
    from pathlib import Path

    from kfp_hybrid.components.deployment.export_tflite.export import export_tflite
    from kfp_hybrid.step import step

    with step():
        return export_tflite(
            Path(model.path),
            Path(examples.path),
            bundle=bundle,
            metrics=metrics,
            report=Path(report.path),
            fail_if_rejected=fail_if_rejected,
            quantizations=quantizations,
            select=select,
            split=split,
            sample_rows=sample_rows,
            calibration_split=calibration_split,
            calibration_rows=calibration_rows,
            max_mean_difference=max_mean_difference,
            max_flip_fraction=max_flip_fraction,
            max_metric_drop=max_metric_drop,
            min_agreement=min_agreement,
            min_correlation=min_correlation,
            max_latency_ms=max_latency_ms,
            max_size_bytes=max_size_bytes,
            label=label,
            task=task,
            classes=classes,
        )
