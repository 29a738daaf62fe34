"""The step: convert, compare every variant with the SavedModel, select one, and write the edge bundle."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kfp_hybrid.components.deployment.export_tflite.conversion import Job
from kfp_hybrid.components.deployment.export_tflite.converter import Conversion, run_conversion
from kfp_hybrid.components.deployment.export_tflite.outputs import describe_metrics, write_edge_bundle
from kfp_hybrid.components.deployment.export_tflite.report import write_report
from kfp_hybrid.components.deployment.export_tflite.request import Request, check_request
from kfp_hybrid.components.deployment.export_tflite.sampling import sample_rows
from kfp_hybrid.components.deployment.export_tflite.variants import Sample, Variant, explain, measure_variants, select
from kfp_hybrid.edge.bundle import write_rejection
from kfp_hybrid.edge.litert import LiteRTModel
from kfp_hybrid.edge.model import plain_inputs
from kfp_hybrid.step import StepError


def export_tflite(
    model: Path, examples: Path, *, bundle: Any, metrics: Any, report: Path, fail_if_rejected: bool, **parameters: Any
) -> tuple[bool, str]:
    """Export a SavedModel to TFLite and say whether a variant of it may take its place.

    Args:
        model: SavedModel directory.
        examples: examples directory.
        bundle: dsl.Model, gets the edge bundle of the selected variant, or why there is none.
        metrics: dsl.Metrics.
        report: the HTML file to write.
        fail_if_rejected: raise after everything is written when no variant is selected.
        **parameters: those of `check_request`.

    Returns:
        Whether a variant was selected, and why, in one sentence.

    Raises:
        StepError: bad input, or nothing was selected and `fail_if_rejected`.
    """
    request = check_request(model, examples, **parameters)
    rows, sample, variants = convert_and_measure(request)
    selected = select(variants, request.select, request.quantizations)
    reason = explain(variants, selected, request.select, request.quantizations, request.split)
    if selected:
        bundle.metadata.update(write_edge_bundle(Path(bundle.path), request, rows, sample, selected))
    else:
        write_rejection(bundle.path, reason)
    bundle.metadata.update(accepted=bool(selected), reason=reason)
    for name, value in describe_metrics(variants, selected).items():
        metrics.log_metric(name, value)
    write_report(report, request, variants, selected, reason)
    logging.info("%s", reason)
    if fail_if_rejected and not selected:
        raise StepError(f"{reason}; the report is at {report}")
    return bool(selected), reason


def convert_and_measure(request: Request) -> tuple[pa.RecordBatch, Sample, list[Variant]]:
    """Make every variant and run it on the sample.

    Returns:
        The raw rows of the sample, what was made of them, and the variants in the order of the request.
    """
    with tempfile.TemporaryDirectory(prefix="export_tflite.") as folder:
        conversion = run_conversion(
            Job(
                model=str(request.model),
                examples=str(request.examples.path),
                split=request.split,
                sample_rows=request.sample_rows,
                calibration_split=request.calibration_split,
                calibration_rows=request.calibration_rows,
                quantizations=request.made,
                folder=folder,
            )
        )
    rows, sample = _read_sample(request, conversion)
    measured = measure_variants(conversion.variants, sample, request.limits)
    failed = [Variant(quantization, failure=why) for quantization, why in conversion.failures.items()]
    return rows, sample, sorted([*measured, *failed], key=lambda v: request.made.index(v.quantization))


def _read_sample(request: Request, conversion: Conversion) -> tuple[pa.RecordBatch, Sample]:
    """The rows that the SavedModel has scored, prepared by the code that a device runs."""
    if request.preprocessing:
        features = request.preprocessing.features
    else:
        plain = LiteRTModel(next(iter(conversion.variants.values()))).inputs
        features = list(plain)
    columns = [*features, *([request.answer.label] if request.has_labels else [])]
    rows = sample_rows(request.examples, request.split, request.sample_rows, list(dict.fromkeys(columns)))
    inputs = request.preprocessing.transform(rows) if request.preprocessing else plain_inputs(rows, plain)
    labels = _labels(request, rows.column(request.answer.label)) if request.has_labels else None
    return rows.select(features), Sample(inputs, conversion.reference, request.answer.task, labels)


def _labels(request: Request, values: pa.Array) -> np.ndarray | None:
    """Class positions or values, float64 [N], NaN where a row has no label; None when no row has one."""
    present = pc.invert(pc.is_null(values, nan_is_null=True))
    if not present.true_count:
        return None
    labels = np.full(len(values), np.nan)
    labels[present.to_numpy(zero_copy_only=False)] = request.answer.encoder().encode_labels(values.filter(present))
    return labels
