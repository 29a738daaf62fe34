"""For all tests, whichever interpreter runs them."""

import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# What is started in the background of a shell ignores SIGINT, and so would every process that a test starts and
# interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

sys.path.insert(0, str(Path(__file__).parent / "servers"))  # its modules are imported by their names

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # an interpreter without it runs no test that needs it
    pass
else:
    # The same examples each time, and no bound on how long one takes: a failure is one of the change that is tested,
    # whatever else the machine does. `--hypothesis-profile=explore` looks at others.
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("explore", patient)
    settings.register_profile("repeatable", patient, derandomize=True)
    settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def no_log_handlers_of_earlier_tests() -> Iterator[None]:
    """Steps log to the standard error of their test, which is closed afterwards: a later line would be an error."""
    before = logging.getLogger().handlers[:]
    yield
    for handler in set(logging.getLogger().handlers).difference(before):
        logging.getLogger().removeHandler(handler)
