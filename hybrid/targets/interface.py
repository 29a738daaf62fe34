"""The interface of a target."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from kfp import dsl
from rich.console import Console

from kfp_hybrid import engines, images
from kfp_hybrid.errors import UserError
from kfp_hybrid.lint import ERROR, Finding, lint
from kfp_hybrid.package import Package
from kfp_hybrid.targets.doctor import Check
from kfp_hybrid.targets.progress import Progress
from kfp_hybrid.targets.runs import Registration, RunStatus, Schedule

Component: TypeAlias = dsl.base_component.BaseComponent
POLL_SECONDS = 5.0
NO_COLUMNS: list[str] = []


def give_cuda(task: dsl.PipelineTask) -> None:
    """Run a step of the image tensorflow in its variant with CUDA, without which a GPU would be idle."""
    if task.container_spec is not None and task.container_spec.image == images.TENSORFLOW:
        task.set_container_image(images.TENSORFLOW_GPU)


class Target(ABC):
    """One place where pipelines run. The shared body of a pipeline calls nothing platform-specific but this.

    A difference between targets that would change results or safety is a `UserError` that names the targets which can
    do it; one that only tunes is a warning.

    Attributes:
        kind: "local", "kubeflow" or "vertex".
        name: The profile's name, such as "onprem".
    """

    kind: ClassVar[str]
    name: str

    # ------------------------------------------------------------------------------- while a pipeline is written

    @abstractmethod
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
        """Say what a step gets and how it is run.

        Args:
            task: The step.
            resources: The name of the resources in the profiles, such as "training"; "" for the platform's default.
            secrets: The names of secrets in the profile, such as "storage". One that the profile lacks is left out:
                the step then has what its service account may do.
            retries: How often to try again after a failure, with growing pauses.
            timeout_seconds: After how long to give up on one try; 0 for never.
            cache: Whether an earlier result may be taken; False for steps that change something outside the run.

        Returns:
            The step.
        """

    def train(self, component: Component, *, resources: str = "training", **inputs: Any) -> dsl.PipelineTask:
        """Train with a training component: as a step of the run, or at scale when the resources ask for it.

        Args:
            component: A training component, such as `train_model`.
            resources: The name of the resources in the profiles.
            inputs: The component's inputs.

        Returns:
            A step with the component's outputs.
        """
        return self.configure(component(**inputs), resources=resources)

    @abstractmethod
    def train_tabular(
        self, *, examples: Any, statistics: Any, schema: Any, label: Any, task: Any, budget_hours: Any = 1.0
    ) -> Any:
        """Train on structured data without any code: the default model here, AutoML on Vertex AI.

        Args:
            examples, statistics, schema: What `ingest_examples`, `generate_statistics` and `infer_schema` put out.
            label: The column to predict.
            task: "binary", "multiclass", "regression", or "auto" where the target can decide.
            budget_hours: The training budget in node hours, where training is paid by the hour.

        Returns:
            The model artifact, which `deploy` and `predict_batch` of the same target take.
        """

    @abstractmethod
    def deploy(self, *, model: Any, service: Any, canary_percent: Any = 100) -> None:
        """Serve a model online.

        Args:
            model: The model artifact: what `push_model` or `train_tabular` put out, or one that was imported.
            service: The name of the service; it is made when it is not there.
            canary_percent: The share of requests that the new model answers; the rest goes to the one before.
        """

    @property
    def serving_engine(self) -> str:
        """What computes in the model servers that `deploy` starts, for `validate_serving` to try the same."""
        return engines.AUTO

    @abstractmethod
    def shift_traffic(self, *, service: Any, action: Any) -> None:
        """End a canary.

        Args:
            service: The name of the service.
            action: "promote" gives the newest model all requests, "rollback" gives them to the one before.
        """

    @abstractmethod
    def predict_batch(self, *, model: Any, examples: Any, key_columns: Any = NO_COLUMNS, resources: str = "") -> Any:
        """Predict for all examples.

        Args:
            model: The model artifact.
            examples: What `ingest_examples` puts out.
            key_columns: The columns to write beside the predictions, such as an identifier.
            resources: The name of the resources in the profiles.

        Returns:
            The artifact with the predictions.
        """

    # ---------------------------------------------------------------------------------------------- the package

    @abstractmethod
    def compile(self, pipeline: Component, path: Path) -> None:
        """Write the package of a pipeline; the same source and profile give the same bytes.

        Raises:
            UserError: the file cannot be written.
        """

    def lint(self, package: Package) -> list[Finding]:
        """What in a package would break here."""
        return lint(package, [self.kind])

    def refuse_broken(self, package: Package) -> None:
        """Refuse a package that would fail here.

        Raises:
            UserError: the first of the linter's errors, and how to see them all.
        """
        errors = [finding for finding in self.lint(package) if finding.level == ERROR]
        if errors:
            first = errors[0]
            place = f"step {first.task}: " if first.task else ""
            others = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            raise UserError(
                f"{package.name} would fail on {self.name}: {place}{first.message} ({first.rule.id}){others}; "
                f"{first.rule.mend} See `kfp-hybrid lint PACKAGE --target {self.name}`"
            )

    # ----------------------------------------------------------------------------------------------------- runs

    @abstractmethod
    def submit(self, package: Package, arguments: Mapping[str, Any], *, caching: bool = True) -> RunStatus:
        """Start a run; on this machine, also run it to its end.

        Args:
            package: A compiled pipeline.
            arguments: The values of its parameters, as `Package.arguments` returns them.
            caching: Whether steps may take earlier results.

        Raises:
            UserError: the platform cannot be reached, or refuses.
        """

    @abstractmethod
    def status(self, run_id: str) -> RunStatus:
        """Where a run stands.

        Raises:
            UserError: there is no such run, or the platform cannot be reached.
        """

    @abstractmethod
    def runs(self, limit: int = 20) -> list[RunStatus]:
        """The newest runs, newest first, without their steps."""

    @abstractmethod
    def logs(self, run_id: str, step: str) -> Iterator[str]:
        """The lines that a step has printed.

        Raises:
            UserError: there is no such run or step, or its log is gone or elsewhere; the message says where to look.
        """

    @abstractmethod
    def cancel(self, run_id: str) -> None:
        """Stop a run. Does nothing to one that has ended."""

    def watch(
        self, run_id: str, console: Console, *, steps: Sequence[str] = (), sleep: Callable[[float], None] = time.sleep
    ) -> RunStatus:
        """Show a run until it ends. Interrupting this leaves the run alone.

        Args:
            run_id: The run.
            console: Where the live table (on a terminal) or lines (elsewhere) go.
            steps: The steps that are expected, in order.
            sleep: Waits between two looks, which are `POLL_SECONDS` apart.

        Returns:
            Its last status.
        """
        status = self.status(run_id)
        with Progress(status.name, steps, console) as progress:
            progress.show(status)
            while not status.ended:
                sleep(POLL_SECONDS)
                status = self.status(run_id)
                progress.show(status)
        return status

    # ---------------------------------------------------------------------------------- schedules and the catalogue

    @abstractmethod
    def schedule(
        self, package: Package, arguments: Mapping[str, Any], *, name: str, cron: str, caching: bool = True
    ) -> Schedule:
        """Start runs at the times of `cron`: five fields, with an optional time zone before them (`TZ=Europe/Berlin`).

        Raises:
            UserError: the platform cannot be reached, refuses, or has a schedule of that name.
        """

    @abstractmethod
    def schedules(self) -> list[Schedule]:
        """All schedules."""

    @abstractmethod
    def unschedule(self, schedule_id: str) -> None:
        """Delete a schedule; runs that it has started go on."""

    @abstractmethod
    def register(self, package: Package, *, version: str) -> Registration:
        """Put a package where the platform's console lists it. The same package again changes nothing.

        Args:
            package: A compiled pipeline.
            version: What to call this version of it.
        """

    @abstractmethod
    def checks(self) -> list[Check]:
        """What `doctor` looks at, in order."""
