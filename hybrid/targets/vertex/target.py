"""Vertex AI Pipelines as a target."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import dsl

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package
from kfp_hybrid.profiles import Resources, VertexProfile
from kfp_hybrid.targets import model_server
from kfp_hybrid.targets.doctor import Check
from kfp_hybrid.targets.interface import NO_COLUMNS, Component, Target
from kfp_hybrid.targets.runs import Registration, RunStatus, Schedule
from kfp_hybrid.targets.vertex import catalogue, checks, packages, runs, schedules
from kfp_hybrid.targets.vertex.client import Client

NEEDED = ("google.cloud.aiplatform", "google_cloud_pipeline_components")


class VertexTarget(Target):
    """A project and region of Google Cloud."""

    kind = "vertex"

    def __init__(self, name: str, profile: VertexProfile, resources_for: Callable[[str], Resources]) -> None:
        """Open a project as a target; nothing is contacted.

        Args:
            name: The profile's name.
            profile: Its settings.
            resources_for: The resources of a name, as the profiles have them.

        Raises:
            UserError: the clients of Google Cloud are not installed.
        """
        if not all(map(_is_installed, NEEDED)):
            raise UserError(f"the target {name} needs the clients of Google Cloud: pip install 'kfp-hybrid[vertex]'")
        self.name = name
        self.profile = profile
        self.resources_for = resources_for
        self.client = Client(profile)

    # The Google Cloud components take seconds to import; only writing a pipeline needs them.

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
        """Limits choose the machine; secrets are references that the step resolves with its service account."""
        from kfp_hybrid.targets.vertex import tasks

        return tasks.configure(
            self.profile, self.resources_for, task,
            resources=resources, secrets=secrets, retries=retries, timeout_seconds=timeout_seconds, cache=cache,
        )  # fmt: skip

    def train(self, component: Component, *, resources: str = "training", **inputs: Any) -> dsl.PipelineTask:
        """A step, or a custom job when the resources ask for what no step can have."""
        from kfp_hybrid.targets.vertex import tasks

        return tasks.train(self.profile, self.resources_for, component, resources=resources, **inputs)

    def train_tabular(
        self, *, examples: Any, statistics: Any, schema: Any, label: Any, task: Any, budget_hours: Any = 1.0
    ) -> Any:
        """AutoML."""
        from kfp_hybrid.targets.vertex import tasks

        return tasks.train_tabular(
            self.profile, self.resources_for,
            examples=examples, statistics=statistics, schema=schema, label=label, task=task, budget_hours=budget_hours,
        )  # fmt: skip

    def deploy(self, *, model: Any, service: Any, canary_percent: Any = 100) -> None:
        """Onto an endpoint."""
        from kfp_hybrid.targets.vertex import tasks

        tasks.deploy(self.profile, self.resources_for, model=model, service=service, canary_percent=canary_percent)

    @property
    def serving_engine(self) -> str:
        """That of the profile's model server; TensorFlow for servers of others, which take a SavedModel."""
        return model_server.engine(self.profile, self.resources_for(model_server.SERVING))

    def shift_traffic(self, *, service: Any, action: Any) -> None:
        """Between the models of an endpoint."""
        from kfp_hybrid.targets.vertex import tasks

        tasks.shift_traffic(self.profile, self.resources_for, service=service, action=action)

    def predict_batch(self, *, model: Any, examples: Any, key_columns: Any = NO_COLUMNS, resources: str = "") -> Any:
        """A batch prediction job."""
        from kfp_hybrid.targets.vertex import tasks

        return tasks.predict_batch(
            self.profile, self.resources_for,
            model=model, examples=examples, key_columns=key_columns, resources=resources,
        )  # fmt: skip

    def compile(self, pipeline: Component, path: Path) -> None:
        """One YAML document, with the images of the profile."""
        packages.write(pipeline, self.profile, path)

    def submit(self, package: Package, arguments: Mapping[str, Any], *, caching: bool = True) -> RunStatus:
        """Start a pipeline job."""
        self.refuse_broken(package)
        return runs.submit(self.client, package, arguments, caching=caching)

    def status(self, run_id: str) -> RunStatus:
        """Where a pipeline job stands."""
        return runs.status(self.client, run_id)

    def runs(self, limit: int = 20) -> list[RunStatus]:
        """The newest pipeline jobs of the project in the region."""
        return runs.newest(self.client, limit)

    def logs(self, run_id: str, step: str) -> Iterator[str]:
        """What Cloud Logging has of the step's custom job."""
        return runs.logs(self.client, run_id, step)

    def cancel(self, run_id: str) -> None:
        """Cancel a pipeline job and the jobs it has started."""
        runs.cancel(self.client, run_id)

    def schedule(
        self, package: Package, arguments: Mapping[str, Any], *, name: str, cron: str, caching: bool = True
    ) -> Schedule:
        """Make a schedule of Vertex AI Pipelines."""
        self.refuse_broken(package)
        return schedules.create(self.client, package, arguments, name=name, cron=cron, caching=caching)

    def schedules(self) -> list[Schedule]:
        """The schedules of pipelines in the region."""
        return schedules.existing(self.client)

    def unschedule(self, schedule_id: str) -> None:
        """Delete a schedule."""
        schedules.delete(self.client, schedule_id)

    def register(self, package: Package, *, version: str) -> Registration:
        """Upload to the template repository, or to Cloud Storage when the profile has none."""
        self.refuse_broken(package)
        return catalogue.register(self.client, package, version)

    def checks(self) -> list[Check]:
        """The project, the pipeline root, the service account and the images."""
        return checks.checks(self.client)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False
