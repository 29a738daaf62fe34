"""Kubeflow Pipelines as a target."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import dsl

from kfp_hybrid import __version__
from kfp_hybrid.package import Package
from kfp_hybrid.profiles import KubeflowProfile, Resources
from kfp_hybrid.targets import model_server
from kfp_hybrid.targets.doctor import Check
from kfp_hybrid.targets.interface import NO_COLUMNS, Component, Target
from kfp_hybrid.targets.kubeflow import catalogue, checks, logs, packages, runs, schedules, tasks
from kfp_hybrid.targets.kubeflow.client import Client
from kfp_hybrid.targets.runs import Registration, RunStatus, Schedule


class KubeflowTarget(Target):
    """Kubeflow Pipelines on a Kubernetes cluster."""

    kind = "kubeflow"

    def __init__(self, name: str, profile: KubeflowProfile, resources_for: Callable[[str], Resources]) -> None:
        """Open an installation as a target; nothing is contacted.

        Args:
            name: The profile's name.
            profile: Its settings.
            resources_for: The resources of a name, as the profiles have them.
        """
        self.name = name
        self.profile = profile
        self.resources_for = resources_for
        self.client = Client(profile)

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
        """Limits and node labels; secrets are references to Kubernetes secrets."""
        return tasks.configure(
            self.profile, self.resources_for, task,
            resources=resources, secrets=secrets, retries=retries, timeout_seconds=timeout_seconds, cache=cache,
        )  # fmt: skip

    def train(self, component: Component, *, resources: str = "training", **inputs: Any) -> dsl.PipelineTask:
        """A step, or a TrainJob when the resources ask for several nodes."""
        return tasks.train(self.profile, self.resources_for, component, resources=resources, **inputs)

    def train_tabular(
        self, *, examples: Any, statistics: Any, schema: Any, label: Any, task: Any, budget_hours: Any = 1.0
    ) -> Any:
        """The default model; the budget has no meaning where training is not paid by the hour."""
        return tasks.train_tabular(
            self.profile, self.resources_for,
            examples=examples, statistics=statistics, schema=schema, label=label, task=task,
        )  # fmt: skip

    def deploy(self, *, model: Any, service: Any, canary_percent: Any = 100) -> None:
        """With KServe, or a plain Deployment."""
        tasks.deploy(self.profile, self.resources_for, model=model, service=service, canary_percent=canary_percent)

    @property
    def serving_engine(self) -> str:
        """That of the profile's model server; TensorFlow for servers of others, which take a SavedModel."""
        return model_server.engine(self.profile, self.resources_for(model_server.SERVING))

    def shift_traffic(self, *, service: Any, action: Any) -> None:
        """Between the revisions of a service."""
        tasks.shift_traffic(self.profile, self.resources_for, service=service, action=action)

    def predict_batch(self, *, model: Any, examples: Any, key_columns: Any = NO_COLUMNS, resources: str = "") -> Any:
        """A step that predicts."""
        return tasks.predict_batch(
            self.profile, self.resources_for,
            model=model, examples=examples, key_columns=key_columns, resources=resources,
        )  # fmt: skip

    def compile(self, pipeline: Component, path: Path) -> None:
        """Two YAML documents: the pipeline with the images of the profile, and what Kubernetes is to do for it."""
        packages.write(pipeline, self.profile, path)

    def compile_custom_resources(self, pipeline: Component, path: Path, version: str = __version__) -> None:
        """Write a Pipeline and a PipelineVersion resource, for installations that keep pipelines in Kubernetes.

        Args:
            pipeline: The pipeline.
            path: The file to write.
            version: What to call this version of it; one that is in the cluster cannot be changed.

        Raises:
            UserError: the version cannot be in the name of a resource, or the file cannot be written.
        """
        packages.write_custom_resources(pipeline, self.profile, path, version)

    def submit(self, package: Package, arguments: Mapping[str, Any], *, caching: bool = True) -> RunStatus:
        """Start a run."""
        self.refuse_broken(package)
        return runs.submit(self.client, package, arguments, caching=caching)

    def status(self, run_id: str) -> RunStatus:
        """Where a run stands."""
        return runs.status(self.client, run_id)

    def runs(self, limit: int = 20) -> list[RunStatus]:
        """The newest runs of the namespace."""
        return runs.newest(self.client, limit)

    def logs(self, run_id: str, step: str) -> Iterator[str]:
        """What the console or the cluster has of the step's pod."""
        return logs.lines(self.client, run_id, step)

    def cancel(self, run_id: str) -> None:
        """Terminate a run."""
        runs.cancel(self.client, run_id)

    def schedule(
        self, package: Package, arguments: Mapping[str, Any], *, name: str, cron: str, caching: bool = True
    ) -> Schedule:
        """Make a recurring run."""
        self.refuse_broken(package)
        return schedules.create(self.client, package, arguments, name=name, cron=cron, caching=caching)

    def schedules(self) -> list[Schedule]:
        """The recurring runs of the namespace."""
        return schedules.existing(self.client)

    def unschedule(self, schedule_id: str) -> None:
        """Delete a recurring run."""
        schedules.delete(self.client, schedule_id)

    def register(self, package: Package, *, version: str) -> Registration:
        """Upload a pipeline, or another version of it."""
        self.refuse_broken(package)
        return catalogue.register(self.client, package, version)

    def checks(self) -> list[Check]:
        """The host, the sign-in, the pipeline root, the secrets and the images."""
        return checks.checks(self)
