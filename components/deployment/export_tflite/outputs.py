"""What an export leaves behind: the edge bundle, and numbers for the consoles."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kfp_hybrid.components.deployment.export_tflite.request import Request
from kfp_hybrid.components.deployment.export_tflite.variants import Sample, Variant
from kfp_hybrid.edge.bundle import LABELS, MODEL, PREPROCESSING, SAMPLES, write_bundle
from kfp_hybrid.preprocessing import FILE_NAME

SAMPLES_IN_BUNDLE = 20


def write_edge_bundle(
    path: Path, request: Request, rows: pa.RecordBatch, sample: Sample, variant: Variant
) -> dict[str, Any]:
    """Write the edge bundle of the selected variant and return the artifact's metadata.

    Args:
        path: the directory that appears.
        request: what was asked for.
        rows: raw rows of the sample, features only.
        sample: the sample.
        variant: the selected variant.
    """
    labels = {"task": request.answer.task, "label": request.answer.label, "classes": list(request.answer.classes)}
    files = {
        MODEL: variant.model,
        LABELS: _json(labels),
        SAMPLES: _json(_samples(rows, sample.reference, variant.scores)),
    }
    if request.preprocessing:
        files[PREPROCESSING] = (request.model / "assets.extra" / FILE_NAME).read_bytes()
    bundle = write_bundle(
        path,
        files,
        quantization=variant.quantization,
        agreement={**describe_agreement(variant), "split": request.split},
        latency=describe_latency(variant),
    )
    return {
        "quantization": variant.quantization,
        "size_bytes": variant.size,
        "sha256": bundle.sha256,
        "task": request.answer.task,
        **describe_agreement(variant),
        **describe_latency(variant),
    }


def describe_agreement(variant: Variant) -> dict[str, float]:
    """The agreement of a variant as plain numbers; those that are not defined are left out."""
    agreement = variant.agreement
    if agreement is None:
        return {}
    numbers = {
        "rows": agreement.rows,
        "mean_difference": agreement.mean_difference,
        "max_difference": agreement.max_difference,
        "flip_fraction": agreement.flips,
        "correlation": agreement.correlation,
        "metric": agreement.metric,
        "reference_metric": agreement.reference_metric,
        "metric_drop": agreement.metric_drop,
    }
    return {name: value for name, value in numbers.items() if value is not None}


def describe_latency(variant: Variant) -> dict[str, float]:
    """The latency of a variant as plain numbers, in microseconds."""
    return {
        f"{quantile}_us_{threads}_thread{'s' if threads > 1 else ''}": round(getattr(latency, quantile), 3)
        for threads, latency in variant.latency.items()
        for quantile in ("p50", "p99")
    }


def describe_metrics(variants: list[Variant], selected: Variant | None) -> dict[str, float | str]:
    """Sizes, latencies and agreement of every variant, for the consoles' metrics."""
    numbers: dict[str, float | str] = {"accepted": int(selected is not None)}
    if selected:
        numbers["selected"] = selected.quantization
    for variant in variants:
        own: dict[str, float] = {"accepted": int(variant.accepted), "size_bytes": variant.size}
        own |= describe_agreement(variant) | describe_latency(variant)
        numbers |= {f"{variant.quantization}_{name}": value for name, value in own.items()}
    return numbers


def _samples(rows: pa.RecordBatch, reference: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """A few rows spread over the sample: what the variant scores, and what the SavedModel does."""
    chosen = np.unique(np.linspace(0, rows.num_rows - 1, SAMPLES_IN_BUNDLE).astype(int))
    return {
        "rows": rows.take(pa.array(chosen)).to_pydict(),
        "scores": scores[chosen].tolist(),
        "reference_scores": reference[chosen].tolist(),
    }


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
