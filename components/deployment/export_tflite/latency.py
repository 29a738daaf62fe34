"""How long one prediction takes: one row, one and two threads, on the machine that runs the step."""

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kfp_hybrid.edge.litert import LiteRTModel

THREADS = (1, 2)
ROUNDS = 15
NOISE = 1.1  # between the quickest rounds of equally fast models
INVOCATIONS = 400  # of one round, at most
SECONDS = 0.1  # of one round, at most, but
FEWEST_INVOCATIONS = 3
ROWS = 256  # different rows to predict; as many as stay in the cache of a processor


@dataclass(frozen=True)
class Latency:
    """Time of `invoke` for one row.

    Attributes:
        p50: median, in microseconds.
        p99: 99th percentile, in microseconds.
        quiet: median of the quickest round, in microseconds: what else the machine does only ever adds to it.
    """

    p50: float
    p99: float
    quiet: float

    def is_near(self, fastest: "Latency") -> bool:
        """Whether the difference from a faster model is no larger than what is left of the noise."""
        return self.quiet <= NOISE * fastest.quiet


def measure_latencies(models: Mapping[str, bytes], inputs: Mapping[str, np.ndarray]) -> dict[str, dict[int, Latency]]:
    """Time TFLite models in turns, so that a busy moment of the machine slows all of them down alike.

    Args:
        models: name -> content of the TFLite file.
        inputs: one array [N, ...] for each input.

    Returns:
        Name -> number of threads -> latency.
    """
    latencies: dict[str, dict[int, Latency]] = {name: {} for name in models}
    for threads in THREADS:  # never both in one round: idle worker threads spin for a while
        stopwatches = {name: _Stopwatch(LiteRTModel(model, threads), inputs) for name, model in models.items()}
        for _ in range(ROUNDS):
            for stopwatch in stopwatches.values():
                stopwatch.run()
        for name, stopwatch in stopwatches.items():
            latencies[name][threads] = stopwatch.latency()
    return latencies


class _Stopwatch:
    """Times one model, round after round."""

    def __init__(self, model: LiteRTModel, inputs: Mapping[str, np.ndarray]):
        count = min(ROWS, len(next(iter(inputs.values()))))
        self._model = model
        self._rows = itertools.cycle([{n: v[i : i + 1] for n, v in inputs.items()} for i in range(count)])
        self._nanoseconds: list[list[int]] = []  # of each round

    def run(self) -> None:
        """One round, after warming up."""
        self._time_invocations(fewest=1)
        self._nanoseconds.append(self._time_invocations(FEWEST_INVOCATIONS))

    def latency(self) -> Latency:
        """Of all rounds."""
        p50, p99 = np.percentile(np.concatenate(self._nanoseconds), [50, 99]) / 1000
        quiet = min(np.median(times) for times in self._nanoseconds) / 1000
        return Latency(float(p50), float(p99), float(quiet))

    def _time_invocations(self, fewest: int) -> list[int]:
        times: list[int] = []
        deadline = time.perf_counter() + SECONDS / 2
        while len(times) < fewest or (len(times) < INVOCATIONS and time.perf_counter() < deadline):
            # The invocation alone: how the inputs get there differs from device to device.
            self._model.set_inputs(next(self._rows))
            start = time.perf_counter_ns()
            self._model.invoke()
            times.append(time.perf_counter_ns() - start)
        return times
