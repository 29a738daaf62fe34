"""The interface of report_rejection."""

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def report_rejection(
    rejection: dsl.Output[dsl.Markdown],
    reason: str,
    gate: str,
    strict: bool = False,
) -> None:
    """Say which gate stopped the model and why; the run succeeds unless strict is set.

    Args:
        reason: What the gate said, one sentence.
        gate: The name of the gate, for instance evaluate_model.
        strict: Fail the run, so that whoever started it is told.

    Returns:
        rejection: The same sentence, to read in the console.
    """
    from kfp_hybrid.components.deployment.report_rejection.rejection import report
    from kfp_hybrid.step import step

    with step():
        report(reason=reason, gate=gate, strict=strict, path=rejection.path)
