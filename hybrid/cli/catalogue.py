"""Commands for what a platform keeps: packages that its console lists, and schedules."""

from pathlib import Path

import click

from kfp_hybrid import __version__
from kfp_hybrid.cli.options import (
    cache_option,
    config_option,
    given_parameters,
    open_package,
    open_target,
    parameter_options,
    target_option,
    with_address,
)
from kfp_hybrid.cli.tables import print_table


@click.command()
@click.argument("pipeline")
@target_option
@config_option
@click.option("--version", default=__version__, show_default=True, help="What to call this version of the package.")
def register(pipeline: str, target_name: str, config: Path | None, version: str) -> None:
    """Put PIPELINE (a name from `list`, a .py file, or a compiled package) where the console of a target lists it."""
    target = open_target(target_name, config)
    registration = target.register(open_package(pipeline, target), version=version)
    what = f"{'registered' if registration.new else 'unchanged:'} {registration.name}, version {registration.version}"
    click.echo(with_address(what, registration.url))


@click.command()
@click.argument("pipeline")
@target_option
@config_option
@parameter_options
@cache_option
@click.option("--cron", required=True, help="When: five fields, such as '0 3 * * *' or 'TZ=Europe/Berlin 0 3 * * *'.")
@click.option("--name", help="What to call the schedule; the pipeline's name when left out.")
def schedule(
    pipeline: str,
    target_name: str,
    config: Path | None,
    pairs: tuple[str, ...],
    file: Path | None,
    cache: bool,
    cron: str,
    name: str | None,
) -> None:
    """Run PIPELINE again and again."""
    target = open_target(target_name, config)
    package = open_package(pipeline, target)
    arguments = package.arguments(given_parameters(pairs, file))
    made = target.schedule(package, arguments, name=name or package.name, cron=cron, caching=cache)
    click.echo(with_address(f"schedule {made.id} ({made.name}, {made.cron})", made.url))


@click.command("schedules")
@target_option
@config_option
def list_schedules(target_name: str, config: Path | None) -> None:
    """List the schedules of a target."""
    found = open_target(target_name, config).schedules()
    if not found:
        click.echo(f"there are no schedules on {target_name}")
        return
    rows = ((entry.id, entry.name, entry.cron, "on" if entry.enabled else "off") for entry in found)
    print_table(("schedule", "name", "cron", "state"), rows)


@click.command()
@click.argument("schedule_id", metavar="SCHEDULE")
@target_option
@config_option
def unschedule(schedule_id: str, target_name: str, config: Path | None) -> None:
    """Delete SCHEDULE; runs that it has started go on."""
    open_target(target_name, config).unschedule(schedule_id)
    click.echo(f"deleted schedule {schedule_id}")


COMMANDS = (register, schedule, list_schedules, unschedule)
