"""What is to be validated and within which limits, checked before anything is started."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_hybrid.data.examples import Examples
from kfp_hybrid.engines import ENGINES
from kfp_hybrid.preprocessing import TASKS
from kfp_hybrid.step import StepError


@dataclass(frozen=True)
class Limits:
    """What the server and the candidate have to keep; 0 means that a number is only reported, where it says so.

    Attributes:
        start_seconds: until the server is ready.
        request_seconds: for the answer to any request.
        difference: largest difference of a score from the offline prediction.
        changed_fraction: share of the rows whose decision differs from the offline one.
        p50_ms: median latency; 0 reports.
        p99_ms: 99th percentile of the latency; 0 reports.
        memory_mb: resident memory, in units of 1,000,000 bytes; 0 reports.
        running_changed_fraction: share of the rows that the running model decides otherwise; 0 reports.
        running_shift: distance of the score distributions of the two, 0 to 1; 0 reports.
    """

    start_seconds: float
    request_seconds: float
    difference: float
    changed_fraction: float
    p50_ms: float
    p99_ms: float
    memory_mb: float
    running_changed_fraction: float
    running_shift: float


@dataclass(frozen=True)
class Request:
    """A checked request.

    Attributes:
        examples: the examples artifact.
        split: the split whose rows are sent; has rows.
        rows: how many of them.
        batch_rows: rows of one request.
        requests: requests whose latency is measured.
        concurrency: how many of them are on their way at once.
        engine: what computes in the server: litert, tensorflow, or auto for the server's choice.
        server_options: more command line options of the server.
        task: what the scores are about, for a model that does not say; "auto" for nothing.
        classes: class values in the order of the scores, likewise.
        limits: what has to be kept.
    """

    examples: Examples
    split: str
    rows: int
    batch_rows: int
    requests: int
    concurrency: int
    engine: str
    server_options: tuple[str, ...]
    task: str
    classes: tuple[Any, ...]
    limits: Limits


def check_request(
    examples: Path,
    *,
    split: str,
    rows: int,
    batch_rows: int,
    requests: int,
    concurrency: int,
    engine: str,
    server_options: Sequence[str],
    task: str,
    classes: Sequence[Any],
    **limits: float,
) -> Request:
    """Check every parameter against the examples.

    Args:
        examples: examples artifact.
        split: the split whose rows are sent.
        rows: how many of them, at least 1.
        batch_rows: rows of one request, at least 1.
        requests: requests whose latency is measured, at least 1.
        concurrency: how many at once, at least 1.
        engine: one of `ENGINES`.
        server_options: more command line options of the server.
        task: a task or "auto".
        classes: class values or nothing.
        **limits: those of `Limits`.

    Raises:
        StepError: the first thing that is wrong.
    """
    counts = {"sample_rows": rows, "batch_rows": batch_rows, "requests": requests, "concurrency": concurrency}
    for name, value in counts.items():
        if value < 1:
            raise StepError(f"{name} is {value}; it must be at least 1")
    for name, limit in limits.items():
        if not math.isfinite(limit) or limit < 0:
            raise StepError(f"max_{name} is {limit}; it must be a number of at least 0")
    for name in ("start_seconds", "request_seconds"):
        if not limits[name]:
            raise StepError(f"max_{name} is 0; the step has to give up at some time, give a number of seconds")
    if engine not in ENGINES:
        raise StepError(f"engine is {engine!r}; it must be one of {', '.join(ENGINES)}")
    if task not in ("auto", *TASKS):
        raise StepError(f"task is {task!r}; it must be one of auto, {', '.join(TASKS)}")
    opened = Examples.open(examples)
    if not opened.rows(split):
        raise StepError(f"split {split!r} of {examples} has no rows; give one whose rows can be sent to the server")
    return Request(
        examples=opened,
        split=split,
        rows=rows,
        batch_rows=batch_rows,
        requests=requests,
        concurrency=concurrency,
        engine=engine,
        server_options=tuple(server_options),
        task=task,
        classes=tuple(classes),
        limits=Limits(**limits),
    )
