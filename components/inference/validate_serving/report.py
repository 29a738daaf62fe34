"""The HTML report of a validation: everything the template draws, as plain numbers and texts."""

import json
import math
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kfp_hybrid import reports
from kfp_hybrid.components.inference.validate_serving.candidate import Candidate
from kfp_hybrid.components.inference.validate_serving.checks import FAILED, PASSED, REPORTED, SKIPPED, Check
from kfp_hybrid.components.inference.validate_serving.comparison import Array, Comparison
from kfp_hybrid.components.inference.validate_serving.findings import Findings
from kfp_hybrid.components.inference.validate_serving.hostile_requests import Outcome
from kfp_hybrid.components.inference.validate_serving.outputs import comparisons
from kfp_hybrid.components.inference.validate_serving.request import Request
from kfp_hybrid.components.inference.validate_serving.rows import Sample
from kfp_hybrid.reports.text import elide, number

TONES = {PASSED: "good", FAILED: "bad", REPORTED: "", SKIPPED: "warn"}
WORST_ROWS = 10
MOST_CHANGES = 50  # kinds of changed decisions
BINS = 40
TITLES = {"offline": "the offline prediction", "saved_model": "the SavedModel", "running": "the running model"}


def write_report(
    path: Path, request: Request, candidate: Candidate, findings: Findings, accepted: bool, reason: str
) -> None:
    """Write the report; it appears whole or not at all.

    Args:
        path: the HTML file.
        request: what was asked for.
        candidate: what was served.
        findings: what was found out.
        accepted: the verdict.
        reason: the verdict in one sentence.
    """
    reports.render(
        Path(__file__).with_name("report.html.j2"),
        path,
        title="May this model go live?",
        eyebrow=f"Serving validation · {candidate.engine} · version {candidate.files.version}",
        verdict={"tone": "good", "label": "Servable"} if accepted else {"tone": "bad", "label": "Not servable"},
        reason=reason.partition(": ")[2],
        cards=list(_cards(findings)),
        checks=[_check_row(check) for check in findings.checks],
        latency=_latency(findings),
        comparisons=[_comparison(name, found, findings) for name, found in comparisons(findings).items()],
        groups=_groups(findings.outcomes),
        problems=[
            [o.request.group, elide(o.request.what, 120), o.request.expected, o.problem]
            for o in findings.outcomes
            if o.problem
        ],
        facts={
            "Served": f"{candidate.files.path.name}, {candidate.engine}, sha256 {candidate.files.digest[:12]}",
            "Server": f"python -m kfp_hybrid.serving, with the options {json.dumps(list(request.server_options))}",
            "Rows": f"{number(len(findings.sample.rows) if findings.sample else 0)} of split {request.split} of "
            f"{request.examples.path}, spread over the split; {request.batch_rows} in one request",
            "Latency": f"{request.requests} requests of one row over loopback, {request.concurrency} at a time, from "
            "another process of the same machine",
            "Machine": f"{platform.machine()}, {os.cpu_count()} cores",
        },
    )


def _cards(findings: Findings) -> Iterable[dict[str, Any]]:
    failed = {check.name for check in findings.checks if check.outcome == FAILED}

    def card(label: str, value: str, note: str, check: str) -> dict[str, Any]:
        return {"label": label, "value": value, "note": note, **({"tone": "bad"} if check in failed else {})}

    if findings.start_seconds is not None:
        yield card("Ready after", f"{findings.start_seconds:.2f} s", "from the start of the process", "start")
    if findings.memory is not None:
        yield card("Memory", f"{findings.memory / 1e6:.0f} MB", "resident, after the load", "memory")
    if latency := findings.latency:
        yield card("Latency, median", f"{latency.p50:.2f} ms", f"{latency.concurrency} at a time", "p50")
        yield card("99th percentile", f"{latency.p99:.2f} ms", f"{latency.per_second:,.0f} requests/s", "p99")
    if offline := findings.offline:
        yield card("Largest difference", number(offline.max_difference), "from the offline prediction", "offline")
    if (running := findings.running) and running.has_decisions:
        note = f"of the running version {findings.running_version}"
        yield card("Changed decisions", f"{running.changed_fraction:.2%}", note, "running model")


def _check_row(check: Check) -> list[Any]:
    return [
        check.name,
        {"text": check.outcome, "tone": TONES[check.outcome]},
        check.measured or None,
        check.limit or None,
        check.failure or None,
    ]


def _latency(findings: Findings) -> dict[str, Any] | None:
    """The histogram of the answers' times; what is slower than the 99.5th percentile is in the last bin."""
    if findings.latency is None:
        return None
    times = findings.latency.milliseconds
    end = max(float(np.percentile(times, 99.5)), 1e-6)
    counts, edges = np.histogram(np.minimum(times, end), BINS, (0.0, end))
    return {"edges": edges.tolist(), "shares": (counts / len(times)).tolist(), "slowest": float(times[-1])}


def _comparison(name: str, comparison: Comparison, findings: Findings) -> dict[str, Any]:
    assert findings.sample is not None
    served, reference = (_drawn(scores) for scores in (comparison.scores, comparison.reference))
    finite = np.concatenate([values[np.isfinite(values)] for values in (served, reference)])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    return {
        "name": name,
        "other": TITLES[name] + (f" {findings.running_version}" if name == "running" else ""),
        "max": comparison.max_difference,
        "mean": comparison.mean_difference,
        "changed": comparison.changed_fraction if comparison.has_decisions else None,
        "shift": comparison.shift,
        "edges": edges.tolist(),
        "series": [
            {"name": "served", "values": _shares(served, edges)},
            {"name": TITLES[name], "values": _shares(reference, edges)},
        ],
        "changes": [[*change, rows] for change, rows in comparison.changes.most_common(MOST_CHANGES)],
        "worst": _worst_rows(comparison, findings.sample),
    }


def _drawn(scores: Array) -> Array:
    """One number per row: the score, or that of the most probable class."""
    return scores[:, 0] if scores.shape[1] == 1 else np.where(np.isnan(scores), -np.inf, scores).max(axis=1)


def _shares(values: Array, edges: Array) -> list[float]:
    return (np.histogram(values[np.isfinite(values)], edges)[0] / max(len(values), 1)).tolist()


def _worst_rows(comparison: Comparison, sample: Sample) -> list[list[Any]]:
    """Position, features, both scores and the difference of the rows that differ most."""
    differences = comparison.differences
    order = np.argsort(-differences, kind="stable")[:WORST_ROWS]
    return [
        [
            int(sample.positions[row]),
            elide(json.dumps(sample.rows[row], ensure_ascii=False), 400),
            _score_text(comparison.scores[row]),
            _score_text(comparison.reference[row]),
            float(differences[row]),
        ]
        for row in order
        if differences[row] > 0
    ]


def _score_text(scores: Array) -> str:
    return elide(", ".join("none" if math.isnan(score) else f"{score:.7g}" for score in scores), 60)


def _groups(outcomes: list[Outcome]) -> list[list[Any]]:
    """Kinds of hostile requests: how many there were, were refused, answered, and handled wrongly."""
    rows = []
    for group in dict.fromkeys(outcome.request.group for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.request.group == group]
        wrong = sum(bool(outcome.problem) for outcome in own)
        rows.append(
            [
                group,
                len(own),
                sum(400 <= outcome.reply.status < 500 for outcome in own),
                sum(outcome.reply.status == 200 for outcome in own),
                {"text": str(wrong), "sort": wrong, "tone": "bad" if wrong else "good"},
            ]
        )
    return rows
