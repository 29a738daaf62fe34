"""The runs of a suite. All that it makes carries its name, so that two do not meet, and one can be cleaned up."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from kfp_hybrid.package import Package
from kfp_hybrid.sources import compile_pipeline
from kfp_hybrid.targets.kubeflow import KubeflowTarget
from kfp_hybrid.targets.runs import RunStatus

SMALL = {"epochs": 1, "quantizations": ["dynamic_range"]}
"""Parameters with which the main job takes minutes."""
PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"


class Suite:
    """Submits runs and waits for them."""

    def __init__(self, target: KubeflowTarget, name: str, folder: Path, *, poll_seconds: float, minutes: float) -> None:
        """Nothing is contacted yet.

        Args:
            target: Where to run.
            name: What all names of this suite end with, such as "e2e-4f3a2c".
            folder: For packages.
            poll_seconds: How long to wait between two looks at a run.
            minutes: After how long a run counts as stuck.
        """
        self.target = target
        self.name = name
        self.run_ids: list[str] = []
        self._folder = folder
        self._poll_seconds = poll_seconds
        self._minutes = minutes
        self._console = Console(soft_wrap=True)

    def package(self, pipeline: str) -> Package:
        """A pipeline of the collection or of the folder `pipelines`, under a name of this suite.

        The name also is what the cache of Kubeflow Pipelines goes by, and the folder of the artifacts.
        """
        own = PIPELINES / f"{pipeline}.py"
        file = self._folder / f"{pipeline}.yaml"
        compile_pipeline(str(own) if own.exists() else pipeline, self.target, file)
        content, *platform = yaml.safe_load_all(file.read_text("utf-8"))
        content["pipelineInfo"]["name"] += f"-{self.name}"
        file.write_text(yaml.safe_dump_all([content, *platform]), "utf-8")
        return Package.load(file)

    def start(self, package: Package, **parameters: Any) -> str:
        """Submit a run; gives its id."""
        status = self.target.submit(package, package.arguments(parameters))
        self._console.print(f"\n{status.name}: run {status.id} {status.url}")
        self.run_ids.append(status.id)
        return status.id

    def finish(self, package: Package, run_id: str) -> RunStatus:
        """Show a run until it ends."""
        status = self.target.watch(
            run_id, self._console, steps=[step.task for step in package.steps()], sleep=self._patiently(f"run {run_id}")
        )
        self._console.print(f"{status.name}: {status.state} {status.message}")
        return status

    def run(self, package: Package, **parameters: Any) -> RunStatus:
        """Submit a run and wait for its end."""
        return self.finish(package, self.start(package, **parameters))

    def wait_for(self, what: str, found: Callable[[], Any], share: float = 1.0) -> Any:
        """Look again and again until `found` finds something; gives that.

        Args:
            what: What is waited for, for the message.
            found: Looks.
            share: How much of the time that a run may take.
        """
        sleep = self._patiently(what, share)
        while not (result := found()):
            sleep(0)
        return result

    def step_runs(self, run_id: str, step: str) -> bool:
        """Whether a step is running; the run must not have ended."""
        status = self.target.status(run_id)
        assert not status.ended, f"run {run_id} has {status.state} already: {status.message}"
        return any(each.name == step and each.state == "running" for each in status.steps)

    def _patiently(self, what: str, share: float = 1.0) -> Callable[[float], None]:
        minutes = share * self._minutes
        end = time.monotonic() + 60 * minutes

        def sleep(_: float) -> None:
            assert time.monotonic() < end, f"{what}: not within {minutes:g} minutes; KFP_HYBRID_TEST_MINUTES gives more"
            time.sleep(self._poll_seconds)

        return sleep
