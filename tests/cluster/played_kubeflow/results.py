"""What steps come to: the packages are run on this machine."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCAL_RUN = """
import json, sys
from pathlib import Path
from rich.console import Console
from kfp_hybrid.cli.options import cache_folder
from kfp_hybrid.package import Package
from kfp_hybrid.targets.local import LocalTarget

target = LocalTarget(cache_folder(), "local")
target.folder = Path("runs").absolute()
package = Package.load(Path(sys.argv[1]))
run = target.run(package, json.loads(sys.argv[2]), Console(stderr=True))
paths = {step: {name: value.path for name, value in outputs.items() if hasattr(value, "path")}
         for step, outputs in run.outputs.items()}
print(json.dumps({"folder": str(run.folder), "outputs": paths}))
"""


@dataclass
class Result:
    """What a step of a run on this machine came to."""

    state: str
    outputs: dict[str, str]
    """The path of each artifact."""
    log: str

    @property
    def identity(self) -> str:
        """The same for a result that was taken from the cache as for the one that it was taken from."""
        return json.dumps(self.outputs, sort_keys=True)


class Results:
    """Runs packages on this machine.

    Args:
        folder: Keeps the runs, and the results of steps for later runs.
        environments: The environments of steps that this machine has.
    """

    def __init__(self, folder: Path, environments: Path) -> None:
        self.folder = folder
        (folder / "cache").mkdir(parents=True, exist_ok=True)
        environments.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (folder / "cache/environments").symlink_to(environments)
        self._one_at_a_time = threading.Lock()

    def of(self, package: Path, parameters: dict[str, Any], variables: dict[str, str]) -> dict[str, Result]:
        """Run a package to its end.

        Args:
            package: The file.
            parameters: The values of its parameters.
            variables: Environment variables of the steps.
        """
        environ = {**os.environ, **variables, "KFP_HYBRID_CACHE": str(self.folder / "cache")}
        for name in ("KUBECONFIG", "KFP_HYBRID_TARGET", "KFP_HYBRID_CONFIG"):
            environ.pop(name, None)
        command = [sys.executable, "-c", LOCAL_RUN, package, json.dumps(parameters)]
        with self._one_at_a_time:
            done = subprocess.run(command, cwd=self.folder, env=environ, stdout=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stdout
        run = json.loads(done.stdout.splitlines()[-1])
        record = json.loads((Path(run["folder"]) / "run.json").read_text())
        return {step["name"]: self._result(step, run) for step in record["steps"]}

    def _result(self, step: dict[str, Any], run: dict[str, Any]) -> Result:
        """A step; the log of one that was taken from the cache is that of the run in which it was computed."""
        outputs = run["outputs"].get(step["name"], {})
        folder = Path(run["folder"])
        if step["state"] == "cached" and outputs:
            folder = Path(next(iter(outputs.values()))).parents[3]
        log = folder / "logs" / f"{step['name']}.log"
        return Result(step["state"], outputs, log.read_text() if log.exists() else "")
