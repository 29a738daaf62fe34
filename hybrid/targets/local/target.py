"""Run a compiled pipeline on this machine with kfp.local, each step in the environment of its image."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import dsl
from rich.console import Console

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package, Step, write_package
from kfp_hybrid.step import TIMEOUT_VARIABLE
from kfp_hybrid.targets.doctor import Check
from kfp_hybrid.targets.interface import NO_COLUMNS, Component, Target
from kfp_hybrid.targets.local import checks, code, environments, records
from kfp_hybrid.targets.local.processes import StepProcesses
from kfp_hybrid.targets.local.records import RunRecord
from kfp_hybrid.targets.local.running import (
    Run,
    Running,
    Steps,
    image_of_step,
    new_folder,
    notifier,
    require_python_components,
)
from kfp_hybrid.targets.progress import Progress
from kfp_hybrid.targets.runs import Registration, RunStatus, Schedule

RUNS = "kfp-hybrid-runs"
NO_SCHEDULER = (
    "this machine has its own scheduler: call `kfp-hybrid run` from cron or a systemd timer, or schedule with a "
    "kubeflow or vertex target"
)


class LocalTarget(Target):
    """This machine: no cluster, no container engine, no network once the environments are made."""

    kind = "local"

    def __init__(
        self, cache: Path, name: str = "local", folder: Path = Path(RUNS), runner: str = "environments"
    ) -> None:
        """Open this machine as a target.

        Args:
            cache: Where environments and the results of steps are kept.
            name: The profile's name.
            folder: Where runs go, each into a folder of its own.
            runner: "environments" runs steps in the environments of their images, "docker" as containers.
        """
        self.cache = cache
        self.name = name
        self.folder = folder
        self.runner = runner

    def configure(
        self,
        task: dsl.PipelineTask,
        *,
        resources: str = "",
        secrets: Sequence[str] = (),
        retries: int = 0,
        timeout_seconds: int = 0,
        cache: bool = True,
    ) -> dsl.PipelineTask:
        """A step has what this machine has and what its user may do, so `resources` and `secrets` change nothing."""
        if retries:
            task.set_retry(retries)
        if timeout_seconds:
            task.set_env_variable(TIMEOUT_VARIABLE, str(timeout_seconds))
        return task.set_caching_options(cache)

    def train_tabular(
        self, *, examples: Any, statistics: Any, schema: Any, label: Any, task: Any, budget_hours: Any = 1.0
    ) -> Any:
        """The default model of `train_model`; it needs no budget."""
        from kfp_hybrid.components.training.train_model.component import train_model

        trained = self.train(
            train_model, examples=examples, statistics=statistics, schema=schema, label=label, task=task
        )
        return trained.outputs["model"]

    def deploy(self, *, model: Any, service: Any, canary_percent: Any = 100) -> None:
        """Onto the cluster of this user's kubeconfig: this machine itself serves nothing."""
        from kfp_hybrid.components.deployment.deploy_model.component import deploy_model

        self.configure(deploy_model(model=model, service=service, canary_percent=canary_percent), cache=False)

    def shift_traffic(self, *, service: Any, action: Any) -> None:
        """On the cluster of this user's kubeconfig."""
        from kfp_hybrid.components.deployment.deploy_model.component import deploy_model

        self.configure(deploy_model(service=service, action=action), cache=False)

    def predict_batch(self, *, model: Any, examples: Any, key_columns: Any = NO_COLUMNS, resources: str = "") -> Any:
        """A step like any other."""
        from kfp_hybrid.components.inference.predict_batch.component import predict_batch

        predicted = predict_batch(model=model, examples=examples, key_columns=key_columns)
        return self.configure(predicted, resources=resources).outputs["predictions"]

    def compile(self, pipeline: Component, path: Path) -> None:
        """Write the package as kfp compiles it."""
        write_package(pipeline, path)

    def submit(self, package: Package, arguments: Mapping[str, Any], *, caching: bool = True) -> RunStatus:
        """Run a package to its end, with its progress on the standard output."""
        console = Console(file=sys.stdout)  # the file itself: a run redirects sys.stdout
        return records.status(self.run(package, dict(arguments), console, caching=caching).folder)

    def status(self, run_id: str) -> RunStatus:
        """Where a run of any process on this machine stands."""
        return records.status(self.folder / run_id)

    def runs(self, limit: int = 20) -> list[RunStatus]:
        """The newest runs in this target's folder."""
        return records.newest(self.folder, limit)

    def logs(self, run_id: str, step: str) -> Iterator[str]:
        """The lines of a step's log."""
        records.status(self.folder / run_id)
        folder = self.folder / run_id / "logs"
        try:
            with (folder / f"{step}.log").open(encoding="utf-8", errors="replace") as lines:
                yield from (line.rstrip("\n") for line in lines)
        except FileNotFoundError:
            there = ", ".join(sorted(file.stem for file in folder.glob("*.log"))) or "none"
            raise UserError(f"run {run_id} has no log of a step {step}; it has: {there}") from None

    def cancel(self, run_id: str) -> None:
        """Stop a run of any process on this machine."""
        records.stop(self.folder / run_id)

    def schedule(
        self, package: Package, arguments: Mapping[str, Any], *, name: str, cron: str, caching: bool = True
    ) -> Schedule:
        """This machine has its own scheduler."""
        raise UserError(NO_SCHEDULER)

    def schedules(self) -> list[Schedule]:
        """None: this machine has its own scheduler."""
        return []

    def unschedule(self, schedule_id: str) -> None:
        """This machine has its own scheduler."""
        raise UserError(NO_SCHEDULER)

    def register(self, package: Package, *, version: str) -> Registration:
        """There is no console here."""
        raise UserError("this machine has no console that lists packages; register with a kubeflow or vertex target")

    def checks(self) -> list[Check]:
        """Environments, their disk space, and the folders that runs write to."""
        return checks.checks(self.cache, self.folder)

    def run(self, package: Package, arguments: dict[str, Any], console: Console, *, caching: bool = True) -> Run:
        """Run a package to its end, with its progress on `console`.

        Args:
            package: a compiled pipeline.
            arguments: its parameters' values.
            console: where progress goes.
            caching: take a step's outputs from an earlier run when nothing that could change them has changed.

        Raises:
            UserError: a step that cannot run here, or an environment that cannot be made.
            KeyboardInterrupt: the run was interrupted; its running step has been stopped.
        """
        steps = package.steps()
        starter = self._starter(steps, notifier(console))
        folder = new_folder(self.folder, package.name)
        progress = Progress(package.name, [step.task for step in steps], console)
        with progress, RunRecord(folder, progress.statuses) as record:
            running = Running(folder, starter, progress, record)
            return running.execute(package, arguments, self._step_cache() if caching else None)

    def _starter(self, steps: Sequence[Step], notify: Callable[[str], None]) -> Steps:
        if self.runner == "docker":
            from kfp_hybrid.targets.local.docker import ContainerSteps

            require_python_components(steps)
            return ContainerSteps([step.image for step in steps], self.folder, self.cache, notify)
        images = {step.image: image_of_step(step) for step in steps}
        require_python_components(steps)
        pythons = {image: environments.ensure_environment(name, self.cache, notify) for image, name in images.items()}
        return StepProcesses(pythons, code.snapshot(self.cache), self.cache)

    def _step_cache(self) -> Path:
        return self.cache / "steps"
