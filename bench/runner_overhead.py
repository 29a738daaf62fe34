"""What a step costs on the local target besides its own work, against kfp's own subprocess runner.

The same pipeline of steps that do nothing runs with 1 and with N steps; the difference, per step, is the overhead.
Usage: python bench/runner_overhead.py [--steps 10]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kfp import compiler, dsl

from kfp_hybrid import images

PEERS = {
    "kfp.local, use_venv=False": "SubprocessRunner(use_venv=False)",
    "kfp.local, use_venv=True": "SubprocessRunner(use_venv=True)",
}


def nothing(number: int) -> int:
    return number


def compile_steps(count: int, component, package: Path) -> None:
    @dsl.pipeline(name="steps-that-do-nothing")
    def pipeline():
        number = component(number=0).output
        for _ in range(count - 1):
            number = component(number=number).output

    compiler.Compiler().compile(pipeline, str(package))


def seconds(command: list[str], folder: Path) -> float:
    started = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def per_step(command_for, component, count: int, folder: Path) -> float:
    times = []
    for steps in (1, count):
        package = folder / f"{steps}.yaml"
        compile_steps(steps, component, package)
        times.append(min(seconds(command_for(package), folder) for _ in range(2)))
    return (times[1] - times[0]) / (count - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    steps = parser.parse_args().steps
    program = str(Path(sys.executable).with_name("kfp-hybrid"))
    ours = dsl.component(nothing, base_image=images.DEPLOYMENT, install_kfp_package=False)
    theirs = dsl.component(nothing, base_image="python:3.11")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {
            "kfp-hybrid": per_step(lambda p: [program, "run", str(p), "--no-cache"], ours, steps, folder),
        }
        for peer, runner in PEERS.items():
            code = (f"import sys; from kfp import components, local; local.init(local.{runner}); "
                    "components.load_component_from_file(sys.argv[1])()")  # fmt: skip
            count = steps if "False" in peer else 3  # a virtual environment for each step takes long
            results[peer] = per_step(lambda p, code=code: [sys.executable, "-c", code, str(p)], theirs, count, folder)
    print(f"overhead per step, {os.cpu_count()} cores")
    for who, overhead in results.items():
        print(f"  {who:28s} {overhead:7.2f} s   {overhead / results['kfp-hybrid']:6.1f} x")


if __name__ == "__main__":
    main()
