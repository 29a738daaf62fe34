"""The step: check the request, evaluate, write every output, and stop the run if asked to."""

import logging
from pathlib import Path
from typing import Any

from kfp_hybrid.components.evaluation.evaluate_model.evaluation import evaluate
from kfp_hybrid.components.evaluation.evaluate_model.outputs import (
    log_classification,
    log_metrics,
    write_evaluation,
)
from kfp_hybrid.components.evaluation.evaluate_model.report import write_report
from kfp_hybrid.components.evaluation.evaluate_model.request import check_request
from kfp_hybrid.step import StepError


def evaluate_model(
    examples: Path,
    model: Path,
    baseline: Path | None,
    *,
    evaluation: Any,
    metrics: Any,
    classification: Any,
    report: Path,
    fail_if_not_blessed: bool,
    **parameters: Any,
) -> tuple[bool, str]:
    """Evaluate a model and say whether it is good enough.

    Args:
        examples: examples artifact.
        model: SavedModel directory.
        baseline: SavedModel directory to compare with, or None.
        evaluation: dsl.Artifact, gets evaluation.json and a summary as metadata.
        metrics: dsl.Metrics.
        classification: dsl.ClassificationMetrics.
        report: the HTML file to write.
        fail_if_not_blessed: raise after everything is written when the model is not blessed.
        **parameters: those of `check_request`.

    Returns:
        Whether the model is blessed, and why, in one sentence.

    Raises:
        StepError: bad input, or the model is not blessed and `fail_if_not_blessed`.
    """
    request = check_request(examples, model, baseline, **parameters)
    result = evaluate(request)
    try:
        write_report(result, report)
        write_evaluation(result, Path(evaluation.path))
    except OSError as error:
        raise StepError(f"cannot write {error.filename or report}: {error.strerror or error}") from error
    evaluation.metadata.update(blessed=result.blessed, reason=result.reason, task=request.answer.task)
    log_metrics(result, metrics)
    log_classification(result, classification)
    logging.info("%s", result.reason)
    if fail_if_not_blessed and not result.blessed:
        raise StepError(f"{result.reason}; the report is at {report}")
    return result.blessed, result.reason
