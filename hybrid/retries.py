"""Tries again what may pass: exponential backoff with jitter, up to a deadline, and says so in the log."""

import logging
from collections.abc import Callable
from typing import TypeVar

import tenacity

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 20.0

T = TypeVar("T")

log = logging.getLogger(__name__)


def retry(
    work: Callable[[], T],
    what: str,
    passing: Callable[[BaseException], str],
    seconds: Callable[[BaseException], float],
    asked_pause: Callable[[BaseException], float] = lambda _: 0.0,
) -> T:
    """Do `work` until it succeeds, fails for good, or there is no time left.

    Args:
        work: what to do; safe to do again.
        what: its name in the log.
        passing: of an error that may be gone the next time, a few words without secrets; "" of any other.
        seconds: of an error, for how long to try again at most, counted from the first try.
        asked_pause: of an error, for how many seconds its sender asked to wait; what is beyond the longest pause is not
            heeded.

    Returns:
        What `work` returned.

    Raises:
        BaseException: the last error.
    """
    # `wait_exponential_jitter` would do, but tenacity 9.2 has renamed its first parameter.
    backoff = tenacity.wait_exponential(multiplier=FIRST_PAUSE_SECONDS) + tenacity.wait_random(0, FIRST_PAUSE_SECONDS)

    def say(state: tenacity.RetryCallState) -> None:
        error = _error(state)
        log.warning(
            "%s failed (%s); attempt %d follows in %.1f s, trying for at most %g s",
            *(what, passing(error), state.attempt_number + 1, state.upcoming_sleep, seconds(error)),
        )

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: bool(passing(error))),
        wait=lambda state: min(max(backoff(state), asked_pause(_error(state))), LONGEST_PAUSE_SECONDS),
        stop=lambda state: tenacity.stop_before_delay(seconds(_error(state)))(state),
        before_sleep=say,
        reraise=True,
    )(work)


def _error(state: tenacity.RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    assert error is not None
    return error
