"""How long one prediction takes: one row, one and two threads, on the machine that runs the step."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from kfp_hybrid.edge.litert import LiteRTModel

THREADS = (1, 2)
WARM_UP = 50
INVOCATIONS = 1000
SECONDS = 0.5  # of one model and number of threads, at most
FEWEST_INVOCATIONS = 10


@dataclass(frozen=True)
class Latency:
    """Time of `invoke` for one row.

    Attributes:
        p50: median, in microseconds.
        p99: 99th percentile, in microseconds.
    """

    p50: float
    p99: float


def measure_latency(model: bytes, inputs: Mapping[str, np.ndarray]) -> dict[int, Latency]:
    """Time a TFLite model with different rows, after warming up.

    Args:
        model: content of the TFLite file.
        inputs: one array [N, ...] for each input.

    Returns:
        Number of threads -> latency.
    """
    return {threads: _measure(LiteRTModel(model, threads), inputs) for threads in THREADS}


def _measure(model: LiteRTModel, inputs: Mapping[str, np.ndarray]) -> Latency:
    rows = _endless_rows(inputs)
    deadline = time.perf_counter() + SECONDS
    for _ in range(WARM_UP):
        _invoke(model, next(rows))
        if time.perf_counter() > deadline:
            break
    nanoseconds: list[int] = []
    deadline = time.perf_counter() + SECONDS
    while len(nanoseconds) < FEWEST_INVOCATIONS or (len(nanoseconds) < INVOCATIONS and time.perf_counter() < deadline):
        nanoseconds.append(_invoke(model, next(rows)))
    p50, p99 = np.percentile(nanoseconds, [50, 99]) / 1000
    return Latency(float(p50), float(p99))


def _invoke(model: LiteRTModel, row: Mapping[str, np.ndarray]) -> int:
    """Nanoseconds of the invocation alone: how the inputs get there differs from device to device."""
    model.set_inputs(row)
    start = time.perf_counter_ns()
    model.invoke()
    return time.perf_counter_ns() - start


def _endless_rows(inputs: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    count = len(next(iter(inputs.values())))
    while True:
        for row in range(count):
            yield {name: values[row : row + 1] for name, values in inputs.items()}
