"""What importing every component costs, against importing kfp alone: processor time, best of several fresh processes.

Usage: python bench/import_cost.py [--runs 7]
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

from kfp_hybrid import components


def processor_seconds(code: str) -> float:
    """User and system time of a fresh interpreter that runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    root = Path(components.__path__[0])
    names = sorted(
        ".".join(["kfp_hybrid.components", *file.relative_to(root).with_suffix("").parts])
        for file in root.rglob("component.py")
    )
    programs = {"import kfp": "import kfp", f"import {len(names)} components": f"import {', '.join(names)}"}
    times = {what: [] for what in programs}
    for _ in range(runs):  # in turn, so that a slow moment of the machine meets both
        for what, code in programs.items():
            times[what].append(processor_seconds(code))
    peer = min(times["import kfp"])
    for what, seconds in times.items():
        print(f"  {what:24s} {min(seconds):6.2f} s   {min(seconds) / peer:5.2f} x")


if __name__ == "__main__":
    main()
