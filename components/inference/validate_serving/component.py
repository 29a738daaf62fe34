"""The interface of validate_serving."""

from typing import NamedTuple, Optional

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def validate_serving(
    examples: dsl.Input[dsl.Dataset],
    validation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    model: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045 - kfp knows no other spelling
    bundle: Optional[dsl.Input[dsl.Artifact]] = None,  # noqa: UP045
    running: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
    destination: str = "",
    engine: str = "auto",
    server_options: list[str] = [],  # noqa: B006 - kfp copies it into the package
    split: str = "eval",
    sample_rows: int = 1000,
    batch_rows: int = 100,
    requests: int = 1000,
    concurrency: int = 8,
    max_start_seconds: float = 120.0,
    max_request_seconds: float = 30.0,
    max_difference: float = 0.0001,
    max_changed_fraction: float = 0.001,
    max_p50_ms: float = 0.0,
    max_p99_ms: float = 0.0,
    max_memory_mb: float = 0.0,
    max_running_changed_fraction: float = 0.0,
    max_running_shift: float = 0.0,
    task: str = "auto",
    classes: list = [],  # noqa: B006
    fail_if_not_servable: bool = False,
) -> NamedTuple("Outputs", [("servable", bool), ("reason", str)]):  # type: ignore[valid-type]
    """Serve a model with the server that will run it, ask it, and say whether it may go live.

    Starts the model server in this step, sends it rows of the examples, and checks that it gets ready, answers every
    row as batch prediction does, keeps the limits of latency and memory, and survives requests that no client should
    send. Beside a running model, it says which decisions would change.

    Args:
        examples: Examples whose rows are sent.
        model: The SavedModel, or what push_model puts out.
        bundle: The edge bundle. With a model it is served as push_model publishes the two, and compared with the model.
        running: The model that is served now: a SavedModel, an edge bundle, or what push_model puts out.
        destination: Where push_model publishes, whose version in use is the running model; nothing is compared as long
            as nothing is published there.
        engine: What computes in the server: litert (an edge bundle), tensorflow (a SavedModel), or auto, which is
            litert where there is a bundle.
        server_options: More options of the server's command line, as it will run.
        split: The split whose rows are sent.
        sample_rows: How many of its rows, spread over the split.
        batch_rows: Rows of one request while the answers are compared.
        requests: Requests of one row whose latency is measured.
        concurrency: How many of them are on their way at the same time.
        max_start_seconds: Until the server says that it is ready.
        max_request_seconds: For the answer to any request.
        max_difference: Largest difference of a score from the offline prediction, relative to what is greater than 1:
            the score, or the spread of all.
        max_changed_fraction: Share of the rows whose decision differs from the offline one.
        max_p50_ms: Median latency, measured in this step; 0 only reports it.
        max_p99_ms: The same for the 99th percentile.
        max_memory_mb: Resident memory of the server after the load; 0 only reports it.
        max_running_changed_fraction: Share of the rows that the running model decides otherwise; 0 only reports it.
        max_running_shift: Distance of the distributions of the two models' scores, from 0 to 1; 0 only reports it.
        task: What a model without preprocessing constants predicts: binary, multiclass or regression. With auto,
            scores are compared and decisions are not.
        classes: Its class values in the order of the scores.
        fail_if_not_servable: Fail the step when the model is not servable; otherwise it succeeds with servable = False.

    Returns:
        validation: Everything that was measured, as validation.json; the verdict as metadata.
        metrics: Start time, memory, latency, differences and changed decisions.
        report: All of that as a page, with the verdict on top.
        servable: Whether every check passed.
        reason: What was found, or the first check that failed with the row or request at fault, in one sentence.
    """
    from pathlib import Path

    from kfp_hybrid.components.inference.validate_serving.validate import validate_serving
    from kfp_hybrid.step import step

    with step():
        return validate_serving(
            Path(examples.path),
            Path(model.path) if model else None,
            Path(bundle.path) if bundle else None,
            Path(running.path) if running else None,
            destination,
            validation=validation,
            metrics=metrics,
            report=Path(report.path),
            fail_if_not_servable=fail_if_not_servable,
            engine=engine,
            server_options=server_options,
            split=split,
            rows=sample_rows,
            batch_rows=batch_rows,
            requests=requests,
            concurrency=concurrency,
            start_seconds=max_start_seconds,
            request_seconds=max_request_seconds,
            difference=max_difference,
            changed_fraction=max_changed_fraction,
            p50_ms=max_p50_ms,
            p99_ms=max_p99_ms,
            memory_mb=max_memory_mb,
            running_changed_fraction=max_running_changed_fraction,
            running_shift=max_running_shift,
            task=task,
            classes=classes,
        )
