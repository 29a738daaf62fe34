"""The places where a local run takes over from kfp.local. The only private names of kfp that this project touches.

kfp.local starts every step in the authoring interpreter and caches by the spelling of a step's inputs. Here a
step runs in the environment of its image, and a step whose input changed, be it a file or an object in a store, is
not the same step any more.
With Docker, kfp takes a failed container that has vanished for one that succeeded; here none vanishes.
The classes are looked up by kfp at call time; `tests/unit/authoring/test_kfp_hooks.py` fails when that changes.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import dsl, local
from kfp.local import cache, status, subprocess_task_handler, task_handler_interface

from kfp_hybrid.storage import StorageError
from kfp_hybrid.targets.local.inputs import state_of

UNKNOWN = "unknown-"  # what the key of a step begins with that is not cached

RunStep = Callable[[str, str, list[str], dict[str, str]], int]


class StepHandler(task_handler_interface.ITaskHandler):
    """What kfp.local creates for every step that is not cached: hands the step to `run_step`."""

    def __init__(
        self,
        image: str,
        full_command: list[str],
        pipeline_root: str,
        runner: Any,
        env_vars: dict[str, str] | None = None,
        *,
        run_step: RunStep,
    ) -> None:
        self.image = image
        self.full_command = full_command
        self.env_vars = env_vars or {}
        self.run_step = run_step

    def run(self) -> status.Status:
        """Run the step to its end."""
        code = self.run_step(_step_name(self.full_command), self.image, self.full_command, self.env_vars)
        if code != 0:
            return status.Status.FAILURE
        _touch_missing_artifacts(self.full_command)
        return status.Status.SUCCESS


class StepCache(cache.LocalCache):
    """kfp.local's cache, whose keys also cover the code, the locked environments and the state of inputs.

    A step whose inputs' state a store does not tell has no key that could ever be found again.
    """

    def __init__(
        self,
        cache_root: str,
        *,
        version: str,
        on_hit: Callable[[str, dict[str, Any]], None],
        on_unknown: Callable[[str, StorageError], None],
    ) -> None:
        super().__init__(cache_root)
        self._version = version
        self._on_hit = on_hit
        self._on_unknown = on_unknown
        self._names: dict[str, str] = {}

    def compute_key(
        self,
        component_name: str,
        image: str,
        full_command: list[str],
        arguments: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> str:
        """kfp's key for this step, made different by anything else that could change its result."""
        theirs = super().compute_key(component_name, image, full_command, arguments, *args, **kwargs)
        name = component_name.removeprefix("comp-")
        try:
            state = state_of(arguments)
        except StorageError as error:
            self._on_unknown(name, error)
            return f"{UNKNOWN}{name}"
        key = hashlib.sha256(json.dumps([theirs, self._version, state]).encode()).hexdigest()
        self._names[key] = name
        return key

    def get(self, key: str) -> dict[str, Any] | None:
        """The outputs of an earlier run of this step, or None."""
        if key.startswith(UNKNOWN):
            return None
        outputs = super().get(key)
        if outputs is not None:
            self._on_hit(self._names[key], {name: _plain(value) for name, value in outputs.items()})
        return outputs

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        """Keep the outputs of a step for later runs."""
        if not key.startswith(UNKNOWN):
            super().put(key, outputs)


@contextlib.contextmanager
def hooked(
    runner: Any,
    run_step: RunStep,
    version: str,
    on_hit: Callable[[str, dict[str, Any]], None],
    on_unknown: Callable[[str, StorageError], None],
) -> Iterator[None]:
    """kfp.local with this project's step handler for `runner`, and its cache, for as long as the context lasts."""

    def handler(*args: Any, **kwargs: Any) -> StepHandler:
        return StepHandler(*args, **kwargs, run_step=run_step)

    class RunCache(StepCache):  # a class, not a function: LocalCache calls its static methods through this name
        def __init__(self, cache_root: str) -> None:
            super().__init__(cache_root, version=version, on_hit=on_hit, on_unknown=on_unknown)

    hooks = [(*_handler_of(runner), handler), (cache, "LocalCache", RunCache)]
    originals = [getattr(module, name) for module, name, _ in hooks]
    for module, name, ours in hooks:
        setattr(module, name, ours)
    try:
        yield
    finally:
        for (module, name, _), original in zip(hooks, originals, strict=True):
            setattr(module, name, original)


def _handler_of(runner: Any) -> tuple[Any, str]:
    """The module and the name of the class that kfp.local starts the steps of `runner` with."""
    if isinstance(runner, local.DockerRunner):
        from kfp.local import docker_task_handler  # which needs the package docker

        return docker_task_handler, "DockerTaskHandler"
    return subprocess_task_handler, "SubprocessTaskHandler"


@dataclass(frozen=True)
class OutputArtifact:
    """An artifact that a step wrote."""

    type: str
    path: str
    metadata: dict[str, Any]


def step_outputs(full_command: list[str]) -> dict[str, Any]:
    """What a finished step put out: parameters by value, artifacts as `OutputArtifact`."""
    announced = _announced_outputs(full_command)
    try:
        written = json.loads(Path(announced["outputFile"]).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    types = {name: value["artifacts"][0]["type"] for name, value in announced.get("artifacts", {}).items()}
    artifacts = {
        name: OutputArtifact(types[name].get("schemaTitle", ""), artifact["uri"], artifact.get("metadata", {}))
        for name, value in written.get("artifacts", {}).items()
        for artifact in value["artifacts"]
    }
    return {**written.get("parameterValues", {}), **artifacts}


def _touch_missing_artifacts(full_command: list[str]) -> None:
    """Give metrics, which are metadata only, an empty file: kfp's cache takes a missing file for a lost result."""
    for output in _announced_outputs(full_command).get("artifacts", {}).values():
        path = Path(output["artifacts"][0]["uri"])
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def _plain(value: Any) -> Any:
    is_artifact = isinstance(value, dsl.Artifact)
    return OutputArtifact(value.schema_title, value.path, value.metadata) if is_artifact else value


def _announced_outputs(full_command: list[str]) -> dict[str, Any]:
    """The part of a step's executor input that says where its outputs go."""
    return json.loads(full_command[full_command.index("--executor_input") + 1])["outputs"]


def _step_name(full_command: list[str]) -> str:
    return Path(_announced_outputs(full_command)["outputFile"]).parent.name
