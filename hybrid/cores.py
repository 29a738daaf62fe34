"""How many processor cores this process may use."""

import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def available_cores(limit: Path = CPU_MAX) -> int:
    """The cores that this process may run on, and not more than a container's limit; at least 1.

    Args:
        limit: the container's limit as control groups (version 2) write it: "<microseconds|max> <microseconds>".
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit.read_text(encoding="ascii").split()
        return min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no control groups, or "max": no limit
        return cores
