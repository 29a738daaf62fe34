"""The command line: `kfp-hybrid`."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import platformdirs
from rich.console import Console

from kfp_hybrid import __version__
from kfp_hybrid.errors import UserError

if TYPE_CHECKING:  # kfp takes half a second to import; only the commands that need it pay for it
    from kfp_hybrid.package import Package
    from kfp_hybrid.targets.local import LocalTarget
    from kfp_hybrid.targets.local.target import Run

LOG_LINES = 20
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


class Commands(click.Group):
    """Shows a `UserError` as one line on standard error, with exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from None


def cache_folder() -> Path:
    """Where environments and cached steps are kept: `$KFP_HYBRID_CACHE`, else the user's cache directory."""
    return Path(os.environ.get("KFP_HYBRID_CACHE") or platformdirs.user_cache_dir("kfp-hybrid")).absolute()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="kfp-hybrid")
def main() -> None:
    """TensorFlow pipelines that run on this machine, on Kubeflow and on Vertex AI."""


@main.command("list")
def list_pipelines() -> None:
    """List the pipelines of this collection."""
    from kfp_hybrid.sources import pipeline_names

    for name in pipeline_names():
        click.echo(name)


@main.command()
@click.argument("pipeline")
def describe(pipeline: str) -> None:
    """Show the parameters and steps of PIPELINE (a name from `list`, or a compiled package)."""
    package = _package(pipeline, _local_target())
    formatter = click.HelpFormatter(max_width=100)
    formatter.write_heading(f"Parameters of {package.name}")
    with formatter.indentation():
        formatter.write_dl([(name, package.describe_parameter(name)) for name in sorted(package.parameters)])
    click.echo(formatter.getvalue())
    click.echo(f"Steps: {' > '.join(step.task for step in package.steps())}")


@main.command("compile")
@click.argument("pipeline")
@click.option("--target", type=click.Choice(["local"]), default="local", show_default=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The package to write."
)
def compile_package(pipeline: str, target: str, output: Path) -> None:
    """Compile PIPELINE into a package."""
    from kfp_hybrid.sources import compile_pipeline

    compile_pipeline(pipeline, _local_target(), output)
    click.echo(f"wrote {output}")


@main.command()
@click.argument("pipeline")
@click.option("--target", type=click.Choice(["local"]), default="local", show_default=True)
@click.option("-p", "--parameter", "pairs", multiple=True, metavar="NAME=VALUE", help="A parameter; may be repeated.")
@click.option("--parameters", "file", type=FILE, help="A JSON file of parameters; -p overrides it.")
@click.option("--cache/--no-cache", default=True, help="Reuse the results of steps whose inputs have not changed.")
@click.option("-o", "--runs", type=FOLDER, default="kfp-hybrid-runs", show_default=True, help="Where runs go.")
def run(pipeline: str, target: str, pairs: tuple[str, ...], file: Path | None, cache: bool, runs: Path) -> None:
    """Run PIPELINE (a name from `list`, or a compiled package) to its end.

    Exit status: 0 succeeded (a gate that rejected counts as success unless strict=true), 1 failed, 130 interrupted.
    """
    local = _local_target()
    package = _package(pipeline, local)
    arguments = package.arguments(_given(pairs, file))
    console = Console(file=sys.stdout)  # the file itself: a run redirects sys.stdout
    try:
        finished = local.run(package, arguments, runs, console, caching=cache)
    except KeyboardInterrupt:
        click.echo("interrupted; the running step was stopped", err=True)
        sys.exit(130)
    _report(finished, console)
    if not finished.succeeded:
        sys.exit(1)


