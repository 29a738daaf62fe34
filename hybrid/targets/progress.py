"""What a person sees while a run goes on: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from kfp_hybrid.targets.runs import RunStatus, StepStatus

STYLES = {"waiting": "dim", "running": "bold cyan", "done": "green", "cached": "green", "failed": "bold red",
          "stopped": "yellow", "skipped": "dim"}  # fmt: skip


@dataclass
class StepProgress:
    """Where one step stands."""

    state: str = "waiting"
    started: float = 0.0
    seconds: float | None = None

    def elapsed(self) -> float | None:
        """Seconds so far, or in all; None before it starts."""
        return time.monotonic() - self.started if self.state == "running" else self.seconds


class Progress:
    """Shows the states of a run's steps; a context manager."""

    def __init__(self, title: str, steps: Sequence[str], console: Console) -> None:
        self.title = title
        self.steps = {name: StepProgress() for name in steps}
        self._console = console
        self._live = (
            Live(get_renderable=self._table, console=console, refresh_per_second=4) if console.is_terminal else None
        )

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for step in self.steps.values():
            if step.state == "waiting" and kind is None:
                step.state = "skipped"
        if self._live:
            self._live.stop()
        else:
            skipped = [name for name, step in self.steps.items() if step.state == "skipped"]
            if skipped:
                self._console.print(f"skipped: {', '.join(skipped)}", highlight=False, soft_wrap=True)

    def started(self, name: str) -> None:
        """The step `name` has started."""
        self.steps[name] = StepProgress("running", time.monotonic())
        if not self._live:
            self._line(name)

    def ended(self, name: str, state: str) -> None:
        """The step `name` has ended as "done", "failed", "stopped" or "cached"."""
        step = self.steps.setdefault(name, StepProgress())
        if state != "cached":
            step.seconds = time.monotonic() - step.started
        step.state = state
        if not self._live:
            self._line(name)

    def say(self, message: str) -> None:
        """Show a line; above the table on a terminal."""
        self._console.print(message, highlight=False, soft_wrap=True, markup=False)

    def show(self, run: RunStatus) -> None:
        """Where all steps of a run stand, as its platform says."""
        for status in run.steps:
            step = self.steps.setdefault(status.name, StepProgress())
            changed = step.state != status.state
            step.state, step.seconds = status.state, status.seconds
            if status.state == "running":
                step.started = time.monotonic() - (status.seconds or 0)
            if changed and not self._live:
                self._line(status.name)

    def statuses(self) -> list[StepStatus]:
        """Where all steps stand."""
        return [StepStatus(name, step.state, step.elapsed()) for name, step in self.steps.items()]

    def _line(self, name: str) -> None:
        step = self.steps[name]
        over = step.seconds is not None and step.state != "running"
        seconds = f" {step.seconds:.1f} s" if over else ""
        position = list(self.steps).index(name) + 1
        self._console.print(f"[{position}/{len(self.steps)}] {name} {step.state}{seconds}", highlight=False,
                            soft_wrap=True, markup=False)  # fmt: skip

    def _table(self) -> Table:
        table = Table(title=self.title, title_justify="left", header_style="bold")
        table.add_column("step")
        table.add_column("state")
        table.add_column("seconds", justify="right")
        for name, step in self.steps.items():
            seconds = step.elapsed()
            table.add_row(name, f"[{STYLES[step.state]}]{step.state}[/]", "" if seconds is None else f"{seconds:.1f}")
        return table
