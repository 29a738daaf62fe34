"""What a validation leaves behind: validation.json, and numbers for the consoles."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from kfp_hybrid.components.inference.validate_serving.candidate import Candidate
from kfp_hybrid.components.inference.validate_serving.comparison import Comparison
from kfp_hybrid.components.inference.validate_serving.findings import Findings

FILE = "validation.json"


def summary(findings: Findings) -> str:
    """What was found of a model that is servable, in one clause."""
    assert findings.offline and findings.latency and findings.memory and findings.start_seconds is not None
    found = (
        f"ready after {findings.start_seconds:.2g} s, answers {findings.offline.rows:,} rows as offline "
        f"(largest difference {findings.offline.max_difference:.2g}), p99 {findings.latency.p99:.3g} ms at concurrency "
        f"{findings.latency.concurrency}, {findings.memory / 1e6:.0f} MB"
    )
    if findings.running is None:
        return found
    if findings.running.has_decisions:
        changed = f"decides {findings.running.changed_fraction:.2%} of them otherwise than"
    else:
        changed = f"has its scores shifted by {findings.running.shift:.2%} from those of"
    return f"{found}; {changed} the running version {findings.running_version}"


def write_validation(path: Path, findings: Findings, accepted: bool, reason: str) -> None:
    """Write validation.json; it appears whole or not at all.

    Args:
        path: The artifact's folder.
        findings: What was found out.
        accepted: The verdict.
        reason: The verdict in one sentence.
    """
    content = {
        "servable": accepted,
        "reason": reason,
        "checks": [asdict(check) for check in findings.checks],
        "measured": metrics_of(findings, accepted),
        "changed_decisions": {
            name: [{"from": before, "to": after, "rows": rows} for (before, after), rows in comparison.changes.items()]
            for name, comparison in comparisons(findings).items()
        },
        "hostile_requests": [
            {"group": o.request.group, "request": o.request.what, "status": o.reply.status, "problem": o.problem}
            for o in findings.outcomes
        ],
    }
    path.mkdir(parents=True, exist_ok=True)
    unfinished = path / f".{FILE}"
    unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path / FILE)


def comparisons(findings: Findings) -> dict[str, Comparison]:
    """The comparisons that were made, by what the candidate was compared with."""
    made = {"offline": findings.offline, "saved_model": findings.source, "running": findings.running}
    return {name: comparison for name, comparison in made.items() if comparison}


def describe(candidate: Candidate, findings: Findings) -> dict[str, str | float]:
    """Facts about the validation, for its artifact."""
    facts: dict[str, str | float] = {
        "engine": candidate.engine,
        "model_digest": candidate.files.digest,
        "model_version": candidate.files.version,
        "running_version": findings.running_version,
    }
    return {**facts, **_measured(findings)}


def metrics_of(findings: Findings, accepted: bool) -> Mapping[str, float]:
    """Everything that was measured, by name."""
    return {"servable": int(accepted), **_measured(findings)}


def _measured(findings: Findings) -> dict[str, float]:
    numbers: dict[str, float] = {}
    if findings.start_seconds is not None:
        numbers["start_seconds"] = round(findings.start_seconds, 3)
    if findings.memory is not None:
        numbers["memory_mb"] = round(findings.memory / 1e6, 1)
    if latency := findings.latency:
        numbers |= {
            "p50_ms": round(latency.p50, 4),
            "p99_ms": round(latency.p99, 4),
            "requests_per_second": round(latency.per_second, 1),
        }
    for name, comparison in comparisons(findings).items():
        numbers[f"{name}_rows"] = comparison.rows
        numbers[f"{name}_max_difference"] = min(comparison.max_difference, 1e308)  # infinity is no JSON
        numbers[f"{name}_changed_fraction"] = comparison.changed_fraction
        numbers[f"{name}_shift"] = comparison.shift
    if findings.outcomes:
        numbers["hostile_requests"] = len(findings.outcomes)
        numbers["hostile_requests_with_problems"] = sum(bool(outcome.problem) for outcome in findings.outcomes)
    return numbers
