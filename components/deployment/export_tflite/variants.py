"""The TFLite variants: measured, judged against their limits, and one of them selected."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kfp_hybrid.components.deployment.export_tflite.agreement import Agreement, compare
from kfp_hybrid.components.deployment.export_tflite.latency import Latency, measure_latencies
from kfp_hybrid.components.deployment.export_tflite.request import POLICIES, Limits
from kfp_hybrid.edge.litert import LiteRTModel
from kfp_hybrid.step import StepError

NEARLY_THE_SAME = 1.05  # of sizes


@dataclass(frozen=True)
class Check:
    """One limit, and whether a variant keeps it.

    Attributes:
        name: what is limited.
        value: what was measured.
        limit: what it may just reach.
        at_most: whether the limit is an upper one.
    """

    name: str
    value: float
    limit: float
    at_most: bool = True

    @property
    def kept(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        side = "above" if self.at_most else "below"
        return f"{self.name} {_number(self.value)} is {side} {_number(self.limit)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclass(frozen=True)
class Variant:
    """One way of quantizing the model.

    Attributes:
        quantization: its name.
        model: content of the TFLite file; b"" if it could not be made.
        failure: why it could not be made or run; "" if it could.
        agreement: how far it is from the SavedModel; None after a failure.
        latency: number of threads -> latency; {} after a failure.
        scores: float32 [N, K], its scores on the sample; empty after a failure.
        checks: its limits; () after a failure.
    """

    quantization: str
    model: bytes = b""
    failure: str = ""
    agreement: Agreement | None = None
    latency: Mapping[int, Latency] = field(default_factory=dict)
    scores: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    checks: tuple[Check, ...] = ()

    @property
    def problems(self) -> list[str]:
        """Why it is rejected, in words; [] if it is accepted."""
        return [self.failure] if self.failure else [str(check) for check in self.checks if not check.kept]

    @property
    def accepted(self) -> bool:
        """Whether it runs and keeps its limits."""
        return not self.problems

    @property
    def size(self) -> int:
        """Bytes of the TFLite file."""
        return len(self.model)


@dataclass(frozen=True)
class Sample:
    """The rows that variants are compared on.

    Attributes:
        inputs: one array [N, ...] for each input of the TFLite models.
        reference: the SavedModel's scores, float32 [N, K].
        task: binary, multiclass or regression.
        labels: class positions or values [N], NaN where a row has none; None when no row has one.
    """

    inputs: Mapping[str, np.ndarray]
    reference: np.ndarray
    task: str
    labels: np.ndarray | None


def measure_variants(models: Mapping[str, bytes], sample: Sample, limits: Mapping[str, Limits]) -> list[Variant]:
    """Run TFLite models on the plain LiteRT interpreter and compare them with the SavedModel.

    Args:
        models: quantization -> content of the TFLite file.
        sample: what to compare on.
        limits: quantization -> what it must keep.
    """
    variants = {quantization: _run(quantization, model, sample) for quantization, model in models.items()}
    runs = {name: variant.model for name, variant in variants.items() if not variant.failure}
    logging.info("measuring the latency of %s", ", ".join(runs) or "nothing")
    for name, latency in measure_latencies(runs, sample.inputs).items():
        agreement = compare(sample.reference, variants[name].scores, sample.task, sample.labels)
        checks = _checks(agreement, latency[1], len(models[name]), limits[name])
        variants[name] = dataclasses.replace(variants[name], agreement=agreement, latency=latency, checks=checks)
    return list(variants.values())


def _run(quantization: str, model: bytes, sample: Sample) -> Variant:
    """The variant with its scores, or with why there are none."""
    logging.info("running %s on %d rows", quantization, len(sample.reference))
    try:
        litert = LiteRTModel(model)
        scores = litert.predict(sample.inputs)
        litert.predict({name: values[:1] for name, values in sample.inputs.items()})
    except (StepError, ValueError, RuntimeError) as error:  # what LiteRT raises
        return Variant(quantization, model, failure=f"it does not run: {' '.join(str(error).split())[:300]}")
    return Variant(quantization, model, failure=_unusable(scores, sample.reference), scores=scores)


def _unusable(scores: np.ndarray, reference: np.ndarray) -> str:
    if scores.shape != reference.shape:
        return f"its scores have the shape {list(scores.shape)} instead of {list(reference.shape)}"
    bad = int((~np.isfinite(scores)).any(axis=1).sum())
    return f"its scores are not finite for {bad} of {len(scores)} rows" if bad else ""


def _checks(agreement: Agreement, latency: Latency, size: int, limits: Limits) -> tuple[Check, ...]:
    """The limits that apply; one on a number that is not defined does not."""
    checks = [Check("mean difference", agreement.mean_difference, limits.mean_difference)]
    if agreement.flips is not None:
        checks.append(Check("share of flipped decisions", agreement.flips, limits.flip_fraction))
    if agreement.metric_drop is not None:
        checks.append(Check(f"worsening of the {agreement.metric_name}", agreement.metric_drop, limits.metric_drop))
    if agreement.correlation is not None:
        checks.append(Check("correlation", agreement.correlation, limits.correlation, at_most=False))
    if limits.latency_ms:
        checks.append(Check("p99 latency in ms", latency.p99 / 1000, limits.latency_ms))
    if limits.size_bytes:
        checks.append(Check("size in bytes", size, limits.size_bytes))
    return tuple(checks)


def select(variants: list[Variant], policy: str, quantizations: Sequence[str]) -> Variant | None:
    """The accepted variant that a policy prefers; None if there is none.

    Of variants of nearly the same size, the one that agrees best is the smallest: 0.2 % fewer bytes are not worth ten
    times the difference. Of variants whose latencies differ by no more than noise, the one with fewer bytes is the
    fastest: it would be chance otherwise.

    Args:
        variants: all of them.
        policy: "smallest", "fastest" (median with one thread), "most-accurate" (mean difference), or the name of the
            one variant that is wanted: another one never takes its place.
        quantizations: what a policy chooses from; float32 is the last resort.
    """
    accepted = {v.quantization: v for v in variants if v.accepted}
    if policy not in POLICIES:
        return accepted.get(policy)
    candidates = [accepted[name] for name in quantizations if name in accepted] or list(accepted.values())
    if not candidates:
        return None
    if policy == "smallest":
        limit = NEARLY_THE_SAME * min(v.size for v in candidates)
        return min((v for v in candidates if v.size <= limit), key=_mean_difference)
    if policy == "fastest":
        fastest = min((v.latency[1] for v in candidates), key=lambda latency: latency.quiet)
        return min(
            (v for v in candidates if v.latency[1].is_near(fastest)), key=lambda v: (v.size, _mean_difference(v))
        )
    return min(candidates, key=_mean_difference)


def _mean_difference(variant: Variant) -> float:
    assert variant.agreement is not None  # an accepted variant was measured
    return variant.agreement.mean_difference


def explain(
    variants: list[Variant], selected: Variant | None, policy: str, quantizations: Sequence[str], split: str
) -> str:
    """One sentence: which variant is selected, with its numbers, or why there is none.

    Args:
        variants: all of them.
        selected: what `select` chose.
        policy: what it was told.
        quantizations: likewise.
        split: name of the split compared on.
    """
    rejected = ", ".join(f"{v.quantization} ({'; '.join(v.problems)})" for v in variants if not v.accepted)
    if selected is None:
        who = "no variant keeps its limits" if policy in POLICIES else f"{policy} does not keep its limits"
        return f"rejected: {who}: {rejected}"
    accepted = sum(v.accepted for v in variants if v.quantization in quantizations)
    why = "as wanted"
    if policy in POLICIES:
        # Near ties are decided by the other measure, so the chosen one need not lead by itself.
        place = "the most accurate" if policy == "most-accurate" else f"among the {policy}"
        why = f"{place} of {accepted} accepted" if accepted else "to fall back on"
    others = ", ".join(f"{v.quantization} {v.size:,}" for v in variants if v.accepted and v is not selected)
    tail = f"; other sizes: {others}" if others else ""
    tail += f"; rejected: {rejected}" if rejected else ""
    return f"accepted: {selected.quantization}, {why}, {_describe(selected, split)}{tail}"


def _describe(variant: Variant, split: str) -> str:
    """Like "41,696 bytes, p50 33 µs, mean difference 0.011, 0.70% flipped decisions on 10,000 rows of eval"."""
    agreement = variant.agreement
    assert agreement is not None  # an accepted variant was measured
    parts = [
        f"{variant.size:,} bytes",
        f"p50 {variant.latency[1].p50:.3g} µs",
        f"mean difference {agreement.mean_difference:.2g}",
    ]
    if agreement.flips is not None:
        parts.append(f"{agreement.flips:.2%} flipped decisions")
    if agreement.metric is not None:
        parts.append(f"{agreement.metric_name} {agreement.metric:.4f} instead of {agreement.reference_metric:.4f}")
    return f"{', '.join(parts)} on {agreement.rows:,} rows of {split}"
