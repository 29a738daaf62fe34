"""The real model server on a candidate, as a process of its own that never outlives the step."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kfp_hybrid.components.inference.validate_serving import launch
from kfp_hybrid.components.inference.validate_serving.candidate import Candidate
from kfp_hybrid.components.inference.validate_serving.client import Client
from kfp_hybrid.components.inference.validate_serving.request import Limits, Request

HOST, NAME = "127.0.0.1", "candidate"
POLL_SECONDS = 0.01
DEATH_SECONDS = 1.0  # between a connection that broke and the end of the process
DRAIN_SECONDS = 5.0  # for a server that was told to stop; then it is killed
LONGEST_LAST_WORDS = 300  # characters in a sentence


class ServingFailure(Exception):
    """The server does not do what it has to; the text says so in one clause."""


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        process: The process; its group holds those that it has started.
        client: Sends requests to it.
        grpc_port: Its port for gRPC.
        start_seconds: From its start until it said that it is ready.
        log: What it has printed.
    """

    process: subprocess.Popen[bytes]
    client: Client
    grpc_port: int
    start_seconds: float
    log: Path

    def require_alive(self, patience: float = 0.0) -> None:
        """Check that it still runs.

        Args:
            patience: How many seconds to wait for its end: a connection breaks a moment before the process is gone.

        Raises:
            ServingFailure: it has ended.
        """
        if patience:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
        if self.process.poll() is not None:
            raise ServingFailure(f"the server {describe_end(self.process.returncode, self.log)}")

    def memory(self) -> int:
        """Bytes of memory that its processes hold (resident set size)."""
        return sum(map(_resident_bytes, _processes_of_group(self.process.pid)))


@contextlib.contextmanager
def serve(request: Request, candidate: Candidate) -> Iterator[Server]:
    """Start the server and wait until it is ready; it is ended with the block, whatever ends that.

    Args:
        request: Its options, and how long it may take.
        candidate: What it serves.

    Raises:
        ServingFailure: it ended, or was not ready in time.
    """
    with tempfile.TemporaryDirectory(prefix="validate_serving.") as scratch:
        log, port_file, grpc_port_file = (Path(scratch) / name for name in ("server.log", "port", "grpc-port"))
        command = [sys.executable, "-m", launch.__name__, str(os.getpid()), str(candidate.files.path)]
        command += ["--host", HOST, "--port", "0", "--port-file", str(port_file), "--drain-delay", "0"]
        command += ["--grpc-port-file", str(grpc_port_file)]
        command += ["--name", NAME, "--engine", candidate.engine, *request.server_options]
        logging.info("starting the server on %s, version %s", candidate.engine, candidate.files.version)
        started = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            client = _wait_until_ready(process, port_file, log, started, request.limits)
            seconds = time.monotonic() - started
            yield Server(process, client, int(grpc_port_file.read_text(encoding="ascii")), seconds, log)
        finally:
            _end(process)


def _wait_until_ready(
    process: subprocess.Popen[bytes], port_file: Path, log: Path, started: float, limits: Limits
) -> Client:
    while True:
        port = port_file.read_text(encoding="ascii").strip() if port_file.exists() else ""
        if port:
            client = Client(HOST, int(port), NAME, limits.request_seconds)
            if client.is_ready():
                return client
        if process.poll() is not None:
            raise ServingFailure(f"the server {describe_end(process.returncode, log)}")
        if time.monotonic() - started > limits.start_seconds:
            raise ServingFailure(f"the server was not ready after {limits.start_seconds:g} s; {_last_words(log)}")
        time.sleep(POLL_SECONDS)


def describe_end(status: int, log: Path) -> str:
    """How a process ended, and the last line that it printed."""
    how = f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
    return f"{how}: {_last_words(log)}"


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last[:LONGEST_LAST_WORDS] if last else "it printed nothing"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop; kill what is left of it and of what it has started."""
    try:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(DRAIN_SECONDS)
                logging.debug("the server ended with status %s", process.returncode)
    finally:  # the step itself may be told to stop, even while it waits
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _processes_of_group(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # ended meanwhile
                if os.getpgid(int(entry.name)) == group:
                    found.append(int(entry.name))
    return found


def _resident_bytes(process: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0
