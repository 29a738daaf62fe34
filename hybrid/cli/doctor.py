"""Is a target ready? `doctor` tries everything that runs will need."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kfp_hybrid.cli.options import config_option, open_package, open_target, with_address
from kfp_hybrid.errors import UserError

if TYPE_CHECKING:
    from kfp_hybrid.targets import Target

STYLES = {"ok": "green", "look": "yellow", "wrong": "bold red", "skipped": "dim"}


@click.command()
@click.argument("target_name", metavar="TARGET")
@config_option
@click.option("--run", "run_hello", is_flag=True, help="Also run the smallest pipeline, `hello`, to its end.")
def doctor(target_name: str, config: Path | None, run_hello: bool) -> None:
    """Try everything that runs on TARGET will need, and say what to do about what is wrong.

    Exit status: 0 ready, 1 something is wrong.
    """
    target = open_target(target_name, config)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 140)  # nobody counts the columns of a log
    healthy = _look(target, console)
    if healthy and run_hello:
        healthy = _run_hello(target, console)
    if not healthy:
        sys.exit(1)


def _look(target: "Target", console: Console) -> bool:
    """Run the checks and print the table; whether nothing is wrong."""
    from kfp_hybrid.targets.doctor import CheckWarning

    table = Table(title=f"target {target.name} ({target.kind})", title_justify="left", header_style="bold")
    table.add_column("check")
    table.add_column("")
    table.add_column("what was found, and what to do", overflow="fold")
    healthy, hopeless = True, False
    checks = target.checks()
    with console.status("") as progress:
        for check in checks:
            progress.update(check.title)
            if hopeless:
                state, found = "skipped", ""
            else:
                try:
                    state, found = "ok", check.run()
                except CheckWarning as warning:
                    state, found = "look", str(warning)
                except UserError as error:
                    state, found = "wrong", str(error)
                    healthy, hopeless = False, check.needed
            table.add_row(check.title, f"[{STYLES[state]}]{state}[/]", escape(found))
    console.print(table)
    return healthy


def _run_hello(target: "Target", console: Console) -> bool:
    package = open_package("hello", target)
    status = target.submit(package, {})
    if not status.ended:
        console.print(with_address(f"run {status.id}", status.url), soft_wrap=True)
        status = target.watch(status.id, console, steps=[step.task for step in package.steps()])
    console.print(f"hello {status.state}{': ' if status.message else ''}{status.message}", soft_wrap=True)
    return status.state == "succeeded"


COMMANDS = (doctor,)
