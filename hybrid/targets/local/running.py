"""One local run while it goes on: what kfp.local calls back, and where the run's files go."""

import contextlib
import json
import logging
import secrets
import shutil
import signal
import sys
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml
from google.protobuf import json_format
from kfp import components, dsl, local
from rich.console import Console

from kfp_hybrid import images
from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package, Step
from kfp_hybrid.storage import StorageError
from kfp_hybrid.targets.local import kfp_hooks
from kfp_hybrid.targets.local.kfp_hooks import OutputArtifact
from kfp_hybrid.targets.local.records import RunRecord
from kfp_hybrid.targets.progress import Progress


@dataclass
class Run:
    """A finished local run."""

    folder: Path
    succeeded: bool
    failed_step: str = ""
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """step -> output name -> the value of a parameter, or an `OutputArtifact`"""

    def reports(self) -> dict[str, Path]:
        """Each step's HTML report, under a name that a browser takes for a page."""
        folder = self.folder / "reports"
        return {step: path for step in self.outputs if (path := folder / f"{step}.html").is_file()}

    def log(self, step: str) -> Path:
        """The file that holds everything `step` printed."""
        return self.folder / "logs" / f"{step}.log"


class Steps(Protocol):
    """What starts the steps of a run."""

    version: str  # what the steps' results depend on besides their inputs
    kfp_runner: local.SubprocessRunner | local.DockerRunner

    def run(self, image: str, command: list[str], variables: dict[str, str], scratch: Path, log: Path) -> int:
        """Run a step to its end, its output into the file `log`, and return its exit status."""

    def stop(self) -> None:
        """End every running step, and start no more."""


class Running:
    """One run while it goes on: what kfp.local calls back, and where the run's files go."""

    def __init__(self, folder: Path, steps: Steps, progress: Progress, record: RunRecord) -> None:
        self.run = Run(folder, succeeded=False)
        self._steps = steps
        self._progress = progress
        self._record = record

    def execute(self, package: Package, arguments: dict[str, Any], step_cache: Path | None) -> Run:
        """Run the package to its end; without `step_cache`, every step."""
        folder = self.run.folder
        pipeline = components.load_component_from_text(_with_a_component_per_task(package))
        (folder / "package.yaml").write_text(package.text, "utf-8")
        (folder / "parameters.json").write_text(json.dumps(arguments, indent=2, ensure_ascii=False) + "\n", "utf-8")
        with (
            _stopping_on_signals(self._steps.stop),
            kfp_hooks.hooked(self._steps.kfp_runner, self._run_step, self._steps.version, self._cached, self._uncached),
            _quiet(folder / "logs" / "kfp.log"),
        ):
            local.init(
                self._steps.kfp_runner,
                pipeline_root=str(folder / "artifacts"),
                workspace_root=str(folder / "scratch"),
                enable_caching=step_cache is not None,
                cache_root=str(step_cache) if step_cache else None,
            )
            try:
                pipeline(**arguments)
                self.run.succeeded = True
            except Exception as error:
                if not self.run.failed_step:  # no step failed, so it is the pipeline that kfp.local does not like
                    traceback.print_exc(file=sys.stdout)
                    raise UserError(
                        f"kfp.local cannot run this pipeline: {type(error).__name__}: {' '.join(str(error).split())}; "
                        f"details are in {folder / 'logs' / 'kfp.log'}"
                    ) from None
            finally:
                shutil.rmtree(folder / "scratch", ignore_errors=True)
                _copy_reports(self.run)
        failure = f"step {self.run.failed_step} failed" if self.run.failed_step else ""
        self._record.write("succeeded" if self.run.succeeded else "failed", failure)
        return self.run

    def _run_step(self, step: str, image: str, command: list[str], variables: dict[str, str]) -> int:
        self._progress.started(step)
        self._record.write("running")
        scratch = self.run.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        try:
            status = self._steps.run(image, command, variables, scratch, self.run.log(step))
        except BaseException:
            self._progress.ended(step, "stopped")
            raise
        self._progress.ended(step, "done" if status == 0 else "failed")
        self._record.write("running")
        if status == 0:
            self.run.outputs[step] = kfp_hooks.step_outputs(command)
        elif not self.run.failed_step:
            self.run.failed_step = step
            _explain_signal(status, self.run.log(step))
        return status

    def _cached(self, step: str, outputs: dict[str, Any]) -> None:
        self.run.outputs[step] = outputs
        self._progress.ended(step, "cached")
        self._record.write("running")

    def _uncached(self, step: str, reason: StorageError) -> None:
        self._progress.say(f"{step} runs whether its inputs have changed or not, and is not cached: {reason}")


