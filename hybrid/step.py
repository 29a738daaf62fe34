"""What every step does around its work: log in one format, report a user's mistake in one line, stop cleanly.

A component's function body is

    with step():
        do_the_work(...)

and the implementation raises `StepError` for whatever the user can put right.
"""

import contextlib
import logging
import signal
import sys
import types
import warnings
from collections.abc import Iterator

from kfp_hybrid.errors import UserError


class StepError(UserError):
    """A step cannot do its work for a reason that the user can put right."""


class Stopped(BaseException):
    """The step was told to stop (SIGTERM); raised so that `finally` blocks and context managers clean up."""


@contextlib.contextmanager
def step() -> Iterator[None]:
    """Run a step's work: a `StepError` becomes one line and exit status 1, SIGTERM runs the clean-up first.

    Raises:
        SystemExit: status 1 after a `StepError`, 143 after SIGTERM.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s", force=True)
    warnings.simplefilter("ignore", FutureWarning)  # what libraries plan is not for the user of a pipeline to mend
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    except StepError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except Stopped:
        print("stopped by SIGTERM; run the step again", file=sys.stderr, flush=True)
        raise SystemExit(143) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def _stop(signum: int, frame: types.FrameType | None) -> None:
    raise Stopped
