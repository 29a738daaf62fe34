"""What a validation finds out."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from kfp_hybrid.components.inference.validate_serving.checks import FAILED, Check
from kfp_hybrid.components.inference.validate_serving.comparison import Comparison
from kfp_hybrid.components.inference.validate_serving.hostile_requests import Outcome
from kfp_hybrid.components.inference.validate_serving.latency import Latency
from kfp_hybrid.components.inference.validate_serving.rows import Sample
from kfp_hybrid.components.inference.validate_serving.server_process import ServingFailure

# The names of the checks.
START, SAMPLE_ROWS, ANSWERS, OFFLINE, SOURCE = "start", "bundle's own samples", "answers", "offline", "SavedModel"
PROTOCOLS = "protocols"
P50, P99, MEMORY, HOSTILE, RUNNING = "p50", "p99", "memory", "hostile requests", "running model"
ALWAYS = (START, ANSWERS, OFFLINE, PROTOCOLS, P50, P99, MEMORY, HOSTILE)  # the others depend on what is given


@dataclass
class Findings:
    """Everything that was found out, as far as the validation came.

    Attributes:
        checks: In the order in which they were made.
        start_seconds: Until the server was ready.
        memory: Bytes that the server held after the load.
        sample: The rows that were sent.
        offline: Served scores beside those computed without a server.
        source: Served scores of an edge bundle beside those of its SavedModel.
        latency: How long answers took.
        outcomes: What hostile requests came to.
        running: Scores of the candidate beside those of the running model.
        running_version: Which one that is.
    """

    checks: list[Check] = field(default_factory=list)
    start_seconds: float | None = None
    memory: int | None = None
    sample: Sample | None = None
    offline: Comparison | None = None
    source: Comparison | None = None
    latency: Latency | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    running: Comparison | None = None
    running_version: str = ""

    @contextlib.contextmanager
    def looking_at(self, name: str) -> Iterator[None]:
        """A failure of the server within the block fails the check of this name, and ends what follows."""
        try:
            yield
        except ServingFailure as failure:
            self.checks.append(Check(name, FAILED, "", failure=str(failure)))
            raise
