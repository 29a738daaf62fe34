"""Commands that need no platform: list, describe, compile, lint."""

import sys
from pathlib import Path

import click

from kfp_hybrid import __version__
from kfp_hybrid.cli.options import FILE, config_option, load_profiles, open_package, open_target, target_option
from kfp_hybrid.errors import UserError


@click.command("list")
def list_pipelines() -> None:
    """List the pipelines of this collection."""
    from kfp_hybrid.sources import pipeline_names

    for name in pipeline_names():
        click.echo(name)


@click.command()
@click.argument("pipeline")
@target_option
@config_option
def describe(pipeline: str, target_name: str, config: Path | None) -> None:
    """Show the parameters and steps of PIPELINE (a name from `list`, a .py file, or a compiled package)."""
    package = open_package(pipeline, open_target(target_name, config))
    formatter = click.HelpFormatter(max_width=100)
    formatter.write_heading(f"Parameters of {package.name}")
    with formatter.indentation():
        formatter.write_dl([(name, package.describe_parameter(name)) for name in sorted(package.parameters)])
    click.echo(formatter.getvalue())
    click.echo(f"Steps: {' > '.join(step.task for step in package.steps())}")


@click.command("compile")
@click.argument("pipeline")
@target_option
@config_option
@click.option("--format", "form", type=click.Choice(["kfp", "k8s"]), default="kfp", show_default=True,
              help="kfp: a package to upload or submit; k8s: Pipeline and PipelineVersion resources.")  # fmt: skip
@click.option("--version", help="With --format k8s: what to call this version. One that is there cannot be changed: "
              f"a changed pipeline needs another. {__version__} when left out.")  # fmt: skip
@click.option("-o", "--output", type=FILE, required=True, help="The file to write.")
def compile_package(
    pipeline: str, target_name: str, config: Path | None, form: str, version: str | None, output: Path
) -> None:
    """Compile PIPELINE (a name from `list`, or a .py file) into a package for a target."""
    from kfp_hybrid.sources import build, compile_pipeline

    target = open_target(target_name, config)
    if version is not None and form != "k8s":
        raise UserError("--version is for --format k8s; `register` takes that of a package")
    if form == "kfp":
        compile_pipeline(pipeline, target, output)
    elif target.kind == "kubeflow":
        version = __version__ if version is None else version
        target.compile_custom_resources(build(pipeline, target), output, version)  # type: ignore[attr-defined]
    else:
        raise UserError(f"--format k8s is for kubeflow targets; {target_name} is a {target.kind} target")
    click.echo(f"wrote {output}")


@click.command("lint")
@click.argument("pipeline")
@click.option("--target", "names", multiple=True, metavar="NAME",
              help="Where it must run: local, kubeflow, vertex, or a target of the profiles; may be repeated. "
                   "All three kinds when left out.")  # fmt: skip
@config_option
@click.option("--format", "form", type=click.Choice(["text", "json", "sarif"]), default="text", show_default=True)
@click.option("-o", "--output", type=FILE, help="Write the findings to a file instead.")
def lint_package(pipeline: str, names: tuple[str, ...], config: Path | None, form: str, output: Path | None) -> None:
    """Say what in PIPELINE (a compiled package, a name from `list` or a .py file) would break on which target.

    A pipeline that is not compiled yet is compiled for each profile that is named, and for this machine otherwise.

    Exit status: 0 nothing, or warnings only; 1 errors.
    """
    from kfp_hybrid.lint import ERROR, TARGETS, lint
    from kfp_hybrid.lint.output import FORMATS

    profiles = load_profiles(config)
    kinds = [name for name in names or TARGETS if name in TARGETS and (not names or name not in profiles.targets)]
    findings = []
    if kinds:
        findings += lint(open_package(pipeline, open_target("local", config)), kinds)
    for name in dict.fromkeys(name for name in names if name not in kinds):
        target = open_target(name, config)
        findings += target.lint(open_package(pipeline, target))
        kinds.append(target.kind)
    report = FORMATS[form](findings, pipeline, tuple(dict.fromkeys(kinds)))
    try:
        if output:
            output.write_text(click.unstyle(report), "utf-8")
        else:
            click.echo(report, nl=False)
    except OSError as error:
        raise UserError(f"cannot write {output or 'the findings'}: {error.strerror}") from None
    if any(finding.level == ERROR for finding in findings):
        sys.exit(1)


COMMANDS = (list_pipelines, describe, compile_package, lint_package)
