"""A compiled pipeline: what it asks for, which steps it has, and the images they run in."""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.dsl import component_factory
from kfp.pipeline_spec import pipeline_spec_pb2

from kfp_hybrid.errors import UserError

Spec = pipeline_spec_pb2.PipelineSpec
ParameterType = pipeline_spec_pb2.ParameterType


@dataclass(frozen=True)
class Step:
    """One task of the pipeline that runs a program."""

    task: str
    image: str
    is_python_component: bool


class Package:
    """A compiled pipeline package, read from its YAML file."""

    def __init__(self, spec: Spec, source: Path) -> None:
        self.spec = spec
        self.source = source

    @classmethod
    def load(cls, path: Path) -> "Package":
        """Read a package as the compiler wrote it.

        Raises:
            UserError: the file is missing or is not a compiled pipeline.
        """
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
            spec = json_format.ParseDict(_pipeline_document(documents), Spec())
        except FileNotFoundError:
            raise UserError(f"there is no package {path}; compile the pipeline first") from None
        except (yaml.YAMLError, json_format.ParseError, UnicodeDecodeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path} is not a compiled KFP v2 pipeline: {reason}") from None
        return cls(spec, path)

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec.pipeline_info.name

    @property
    def parameters(self) -> dict[str, Any]:
        """The pipeline's parameters: name -> `ParameterSpec` message."""
        return dict(self.spec.root.input_definitions.parameters)

    def steps(self) -> list[Step]:
        """Every task that runs a program, in an order in which they can run; branches and loops are flattened."""
        return list(self._steps_of(self.spec.root.dag))

    def _steps_of(self, dag: Any) -> Any:
        for name in _in_order(dag):
            task = dag.tasks[name]
            component = self.spec.components[task.component_ref.name]
            if component.WhichOneof("implementation") == "dag":
                yield from self._steps_of(component.dag)
            else:
                executor = json_format.MessageToDict(self.spec.deployment_spec)["executors"][component.executor_label]
                container = executor.get("container")
                if container is not None:  # an importer runs no program
                    words = [*container.get("command", []), *container.get("args", [])]
                    is_python = any(component_factory.EXECUTOR_MODULE in word for word in words)
                    yield Step(name, container["image"], is_python)

    def arguments(self, given: dict[str, str]) -> dict[str, Any]:
        """Parameter values from the command line, typed as the package declares them.

        Args:
            given: name -> text; lists and dictionaries are JSON, booleans `true` or `false`.

        Raises:
            UserError: an unknown name, a missing required parameter, or a value of the wrong type.
        """
        unknown = sorted(set(given) - set(self.parameters))
        if unknown:
            close = difflib.get_close_matches(unknown[0], self.parameters, 1)
            hint = f"did you mean {close[0]}?" if close else f"it has: {', '.join(sorted(self.parameters))}"
            raise UserError(f"pipeline {self.name} has no parameter {unknown[0]}; {hint}")
        missing = [name for name, spec in self.parameters.items()
                   if name not in given and not spec.is_optional and not spec.HasField("default_value")]  # fmt: skip
        if missing:
            raise UserError(f"pipeline {self.name} needs a value for: {', '.join(missing)}; give it with -p NAME=VALUE")
        return {name: _typed(name, text, self.parameters[name].parameter_type) for name, text in given.items()}


def _pipeline_document(documents: list[Any]) -> dict[str, Any]:
    """The pipeline among the documents of a package; a second one holds platform settings."""
    for document in documents:
        if isinstance(document, dict) and "deploymentSpec" in document:
            return document
    raise ValueError("no document has a deploymentSpec")


def _in_order(dag: Any) -> list[str]:
    """Task names of a DAG, each after those it depends on."""
    done: list[str] = []
    waiting = sorted(dag.tasks)
    while waiting:
        ready = [name for name in waiting if set(dag.tasks[name].dependent_tasks) <= set(done)]
        if not ready:
            raise ValueError(f"tasks depend on each other in a circle: {', '.join(waiting)}")
        done += ready
        waiting = [name for name in waiting if name not in ready]
    return done


def _typed(name: str, text: str, kind: int) -> Any:
    wanted = {
        ParameterType.NUMBER_INTEGER: ("a whole number", int),
        ParameterType.NUMBER_DOUBLE: ("a number", float),
        ParameterType.BOOLEAN: ("true or false", _boolean),
        ParameterType.LIST: ('a JSON list such as ["a", "b"]', lambda value: _json(value, list)),
        ParameterType.STRUCT: ('a JSON object such as {"a": 1}', lambda value: _json(value, dict)),
    }
    if kind not in wanted:
        return text
    description, convert = wanted[kind]
    try:
        return convert(text)
    except ValueError:
        raise UserError(f"parameter {name} takes {description}, not {text!r}") from None


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else _refuse()


def _refuse() -> Any:
    raise ValueError


def _json(text: str, kind: type) -> Any:
    value = json.loads(text)
    return value if isinstance(value, kind) else _refuse()