@main.command("lint")
@click.argument("pipeline")
@click.option("--target", "targets", type=click.Choice(["local", "kubeflow", "vertex"]), multiple=True,
              help="Where it must run; may be repeated. All three when left out.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["text", "json", "sarif"]), default="text", show_default=True)
@click.option("-o", "--output", type=FILE, help="Write the findings to a file instead.")
def lint_package(pipeline: str, targets: tuple[str, ...], form: str, output: Path | None) -> None:
    """Say what in PIPELINE (a compiled package, or a name from `list`) would break on which target.

    Exit status: 0 nothing, or warnings only; 1 errors.
    """
    from kfp_hybrid.lint import ERROR, TARGETS, lint
    from kfp_hybrid.lint.output import FORMATS

    package = _package(pipeline, _local_target())
    findings = lint(package, targets or TARGETS)
    report = FORMATS[form](findings, pipeline, targets or TARGETS)
    try:
        if output:
            output.write_text(click.unstyle(report), "utf-8")
        else:
            click.echo(report, nl=False)
    except OSError as error:
        raise UserError(f"cannot write {output or 'the findings'}: {error.strerror}") from None
    if any(finding.level == ERROR for finding in findings):
        sys.exit(1)


@main.command()
def environments() -> None:
    """Make the environments of all images now, so that runs need no network."""
    from kfp_hybrid import images
    from kfp_hybrid.targets.local.environments import ensure_environment

    for image in images.names():
        click.echo(f"{image}: {ensure_environment(image, cache_folder(), click.echo)}")


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def python(image: str, arguments: tuple[str, ...]) -> None:
    """Start the Python of IMAGE as a step would see it, for instance to debug a component."""
    from kfp_hybrid import images
    from kfp_hybrid.targets.local.code import snapshot
    from kfp_hybrid.targets.local.environments import ensure_environment

    if image not in images.names():
        raise UserError(f"there is no image {image}; this collection has: {', '.join(images.names())}")
    interpreter = ensure_environment(image, cache_folder(), click.echo)
    path = [str(snapshot(cache_folder())), os.environ.get("PYTHONPATH", "")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "_KFP_RUNTIME": "true"}
    sys.stdout.flush()
    os.execve(interpreter, [str(interpreter), *arguments], environ)  # noqa: S606 - that is what the command is for


@main.command()
@click.argument("destination")
def versions(destination: str) -> None:
    """List the model versions published in DESTINATION; a star marks the one in use."""
    from kfp_hybrid.components.deployment.push_model.publisher import latest_version, list_versions

    published = list_versions(destination)
    if not published:
        click.echo(f"nothing is published in {destination}")
    latest = latest_version(destination)
    for version in published:
        click.echo(f"{'*' if version.number == latest else ' '} {version.number}  {version.created}  {version.path}")


@main.command()
@click.argument("destination")
@click.argument("version", type=int)
def rollback(destination: str, version: int) -> None:
    """Make VERSION the one in use in DESTINATION, after checking its files."""
    from kfp_hybrid.components.deployment.push_model import publisher

    click.echo(f"version {publisher.rollback(destination, version).number} is in use in {destination}")


@main.command("demo-data")
@click.argument("file", type=FILE)
def demo_data(file: Path) -> None:
    """Write the demo data, 327,346 flights of 2013, to the CSV file FILE."""
    from kfp_hybrid.demo import write_flights

    try:
        rows, left_out = write_flights(file)
    except ModuleNotFoundError as error:
        raise UserError(str(error)) from None
    click.echo(
        f"wrote {file}: {rows:,} flights ({left_out:,} cancelled or diverted flights have no label and are left out)"
    )


def _local_target() -> "LocalTarget":
    from kfp_hybrid.targets.local import LocalTarget

    return LocalTarget(cache_folder())


def _package(pipeline: str, target: "LocalTarget") -> "Package":
    from kfp_hybrid.package import Package
    from kfp_hybrid.sources import compile_pipeline

    if pipeline.endswith((".yaml", ".yml")):
        return Package.load(Path(pipeline))
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / f"{pipeline}.yaml"
        compile_pipeline(pipeline, target, compiled)
        return Package.load(compiled)


def _given(pairs: tuple[str, ...], file: Path | None) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if file:
        try:
            given = json.loads(file.read_text("utf-8"))
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}") from None
        except ValueError as error:
            raise UserError(f"{file} is not JSON: {error}") from None
        if not isinstance(given, dict):
            raise UserError(f'{file} must hold one JSON object, such as {{"epochs": 3}}')
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"-p takes NAME=VALUE, not {pair!r}")
        given[name.strip()] = value
    return given


def _report(run: "Run", console: Console) -> None:
    """What came out of a run: the gates' verdicts, the reports, the model; or why it failed."""
    from kfp_hybrid.targets.local.processes import log_tail

    if run.failed_step:
        log = run.log(run.failed_step)
        click.echo(f"\nlast lines of {log}:\n{log_tail(log, LOG_LINES)}", err=True)
        click.echo(f"\nstep {run.failed_step} failed; its whole log is {log}", err=True)
    for step, outputs in run.outputs.items():
        reason = outputs.get("reason")
        if isinstance(reason, str):
            console.print(f"[bold]{step}[/]: {reason}", highlight=False, soft_wrap=True)
    for step, report in run.reports().items():
        click.echo(f"report of {step}: {report}")
    for outputs in run.outputs.values():
        pushed = outputs.get("pushed")  # what push_model puts out
        if pushed and pushed.metadata.get("pushed"):
            click.echo(f"model: {Path(pushed.metadata['destination']) / str(int(pushed.metadata['version']))}")
    click.echo(f"run: {run.folder}")


if __name__ == "__main__":
    main()
