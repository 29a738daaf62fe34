"""What every step does around its work: log in one format, report a user's mistake in one line, stop cleanly.

A component's function body is

    with step():
        do_the_work(...)

and the implementation raises `StepError` for whatever the user can put right.
"""

import contextlib
import faulthandler
import logging
import math
import os
import signal
import sys
import types
import warnings
from collections.abc import Iterator

from kfp_hybrid.errors import UserError

SECRET_SCHEME = "secretmanager://"  # noqa: S105 - before projects/PROJECT/secrets/SECRET/versions/VERSION
TIMEOUT_VARIABLE = "KFP_HYBRID_TIMEOUT_SECONDS"
GRACE_SECONDS = 60  # for the clean-up after a timeout; a step that hangs outside Python is then ended from outside it


class StepError(UserError):
    """A step cannot do its work for a reason that the user can put right."""


class Stopped(BaseException):
    """The step was told to stop (SIGTERM); raised so that `finally` blocks and context managers clean up."""


class TimedOut(BaseException):
    """A step took longer than it may; as with `Stopped`, no `except Exception` is in the way of the clean-up."""


@contextlib.contextmanager
def step() -> Iterator[None]:
    """Run a step's work: a `StepError` becomes one line and exit status 1, SIGTERM runs the clean-up first.

    Two environment variables are heeded, which targets set where the platform has nothing of the kind:
    `KFP_HYBRID_TIMEOUT_SECONDS` ends the step after that time, as a `StepError` would; and a variable that refers to a
    secret (`secretmanager://...`) gets its value.

    Raises:
        SystemExit: status 1 after a `StepError` or a timeout, 143 after SIGTERM.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s", force=True)
    warnings.simplefilter("ignore", FutureWarning)  # what libraries plan is not for the user of a pipeline to mend
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        with _time_limit(os.environ.get(TIMEOUT_VARIABLE, "")):
            _resolve_secrets()
            yield
    except (StepError, TimedOut) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except Stopped:
        print("stopped by SIGTERM; run the step again", file=sys.stderr, flush=True)
        raise SystemExit(143) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def _stop(signum: int, frame: types.FrameType | None) -> None:
    raise Stopped


@contextlib.contextmanager
def _time_limit(text: str) -> Iterator[None]:
    """Raise `TimedOut` after so many seconds; no limit when `text` is empty or 0."""
    try:
        seconds = float(text or 0)
        if not 0 <= seconds < math.inf:
            raise ValueError
    except ValueError:
        raise StepError(f"{TIMEOUT_VARIABLE} is {text}; give a number of seconds, or 0 for no limit") from None
    if not seconds:
        yield
        return

    def end(signum: int, frame: types.FrameType | None) -> None:
        raise TimedOut(f"the step took longer than {seconds:g} s, which is its timeout")

    previous = signal.signal(signal.SIGALRM, end)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, *timer)  # of whoever runs this step as a function


def _resolve_secrets() -> None:
    """Fetch the secrets that variables refer to; what that needs is imported only if there are any."""
    if any(value.startswith(SECRET_SCHEME) for value in os.environ.values()):
        from kfp_hybrid import secret_manager

        secret_manager.resolve(os.environ)
