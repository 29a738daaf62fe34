"""Waiting for a cluster to do what it was asked for."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from kfp_hybrid.step import Stopped

POLL_SECONDS = 1.0

T = TypeVar("T")

log = logging.getLogger(__name__)


class NotReady(Exception):
    """It will not come about, or not in time; says why."""


class Deadline:
    """A point in time, some seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def passed(self) -> bool:
        """Whether it is over."""
        return self.elapsed() >= self.seconds


def wait(look: Callable[[], T | None], deadline: Deadline) -> T:
    """Look every `POLL_SECONDS` until there is something to see.

    Args:
        look: Returns what is waited for, or None; raises `NotReady` when that will not come.
        deadline: When to give up.

    Raises:
        NotReady: the deadline has passed.
    """
    while (seen := look()) is None:
        if deadline.passed():
            raise NotReady(f"not within {deadline.seconds:g} s")
        time.sleep(POLL_SECONDS)
    return seen


@contextlib.contextmanager
def saying_what_stays(state: Callable[[], str]) -> Iterator[None]:
    """When the step is stopped within, say in one line what it leaves behind."""
    try:
        yield
    except Stopped:
        log.warning("stopped: %s", state())
        raise
