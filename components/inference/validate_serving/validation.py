"""A validation: the server is started on the candidate, asked, measured, and compared."""

import contextlib
import json
import logging

import numpy as np
import pyarrow as pa

from kfp_hybrid.components.inference.validate_serving.candidate import (
    Candidate,
    Offline,
    agreement_limits,
    open_bundle,
    open_saved_model,
)
from kfp_hybrid.components.inference.validate_serving.checks import FAILED, PASSED, SKIPPED, Check, judge
from kfp_hybrid.components.inference.validate_serving.client import RefusedError, encode_rows
from kfp_hybrid.components.inference.validate_serving.comparison import Array, Comparison, comparable
from kfp_hybrid.components.inference.validate_serving.findings import (
    ALWAYS,
    ANSWERS,
    HOSTILE,
    MEMORY,
    OFFLINE,
    P50,
    P99,
    PROTOCOLS,
    SAMPLE_ROWS,
    SOURCE,
    START,
    Findings,
)
from kfp_hybrid.components.inference.validate_serving.hostile_requests import hostile_requests, try_requests
from kfp_hybrid.components.inference.validate_serving.latency import measure_latency
from kfp_hybrid.components.inference.validate_serving.open_inference import compare_protocols
from kfp_hybrid.components.inference.validate_serving.request import Request
from kfp_hybrid.components.inference.validate_serving.rows import Sample, read_sample, served_scores
from kfp_hybrid.components.inference.validate_serving.running import compare_with_running
from kfp_hybrid.components.inference.validate_serving.server_process import DEATH_SECONDS, Server, ServingFailure, serve
from kfp_hybrid.edge.bundle import SAMPLES
from kfp_hybrid.engines import LITERT
from kfp_hybrid.scoring.answer import Answer
from kfp_hybrid.step import StepError

BODIES = 64  # different requests whose latency is measured


def validate(request: Request, candidate: Candidate, running: Candidate | None) -> Findings:
    """Serve the candidate and look at everything, until the server fails.

    Args:
        request: What is asked for.
        candidate: What is to be served.
        running: What is served now, if anything.

    Raises:
        StepError: the examples lack a column that the model wants.
    """
    findings = Findings()
    with contextlib.suppress(ServingFailure):  # it stands in the checks
        scores, sample, answer = _validate_candidate(request, candidate, findings)
        if running:
            compare_with_running(request, running, scores, sample, answer, findings)
    made = {check.name for check in findings.checks}
    findings.checks += [Check(name, SKIPPED, "") for name in ALWAYS if name not in made]
    return findings


def _validate_candidate(
    request: Request, candidate: Candidate, findings: Findings
) -> tuple[Array, Sample, Answer | None]:
    """The checks of the candidate alone; returns the scores of the sample and what they are about."""
    with contextlib.ExitStack() as stack:
        with findings.looking_at(START):
            server = stack.enter_context(serve(request, candidate))
        findings.start_seconds = server.start_seconds
        findings.checks.append(judge(START, server.start_seconds, request.limits.start_seconds, " s"))
        with findings.looking_at(OFFLINE):
            offline, source = _open_offline(request, candidate)
        _check_samples(request, candidate, server, findings)
        sample = read_sample(request.examples, request.split, request.rows, offline.predictor.columns)
        findings.sample = sample
        logging.info("sending %d rows of split %s", len(sample.rows), sample.split)
        with findings.looking_at(ANSWERS):
            scores = served_scores(server, sample, request.batch_rows)
        findings.checks.append(Check(ANSWERS, PASSED, f"{len(sample.rows):,} rows", "every row"))
        with findings.looking_at(OFFLINE):
            findings.offline = _compare(scores, offline, sample.batch, "the offline prediction")
        limits = request.limits.difference, request.limits.changed_fraction
        findings.checks.append(_agreement(OFFLINE, findings.offline, sample, "offline", *limits, worst=True))
        if source and candidate.files.bundle:
            with findings.looking_at(SOURCE):
                findings.source = _compare(scores, source, sample.batch, "the SavedModel")
            allowed = agreement_limits(candidate.files.bundle)
            findings.checks.append(
                _agreement(SOURCE, findings.source, sample, "by the SavedModel", *allowed, worst=False)
            )
        with findings.looking_at(PROTOCOLS):
            difference = compare_protocols(server, sample.rows, request.limits.difference)
        findings.checks.append(judge(PROTOCOLS, difference, request.limits.difference, ""))
        _measure(request, server, sample, findings)
        _try_hostile(server, sample, offline.predictor.texts, findings)
        return scores, sample, offline.answer


