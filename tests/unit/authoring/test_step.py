"""What every step does around its work."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from kfp_hybrid.step import StepError, step


@pytest.fixture
def limit(monkeypatch):
    return lambda text: monkeypatch.setenv("KFP_HYBRID_TIMEOUT_SECONDS", text)


@pytest.fixture
def timer():
    """The timer and the handler of its signal; another one than the step's may run, such as that of the test itself."""

    def state():
        seconds, interval = signal.getitimer(signal.ITIMER_REAL)
        return seconds > 1, interval, signal.getsignal(signal.SIGALRM)

    state.before = state()
    return state


def test_a_step_error_is_one_line_and_status_1(capfd):
    with pytest.raises(SystemExit, match="1"), step():
        raise StepError("there is no label")
    assert capfd.readouterr().err == "error: there is no label\n"


def test_sigterm_runs_the_clean_up_and_is_status_143(capfd):
    cleaned = []
    with pytest.raises(SystemExit, match="143"), step():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        finally:
            cleaned.append(True)
    assert cleaned
    assert "stopped by SIGTERM" in capfd.readouterr().err


def test_a_step_that_takes_too_long_is_ended_after_its_clean_up(limit, capfd):
    limit("0.05")
    cleaned = []
    with pytest.raises(SystemExit, match="1"), step():
        try:
            time.sleep(30)
        except Exception:  # what code that goes on after any error does
            pytest.fail("a timeout is no exception to go on after")
        finally:
            cleaned.append(True)
    assert cleaned
    assert capfd.readouterr().err == "error: the step took longer than 0.05 s, which is its timeout\n"


def test_a_step_within_its_time_is_not_ended_later(limit, timer):
    limit("0.2")
    with step():
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.2
    assert timer() == timer.before


@pytest.mark.parametrize("text", ["", "0"])
def test_without_a_limit_no_timer_runs(limit, timer, text):
    limit(text)
    with step():
        assert timer() == timer.before


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_of_seconds_is_refused(limit, capfd, text):
    limit(text)
    with pytest.raises(SystemExit, match="1"), step():
        pytest.fail("the step must not run")
    assert f"KFP_HYBRID_TIMEOUT_SECONDS is {text}; give a number of seconds" in capfd.readouterr().err


def test_a_step_that_hangs_outside_of_python_is_ended_and_shows_where():
    code = """
        import ctypes
        from kfp_hybrid import step
        step.GRACE_SECONDS = 0.1
        libc = ctypes.CDLL(None)
        mutex = ctypes.create_string_buffer(64)
        with step.step():
            libc.pthread_mutex_lock(mutex)
            libc.pthread_mutex_lock(mutex)  # waits for itself, and never comes back to Python
    """
    environment = {**os.environ, "KFP_HYBRID_TIMEOUT_SECONDS": "0.1"}
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert re.search(r'File "<string>", line \d+ in <module>', ended.stderr)
