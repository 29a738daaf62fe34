"""What a run looks like on any target."""

import datetime
from dataclasses import dataclass, field

ENDED = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class StepStatus:
    """One step of a run.

    Attributes:
        name: The task's name in the package.
        state: "waiting", "running", "done", "cached", "failed", "stopped" or "skipped".
        seconds: How long it took, or takes so far; None before it starts.
        message: Why it failed, in one line; "" otherwise.
    """

    name: str
    state: str
    seconds: float | None = None
    message: str = ""


@dataclass(frozen=True)
class RunStatus:
    """One run.

    Attributes:
        id: What `logs`, `cancel` and `watch` take.
        name: What a person calls it.
        state: "waiting", "running", "succeeded", "failed" or "cancelled".
        created: When it was submitted (with a time zone); None when the platform does not say.
        url: The page of the console that shows it; for a local run, its folder.
        message: Why it failed, in one line; "" otherwise.
        steps: The steps that have begun, and those that the platform already knows of.
    """

    id: str
    name: str
    state: str
    created: datetime.datetime | None = None
    url: str = ""
    message: str = ""
    steps: tuple[StepStatus, ...] = field(default=())

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED


@dataclass(frozen=True)
class Registration:
    """A package that a console now lists.

    Attributes:
        name: The pipeline or template.
        version: The version of it that the package became.
        url: Where the console shows it, or where it can be imported from.
        new: False when the same package had been registered before.
    """

    name: str
    version: str
    url: str
    new: bool = True


@dataclass(frozen=True)
class Schedule:
    """A schedule that starts runs.

    Attributes:
        id: What `unschedule` takes.
        name: What a person calls it.
        cron: When it starts runs: five fields, with an optional time zone before them (`TZ=Europe/Berlin 0 3 * * *`).
        enabled: Whether it is on.
        url: The page of the console that shows it.
    """

    id: str
    name: str
    cron: str
    enabled: bool
    url: str = ""
