"""The HTML report: the verdict, a table of the variants, what they cost and how they differ."""

import itertools
import math
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from kfp_hybrid import reports
from kfp_hybrid.components.deployment.export_tflite.request import Request
from kfp_hybrid.components.deployment.export_tflite.variants import Variant
from kfp_hybrid.reports.geometry import Axis

DECADES = (-9, 0)  # of differences; smaller ones share the first bin with zero
BINS_PER_DECADE = 6


def write_report(path: Path, request: Request, variants: list[Variant], selected: Variant | None, reason: str) -> None:
    """Write the report.

    Args:
        path: the HTML file.
        request: what was asked for.
        variants: all of them.
        selected: the one in the bundle, None if there is none.
        reason: the verdict in one sentence.
    """
    agreements = {variant.quantization: variant.agreement for variant in variants if variant.agreement}
    times = [time for v in variants for latency in v.latency.values() for time in (latency.p50, latency.p99)]
    reports.render(
        Path(__file__).with_name("report.html.j2"),
        path,
        title=f"{request.answer.label}: from SavedModel to TFLite",
        eyebrow="export_tflite",
        verdict={"tone": "good", "label": "Accepted"} if selected else {"tone": "bad", "label": "Rejected"},
        reason=reason.partition(": ")[2],
        request=request,
        saved_model_size=saved_model_size(request.model),
        selected=selected,
        variants=variants,
        agreements=agreements,
        histograms={name: histogram(agreement.differences) for name, agreement in agreements.items()},
        mean_axis=log_axis((power_of_ten(a.mean_difference) for a in agreements.values()), 236, 28),
        difference_axis=Axis(*DECADES, start=120, end=1150, ticks=tuple(range(DECADES[0], DECADES[1] + 1))),
        latency_axis=log_axis(map(math.log10, times), 150, 540),
        power_of_ten=power_of_ten,
        log10=math.log10,
        rounded=rounded,
        spread=spread,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, LiteRT {version('ai-edge-litert')}",
    )


def saved_model_size(path: Path) -> int:
    """Bytes of a SavedModel's graph and variables."""
    files = [path / "saved_model.pb", *(path / "variables").glob("*")]
    return sum(file.stat().st_size for file in files)


def histogram(differences: np.ndarray) -> dict[str, list[float]]:
    """Shares of the rows by the power of ten of their difference.

    Args:
        differences: float64 [N], at least 0.

    Returns:
        "edges": powers of ten, n + 1; "shares": n, their sum is 1.
    """
    low, high = DECADES
    edges = np.linspace(low, high, (high - low) * BINS_PER_DECADE + 1)
    counts, _ = np.histogram(np.log10(np.clip(differences, 10.0**low, 10.0**high)), edges)
    return {"edges": edges.tolist(), "shares": (counts / len(differences)).tolist()}


def rounded(value: float, digits: int = 3) -> float:
    """The value with so many significant digits, or more if they stand before the decimal point."""
    return float(f"{value:.{digits}g}") if abs(value) < 10**digits else round(value)


def spread(positions: Sequence[float], gap: float, end: float) -> list[float]:
    """Positions of labels that would overlap, moved apart.

    Args:
        positions: where they belong, in pixels, at most `end`.
        gap: the least distance between two of them.
        end: the last pixel for a label; what has no room before it moves up.

    Returns:
        The new positions, in the order of the given ones.
    """
    order = sorted(range(len(positions)), key=positions.__getitem__)
    moved = list(positions)
    for before, after in itertools.pairwise(order):
        moved[after] = max(moved[after], moved[before] + gap)
    for room, index in enumerate(reversed(order)):
        moved[index] = min(moved[index], end - room * gap)
    return moved


def power_of_ten(difference: float) -> float:
    """The logarithm of a difference, no lower than the axis of differences goes."""
    return math.log10(max(difference, 10.0 ** DECADES[0]))


def log_axis(powers: Iterable[float], start: float, end: float) -> Axis:
    """A logarithmic axis that ends on whole powers of ten; values and ticks are logarithms.

    Args:
        powers: logarithms to cover.
        start: pixel of the smallest one.
        end: pixel of the largest one.
    """
    values = list(powers) or [0.0]
    low = math.floor(min(values))
    high = max(math.ceil(max(values)), low + 1)
    return Axis(low, high, start, end, tuple(range(low, high + 1)))
