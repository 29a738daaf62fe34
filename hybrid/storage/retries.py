"""Tries again what may pass: exponential backoff with jitter, up to a deadline, and says so in the log."""

import logging
import math
import os
from collections.abc import Callable
from typing import TypeVar

import tenacity

DEADLINE_SECONDS = 300.0
DEADLINE_VARIABLE = "KFP_HYBRID_STORAGE_DEADLINE_SECONDS"
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 20.0

T = TypeVar("T")

log = logging.getLogger(__name__)


def deadline_seconds() -> float:
    """For how long to try again: `KFP_HYBRID_STORAGE_DEADLINE_SECONDS`, else five minutes."""
    return float(os.environ.get(DEADLINE_VARIABLE) or DEADLINE_SECONDS)


def retry(
    work: Callable[[], T],
    what: str,
    passing: Callable[[BaseException], str],
    patience: Callable[[BaseException], float] = lambda _: math.inf,
) -> T:
    """Do `work` until it succeeds, fails for good, or the deadline is over.

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

    def limit(state: tenacity.RetryCallState) -> float:
        return min(deadline_seconds(), patience(_error(state)))

    def say(state: tenacity.RetryCallState) -> None:
        log.warning(
            "%s failed (%s); attempt %d follows in %.1f s, trying for at most %g s",
            *(what, passing(_error(state)), state.attempt_number + 1, state.upcoming_sleep, limit(state)),
        )

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: bool(passing(error))),
        wait=tenacity.wait_exponential_jitter(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, jitter=FIRST_WAIT_SECONDS),
        stop=lambda state: tenacity.stop_before_delay(limit(state))(state),
        before_sleep=say,
        reraise=True,
    )(work)


def _error(state: tenacity.RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    assert error is not None
    return error
