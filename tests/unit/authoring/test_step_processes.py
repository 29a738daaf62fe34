"""Steps as processes: an interruption at any moment leaves none behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kfp_hybrid.targets.local.processes import StepProcesses

COMMAND = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def steps(tmp_path):
    return StepProcesses({"image": Path(sys.executable)}, tmp_path, tmp_path / "cache")


@pytest.fixture
def interrupted_at_start(monkeypatch, steps):
    """Ctrl-C comes when the process of a step is there and nobody knows of it; gives the processes."""
    started = []
    start = subprocess.Popen

    def start_and_interrupt(*args, **options):
        process = start(*args, **options)
        started.append(process)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)  # in which the main thread takes notice
        return process

    def stop_and_leave(number, frame):
        steps.stop()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", start_and_interrupt)
    previous = signal.signal(signal.SIGINT, stop_and_leave)
    yield started
    signal.signal(signal.SIGINT, previous)
    for process in started:
        process.kill()
        process.wait()


def test_a_step_that_is_interrupted_while_it_starts_is_ended(steps, interrupted_at_start, tmp_path):
    def kill_if_stuck():
        if not done.wait(60):
            os.killpg(interrupted_at_start[0].pid, signal.SIGKILL)

    done = threading.Event()
    guard = threading.Thread(target=kill_if_stuck, daemon=True)
    guard.start()
    with pytest.raises(KeyboardInterrupt):
        steps.run("image", COMMAND, {}, tmp_path, tmp_path / "log")
    done.set()
    (process,) = interrupted_at_start
    assert process.returncode == -signal.SIGTERM


def test_no_step_starts_after_a_stop(steps, tmp_path):
    steps.stop()
    assert steps.run("image", COMMAND, {}, tmp_path, tmp_path / "log") == -signal.SIGTERM
