"""Commands for runs: run, watch, runs, logs, cancel."""

import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape

from kfp_hybrid.cli.options import (
    cache_option,
    config_option,
    given_parameters,
    open_package,
    open_target,
    parameter_options,
    runs_option,
    target_option,
    with_address,
)
from kfp_hybrid.cli.tables import print_table
from kfp_hybrid.errors import UserError

if TYPE_CHECKING:
    from kfp_hybrid.package import Package
    from kfp_hybrid.targets import RunStatus, Target
    from kfp_hybrid.targets.local import LocalTarget
    from kfp_hybrid.targets.local.running import Run

LOG_LINES = 20
INTERRUPTED = 130


@click.command()
@click.argument("pipeline")
@target_option
@config_option
@parameter_options
@cache_option
@click.option("--watch/--no-watch", default=False, help="Show the run until it ends; a local run always is.")
@click.option(
    "--runner",
    type=click.Choice(["environments", "docker"]),
    default="environments",
    show_default=True,
    help="Run local steps in the environments of their images, or as containers.",
)
@runs_option
def run(
    pipeline: str,
    target_name: str,
    config: Path | None,
    pairs: tuple[str, ...],
    file: Path | None,
    cache: bool,
    watch: bool,
    runner: str,
    folder: Path,
) -> None:
    """Run PIPELINE (a name from `list`, a .py file, or a compiled package).

    Exit status: 0 succeeded, or submitted (a gate that rejected counts as success unless strict=true); 1 failed;
    130 interrupted.
    """
    from kfp_hybrid.targets.local import LocalTarget

    target = _target(target_name, config, folder)
    package = open_package(pipeline, target)
    arguments = package.arguments(given_parameters(pairs, file))
    if isinstance(target, LocalTarget):
        target.runner = runner
        _run_here(target, package, arguments, cache)
        return
    if runner != "environments":
        raise UserError(f"--runner is for runs on this machine; {target_name} is a target of kind {target.kind}")
    status = target.submit(package, arguments, caching=cache)
    click.echo(with_address(f"run {status.id}", status.url))
    if watch:
        _watch(target, status.id, [step.task for step in package.steps()])


@click.command()
@click.argument("run_id", metavar="RUN")
@target_option
@config_option
@runs_option
def watch(run_id: str, target_name: str, config: Path | None, folder: Path) -> None:
    """Show RUN until it ends.

    Exit status: 0 succeeded, 1 failed or cancelled, 130 interrupted (the run itself goes on).
    """
    _watch(_target(target_name, config, folder), run_id, [])


@click.command("runs")
@target_option
@config_option
@runs_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="How many.")
def list_runs(target_name: str, config: Path | None, folder: Path, limit: int) -> None:
    """List the newest runs."""
    found = _target(target_name, config, folder).runs(limit)
    if not found:
        click.echo(f"there are no runs on {target_name}")
        return
    rows = ((status.id, status.name, status.state, _minute(status.created)) for status in found)
    print_table(("run", "pipeline", "state", "created"), rows)


def _minute(time: datetime.datetime | None) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M") if time else ""


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("step", required=False)
@target_option
@config_option
@runs_option
def logs(run_id: str, step: str | None, target_name: str, config: Path | None, folder: Path) -> None:
    """Print what STEP of RUN has printed; without STEP, what failed, else the last step that began."""
    target = _target(target_name, config, folder)
    for line in target.logs(run_id, step or _interesting_step(target.status(run_id))):
        click.echo(line)


@click.command()
@click.argument("run_id", metavar="RUN")
@target_option
@config_option
@runs_option
def cancel(run_id: str, target_name: str, config: Path | None, folder: Path) -> None:
    """Stop RUN."""
    target = _target(target_name, config, folder)
    before = target.status(run_id)
    if before.ended:
        click.echo(f"run {run_id} had {before.state} already")
        return
    target.cancel(run_id)
    click.echo(f"run {run_id} is being cancelled")


def _target(name: str, config: Path | None, folder: Path) -> "Target":
    from kfp_hybrid.targets.local import LocalTarget

    target = open_target(name, config)
    if isinstance(target, LocalTarget):
        target.folder = folder
    return target


def _run_here(target: "LocalTarget", package: "Package", arguments: dict[str, Any], caching: bool) -> None:
    console = Console(file=sys.stdout)  # the file itself: a run redirects sys.stdout
    try:
        finished = target.run(package, arguments, console, caching=caching)
    except KeyboardInterrupt:
        click.echo("interrupted; the running step was stopped", err=True)
        sys.exit(INTERRUPTED)
    _report(finished, console)
    if not finished.succeeded:
        sys.exit(1)


def _watch(target: "Target", run_id: str, steps: list[str]) -> None:
    try:
        status = target.watch(run_id, Console(), steps=steps)
    except KeyboardInterrupt:
        click.echo(
            f"no longer watching; the run goes on. Watch it again: kfp-hybrid watch {run_id} --target {target.name}; "
            f"stop it: kfp-hybrid cancel {run_id} --target {target.name}",
            err=True,
        )
        sys.exit(INTERRUPTED)
    failed = [step for step in status.steps if step.state == "failed"]
    for step in failed:
        click.echo(f"step {step.name} failed{': ' if step.message else ''}{step.message}", err=True)
    if failed:
        click.echo(f"its log: kfp-hybrid logs {run_id} {failed[0].name} --target {target.name}", err=True)
    click.echo(f"run {run_id} {status.state}{': ' if status.message else ''}{status.message}")
    if status.url:
        click.echo(status.url)
    if status.state != "succeeded":
        sys.exit(1)


def _interesting_step(status: "RunStatus") -> str:
    failed = [step.name for step in status.steps if step.state == "failed"]
    begun = [step.name for step in status.steps if step.state not in ("waiting", "skipped", "cached")]
    if not begun:
        raise UserError(f"no step of run {status.id} has printed anything; it is {status.state}")
    return failed[0] if failed else begun[-1]


def _report(run: "Run", console: Console) -> None:
    """What came out of a local run: the gates' verdicts, the reports, the model; or why it failed."""
    from kfp_hybrid.targets.local.processes import log_tail

    if run.failed_step:
        log = run.log(run.failed_step)
        click.echo(f"\nlast lines of {log}:\n{log_tail(log, LOG_LINES)}", err=True)
        click.echo(f"\nstep {run.failed_step} failed; its whole log is {log}", err=True)
    for step, outputs in run.outputs.items():
        said = outputs.get("reason", outputs.get("Output"))  # what a gate says, or a step's only output
        if isinstance(said, str):
            console.print(f"[bold]{step}[/]: {escape(said)}", highlight=False, soft_wrap=True)
    for step, report in run.reports().items():
        click.echo(f"report of {step}: {report}")
    for outputs in run.outputs.values():
        pushed = outputs.get("pushed")  # what push_model puts out
        if pushed and pushed.metadata.get("pushed"):
            click.echo(f"model: {pushed.metadata['destination'].rstrip('/')}/{int(pushed.metadata['version'])}")
    click.echo(f"run: {run.folder}")


COMMANDS = (run, watch, list_runs, logs, cancel)
