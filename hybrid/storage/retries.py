"""For how long what a store refuses is tried again."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from kfp_hybrid import retries

DEADLINE_SECONDS = 300.0
DEADLINE_VARIABLE = "KFP_HYBRID_STORAGE_DEADLINE_SECONDS"
FIRST_WAIT_SECONDS = retries.FIRST_PAUSE_SECONDS
LONGEST_WAIT_SECONDS = retries.LONGEST_PAUSE_SECONDS

T = TypeVar("T")


_most: ContextVar[float] = ContextVar("most", default=math.inf)


def deadline_seconds() -> float:
    """For how long to try again: `KFP_HYBRID_STORAGE_DEADLINE_SECONDS`, else five minutes; see also `at_most`."""
    return min(float(os.environ.get(DEADLINE_VARIABLE) or DEADLINE_SECONDS), _most.get())


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Let this thread try again for no longer than this, for what is not worth the wait."""
    token = _most.set(seconds)
    try:
        yield
    finally:
        _most.reset(token)


def retry(
    work: Callable[[], T],
    what: str,
    passing: Callable[[BaseException], str],
    patience: Callable[[BaseException], float] = lambda _: math.inf,
) -> T:
    """Do `work` until it succeeds, fails for good, or the deadline is over; see `kfp_hybrid.retries.retry`.

    Args:
        work: what to do; safe to do again.
        what: its name in the log.
        passing: of an error that may be gone the next time, a few words without secrets; "" of any other.
        patience: of an error, for how many seconds to try again at most, if that is less than the deadline.

    Returns:
        What `work` returned.

    Raises:
        BaseException: the last error.
    """
    try:
        return work()
    except Exception as error:
        if not passing(error):
            raise
        failures = [error]  # only now are retries prepared, which cost as much as a small request

    def again() -> T:
        if failures:
            raise failures.pop()
        return work()

    return retries.retry(again, what, passing, lambda error: min(deadline_seconds(), patience(error)))
