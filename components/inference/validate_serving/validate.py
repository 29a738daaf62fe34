"""The step: find the models, validate, write every output, and stop the run if asked to."""

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import Any

from kfp_hybrid import engines
from kfp_hybrid.components.inference.validate_serving.candidate import Candidate, find_candidate
from kfp_hybrid.components.inference.validate_serving.checks import explain, servable
from kfp_hybrid.components.inference.validate_serving.outputs import describe, metrics_of, summary, write_validation
from kfp_hybrid.components.inference.validate_serving.published import running_version
from kfp_hybrid.components.inference.validate_serving.report import write_report
from kfp_hybrid.components.inference.validate_serving.request import check_request
from kfp_hybrid.components.inference.validate_serving.validation import validate
from kfp_hybrid.step import StepError


def validate_serving(
    examples: Path,
    model: Path | None,
    bundle: Path | None,
    running: Path | None,
    destination: str,
    *,
    validation: Any,
    metrics: Any,
    report: Path,
    fail_if_not_servable: bool,
    engine: str,
    **parameters: Any,
) -> tuple[bool, str]:
    """Serve a candidate and say whether it may go live.

    Args:
        examples: examples artifact.
        model: artifact of a SavedModel or of push_model, or None.
        bundle: artifact of an edge bundle, or None.
        running: artifact of the model that is served now, or None.
        destination: where push_model publishes, "" for nowhere.
        validation: dsl.Artifact, gets validation.json and a summary as metadata.
        metrics: dsl.Metrics.
        report: the HTML file to write.
        fail_if_not_servable: raise after everything is written when the candidate is not servable.
        engine: what computes in the server.
        **parameters: those of `check_request`.

    Returns:
        Whether the candidate is servable, and why, in one sentence.

    Raises:
        StepError: bad input, or the candidate is not servable and `fail_if_not_servable`.
    """
    request = check_request(examples, engine=engine, **parameters)
    with contextlib.ExitStack() as stack:
        candidate = find_candidate(model, bundle, engine, stack)
        other = _find_running(running, destination, engine, stack)
        findings = validate(request, candidate, other)
        accepted = servable(findings.checks)
        reason = explain(findings.checks, summary(findings) if accepted else "")
        try:
            write_report(report, request, candidate, findings, accepted, reason)
            write_validation(Path(validation.path), findings, accepted, reason)
        except OSError as error:
            raise StepError(f"cannot write {error.filename or report}: {error.strerror or error}") from error
    validation.metadata.update(describe(candidate, findings), servable=accepted, reason=reason)
    for name, value in metrics_of(findings, accepted).items():
        metrics.log_metric(name, value)
    logging.info("%s", reason)
    if fail_if_not_servable and not accepted:
        raise StepError(f"{reason}; the report is at {report}")
    return accepted, reason


def _find_running(running: Path | None, destination: str, engine: str, stack: contextlib.ExitStack) -> Candidate | None:
    """The model that is served now, on the engine of the candidate if it can be; None if there is none."""
    if running and destination:
        raise StepError("running and destination both name the running model; give one of them")
    folder = running_version(destination, stack) if destination else running
    if folder is None:
        return None
    found = find_candidate(folder, None, engines.AUTO, stack)
    if engine == engines.AUTO or engines.missing(engine, engines.look_in(found.files.path)):
        return found
    return dataclasses.replace(found, engine=engine)
