"""Steps as processes in the environments of their images: in a group of their own, and never left behind."""

import contextlib
import os
import re
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from kfp import local

GRACE_SECONDS = 10.0
_EXECUTOR_PREFACE = re.compile(r"\A.*?Got executor_input:\n.*?\n}\n", re.DOTALL)


class StepProcesses:
    """Starts steps and, when told to stop, ends all of them with everything they started.

    Attributes:
        version: What the steps' results depend on besides their inputs: the code and the environments.
        kfp_runner: What `kfp.local.init` takes.
    """

    def __init__(self, pythons: dict[str, Path], code: Path, cache: Path) -> None:
        """Set up the steps of a run.

        Args:
            pythons: The interpreter of each image, by its reference.
            code: The folder to put on the steps' import path.
            cache: The cache directory of this tool, where trainings keep their checkpoints.
        """
        self.version = " ".join([code.name, *sorted(str(python) for python in pythons.values())])
        self.kfp_runner = local.SubprocessRunner(use_venv=False)
        self._pythons = pythons
        self._code = code
        self._cache = cache
        self._running: set[subprocess.Popen] = set()
        self._starter = ThreadPoolExecutor(1)
        self._starter.submit(int).result()  # starts its thread, which would take a while when a step is started
        self._lock = threading.RLock()  # reentrant, since `stop` is called by signal handlers
        self.stopped = False

    def run(self, image: str, command: list[str], variables: dict[str, str], scratch: Path, log: Path) -> int:
        """Run a step to its end, its output into the file `log`, and return its exit status."""
        environ = self._environ(image, variables, scratch)
        with log.open("ab") as output:
            # In a thread, which no interruption reaches: a process is either not started, or known and ended.
            starting = self._starter.submit(self._start, command, environ, output)
            try:
                process = starting.result()
                return process.wait() if process else -signal.SIGTERM
            finally:
                if process := starting.result():
                    self._end(process)
                    self._running.discard(process)

    def _start(self, command: list[str], environ: dict[str, str], output: BinaryIO) -> subprocess.Popen | None:
        """Start a step, unless all were told to stop."""
        with self._lock:
            if self.stopped:
                return None
            process = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            self._running.add(process)
            return process

    def stop(self) -> None:
        """Ask every running step to stop, and start no more."""
        with self._lock:
            self.stopped = True
            for process in self._running:
                _signal_group(process, signal.SIGTERM)

    def _environ(self, image: str, variables: dict[str, str], scratch: Path) -> dict[str, str]:
        """The variables of a step: this process's own, with the image's interpreter as `python3`."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **inherited,
            "PATH": f"{self._pythons[image].parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(self._code),
            "PYTHONNOUSERSITE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8",
            "TMPDIR": str(scratch),
            "KFP_HYBRID_CHECKPOINTS": str(self._cache / "checkpoints"),
            **variables,
        }

    def _end(self, process: subprocess.Popen) -> None:
        """Make sure that nothing of the step's process group is left."""
        if process.poll() is None:
            _signal_group(process, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def log_tail(log: Path, lines: int = 20, limit: int = 16_384) -> str:
    """The last lines of a log, reading no more than `limit` bytes of it, without the KFP executor's own preface."""
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - limit))
        text = _EXECUTOR_PREFACE.sub("", file.read().decode("utf-8", "replace"))
    return "\n".join(text.splitlines()[-lines:])