def _open_offline(request: Request, candidate: Candidate) -> tuple[Offline, Offline | None]:
    """The candidate without a server; for an edge bundle also the SavedModel that it was made of."""
    try:
        saved = candidate.files.saved_model
        source = open_saved_model(saved, request.task, request.classes) if saved else None
        if candidate.engine == LITERT and candidate.files.bundle:
            offline = open_bundle(candidate.files.bundle)
        else:
            assert source is not None  # no bundle, so there is a SavedModel
            offline, source = source, None
    except StepError as error:
        raise ServingFailure(f"the server loads the model, but batch prediction does not: {error}") from None
    offline.predictor.require(request.examples.columns)
    if source:
        source.predictor.require(request.examples.columns)
    return offline, source


def _check_samples(request: Request, candidate: Candidate, server: Server, findings: Findings) -> None:
    """The rows that a bundle brings along, with the scores that it had when it was made."""
    if candidate.engine != LITERT or candidate.files.bundle is None:
        return
    samples = json.loads((candidate.files.bundle / SAMPLES).read_text(encoding="utf-8"))
    if not samples.get("rows"):
        return
    names = list(samples["rows"])
    rows = [dict(zip(names, values, strict=True)) for values in zip(*samples["rows"].values(), strict=True)]
    with findings.looking_at(SAMPLE_ROWS):
        try:
            scores = server.client.predict(rows)
        except RefusedError as error:
            raise ServingFailure(f"the bundle's own sample rows got {error}") from None
    expected = np.array(samples["scores"], np.float64)
    differences = np.abs(scores - expected).max(axis=1)
    worst = int(np.argmax(differences))
    row = json.dumps(rows[worst], ensure_ascii=False)
    # Kernels differ between machines.
    allowed = max(request.limits.difference, agreement_limits(candidate.files.bundle)[0])
    findings.checks.append(
        judge(SAMPLE_ROWS, float(differences[worst]), allowed, "", f"; worst is sample {worst}, {row}")
    )


def _compare(scores: Array, offline: Offline, rows: pa.RecordBatch, name: str) -> Comparison:
    try:
        reference = offline.scores(rows)
    except StepError as error:
        raise ServingFailure(f"{name} fails on rows that are served: {error}") from None
    if not comparable(scores, reference):
        raise ServingFailure(
            f"the server gives {scores.shape[1]} scores per row, {name} {reference.shape[1]}; they are different models"
        )
    return Comparison(scores, reference, offline.answer)


def _agreement(
    name: str, comparison: Comparison, sample: Sample, other: str, difference: float, changed: float, *, worst: bool
) -> Check:
    """Judge a comparison by its largest (`worst`) or mean difference and by the share of changed decisions."""
    kind, value = ("largest", comparison.max_difference) if worst else ("mean", comparison.mean_difference)
    measured, limit = f"{kind} difference {value:.3g}", f"at most {difference:.3g}"
    if comparison.has_decisions:
        measured += f", {comparison.changed_fraction:.2%} of the decisions changed"
        limit += f" and {changed:.2%}"
    if value <= difference and comparison.changed_fraction <= changed:
        return Check(name, PASSED, measured, limit)
    told = (
        f"served scores are not those {other}: {measured}, {limit} allowed; {sample.describe_worst(comparison, other)}"
    )
    return Check(name, FAILED, measured, limit, told)


def _measure(request: Request, server: Server, sample: Sample, findings: Findings) -> None:
    limits = request.limits
    bodies = [encode_rows([row]) for row in sample.rows[:BODIES]]
    logging.info("measuring %d requests at concurrency %d", request.requests, request.concurrency)
    with findings.looking_at(P99):
        try:
            latency = measure_latency(server.client, bodies, request.requests, request.concurrency)
        except ServingFailure:
            server.require_alive(DEATH_SECONDS)  # its end says more
            raise
    findings.latency, findings.memory = latency, server.memory()
    at = f" at concurrency {latency.concurrency}"
    findings.checks += [
        judge(P50, latency.p50, limits.p50_ms, " ms", at),
        judge(P99, latency.p99, limits.p99_ms, " ms", at),
        judge(MEMORY, findings.memory / 1e6, limits.memory_mb, " MB"),
    ]


def _try_hostile(server: Server, sample: Sample, texts: list[str], findings: Findings) -> None:
    complete = next((row for row in sample.rows if None not in row.values()), sample.rows[0])
    with findings.looking_at(HOSTILE):
        findings.outcomes = try_requests(server, hostile_requests(complete, texts), complete)
    problems = [outcome for outcome in findings.outcomes if outcome.problem]
    count = len(findings.outcomes)
    if not problems:
        findings.checks.append(Check(HOSTILE, PASSED, f"all {count} refused or answered", "no 5xx, no crash"))
        return
    first = problems[0]
    failure = f"{len(problems)} of {count} hostile requests are handled wrongly; the first ({first.request.group}: " \
              f"{first.request.what}) {first.problem}"  # fmt: skip
    findings.checks.append(
        Check(HOSTILE, FAILED, f"{len(problems)} of {count} handled wrongly", "no 5xx, no crash", failure)
    )