def image_of_step(step: Step) -> str:
    """The image of this collection that a step names.

    Raises:
        UserError: the step cannot run in an environment of this machine.
    """
    name = images.name_of(step.image)
    if name not in images.names():
        raise UserError(
            f"step {step.task} uses the image {step.image}, which has no lock file here; the local target runs the "
            f"images {', '.join(images.names())}. Run the pipeline on a cluster or with --runner docker, or give the "
            "step one of them."
        )
    return name


def require_python_components(steps: Iterable[Step]) -> None:
    """Refuse a package that cannot run on this machine.

    Raises:
        UserError: a step is a container component.
    """
    for step in steps:
        if not step.is_python_component:
            raise UserError(
                f"step {step.task} is a container component; the local target runs Python components only. "
                "Run the pipeline on a cluster."
            )


def new_folder(runs: Path, pipeline: str) -> Path:
    """Make a run's folder below `runs`."""
    name = f"{pipeline}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    folder = runs.absolute() / name
    try:
        (folder / "logs").mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot make the run's folder {folder}: {error.strerror}; give another one with -o") from None
    return folder


def _with_a_component_per_task(package: Package) -> str:
    """The package, with tasks that share a component given one each: kfp.local names a step after its component."""
    spec = type(package.spec)()
    spec.CopyFrom(package.spec)
    taken: set[str] = set()
    dags = [spec.root.dag, *(c.dag for c in spec.components.values() if c.WhichOneof("implementation") == "dag")]
    for dag in dags:
        for task_name, task in dag.tasks.items():
            shared = spec.components[task.component_ref.name]
            if shared.WhichOneof("implementation") == "executor_label":
                own = f"comp-{task_name}"
                while own in taken:
                    own += "-again"
                taken.add(own)
                if own != task.component_ref.name:
                    spec.components[own].CopyFrom(shared)
                    task.component_ref.name = own
    while f"comp-{spec.pipeline_info.name}" in spec.components:  # kfp would take that component for the pipeline
        spec.pipeline_info.name += "-pipeline"
    return yaml.safe_dump(json_format.MessageToDict(spec), sort_keys=False)


def _copy_reports(run: Run) -> None:
    """KFP stores an HTML artifact under its bare name, also that of a cached step; copies get one that opens."""
    for step, outputs in run.outputs.items():
        for artifact in outputs.values():
            if isinstance(artifact, OutputArtifact) and artifact.type == dsl.HTML.schema_title:
                (run.folder / "reports").mkdir(exist_ok=True)
                shutil.copyfile(artifact.path, run.folder / "reports" / f"{step}.html")


def _explain_signal(status: int, log: Path) -> None:
    """A step that was killed says nothing itself; add why to its log."""
    if status < 0 or status == 128 + signal.SIGKILL:
        number = -status if status < 0 else signal.SIGKILL
        hint = "; the kernel does this when memory runs out" if number == signal.SIGKILL else ""
        with log.open("a", encoding="utf-8") as file:
            file.write(f"\nthe step was ended by {signal.Signals(number).name}{hint}\n")


def notifier(console: Console) -> Callable[[str], None]:
    """A function that shows a line on `console`."""
    return lambda message: console.print(message, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Everything that kfp.local prints, logs and warns goes to a file."""
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = logging.getLogger()
        handler = logging.StreamHandler(file)
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)


@contextlib.contextmanager
def _stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """On Ctrl-C, a closed terminal or SIGTERM, stop the steps and leave."""

    def interrupt(number: int, frame: types.FrameType | None) -> None:
        stop()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
