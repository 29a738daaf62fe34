"""The candidate beside the model that is served now: which decisions would change."""

import logging

from kfp_hybrid.components.inference.validate_serving.candidate import Candidate
from kfp_hybrid.components.inference.validate_serving.checks import FAILED, PASSED, REPORTED, SKIPPED, Check
from kfp_hybrid.components.inference.validate_serving.comparison import Array, Comparison, comparable
from kfp_hybrid.components.inference.validate_serving.findings import RUNNING, Findings
from kfp_hybrid.components.inference.validate_serving.request import Limits, Request
from kfp_hybrid.components.inference.validate_serving.rows import Sample, served_scores
from kfp_hybrid.components.inference.validate_serving.server_process import ServingFailure, serve
from kfp_hybrid.scoring.answer import Answer

MOST_CHANGES = 6  # kinds of changed decisions in a sentence


def compare_with_running(
    request: Request, running: Candidate, scores: Array, sample: Sample, answer: Answer | None, findings: Findings
) -> None:
    """Serve the running model too and compare; that it cannot be served is no fault of the candidate.

    Args:
        request: What is asked for.
        running: The model that is served now.
        scores: Those of the candidate.
        sample: The rows that they are of.
        answer: What they are about.
        findings: Gets the comparison and its check.
    """
    findings.running_version = version = running.files.version
    try:
        with serve(request, running) as server:
            reference = served_scores(server, sample, request.batch_rows)
    except ServingFailure as failure:
        logging.warning("the running model %s cannot be compared with: %s", version, failure)
        findings.checks.append(Check(RUNNING, SKIPPED, f"version {version} cannot be compared with: {failure}"))
        return
    if not comparable(scores, reference):
        found = f"version {version} gives {reference.shape[1]} scores per row instead of {scores.shape[1]}"
        findings.checks.append(Check(RUNNING, SKIPPED, found))
        return
    findings.running = Comparison(scores, reference, answer)
    findings.checks.append(_judge(findings.running, version, request.limits))


def _judge(comparison: Comparison, version: str, limits: Limits) -> Check:
    measured, allowed, exceeded = [], [], []
    for value, limit, what in (
        (comparison.changed_fraction, limits.running_changed_fraction, "of the decisions changed"),
        (comparison.shift, limits.running_shift, "shift of the scores"),
    ):
        if what.startswith("shift") or comparison.has_decisions:
            measured.append(f"{value:.2%} {what}")
        if limit:
            allowed.append(f"at most {limit:.2%} {what}")
        if limit and value > limit:
            exceeded.append(f"{value:.2%} {what}, at most {limit:.2%} allowed")
    flips = ", ".join(
        f"{rows} from {before} to {after}" for (before, after), rows in comparison.changes.most_common(MOST_CHANGES)
    )
    told = f" ({flips})" if flips else ""
    outcome = FAILED if exceeded else PASSED if allowed else REPORTED
    failure = f"beside the running version {version}: {'; '.join(exceeded)}{told}" if exceeded else ""
    return Check(RUNNING, outcome, "; ".join(measured) + told, "; ".join(allowed), failure)
