"""Runs a command in a fresh process and measures it with everything that it starts."""

import os
import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.05
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        output: what it wrote to standard output.
        seconds: from start to exit.
        cpu_seconds: of the process and its children.
        peak_mb: highest resident memory of the process and its children together, sampled; pages that they share
            count for each of them.
    """

    output: str
    seconds: float
    cpu_seconds: float
    peak_mb: float


def run(command: Sequence[str]) -> Measured:
    """Run a command to its end; CalledProcessError when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start, peak = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(resident_bytes, tree(process.pid))))
            time.sleep(SAMPLE_SECONDS)
        output, _ = process.communicate()
    seconds = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(output, seconds, cpu_seconds, peak / 1e6)


def tree(root: int) -> list[int]:
    """A process and all that come from it."""
    found = [root]
    for process in found:
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:  # it ended meanwhile
                continue
    return found


def resident_bytes(process: int) -> int:
    """Resident memory of a process; 0 when it has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0
