"""A compiled pipeline: what it asks for, which steps it has, and the images they run in."""

import ast
import difflib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp import compiler
from kfp.dsl import base_component, component_factory
from kfp.pipeline_spec import pipeline_spec_pb2

from kfp_hybrid.errors import UserError

ParameterType = pipeline_spec_pb2.ParameterType


@dataclass(frozen=True)
class Step:
    """One task of the pipeline that runs a program."""

    task: str
    image: str
    is_python_component: bool


class Package:
    """A compiled pipeline package, read from its YAML file."""

    def __init__(self, spec: pipeline_spec_pb2.PipelineSpec, text: str) -> None:
        self.spec = spec
        self.text = text

    @classmethod
    def load(cls, path: Path) -> "Package":
        """Read a package as the compiler wrote it.

        Raises:
            UserError: the file is missing or is not a compiled pipeline.
        """
        try:
            text = path.read_text(encoding="utf-8")
            documents = list(yaml.safe_load_all(text))
            spec = json_format.ParseDict(_pipeline_document(documents), pipeline_spec_pb2.PipelineSpec())
        except FileNotFoundError:
            raise UserError(f"there is no package {path}; compile the pipeline first") from None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        except (yaml.YAMLError, json_format.ParseError, UnicodeDecodeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path} is not a compiled KFP v2 pipeline: {reason}") from None
        return cls(spec, text)

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec.pipeline_info.name

    @property
    def parameters(self) -> dict[str, Any]:
        """The pipeline's parameters, by name in the order of the alphabet: name -> `ParameterSpec` message."""
        parameters = self.spec.root.input_definitions.parameters  # a map, whose own order is another in each process
        return {name: parameters[name] for name in sorted(parameters)}

    def steps(self) -> list[Step]:
        """Every task that runs a program, in an order in which they can run; branches and loops are flattened."""
        return list(self._steps_of(self.spec.root.dag))

    def _steps_of(self, dag: Any) -> Iterator[Step]:
        executors = json_format.MessageToDict(self.spec.deployment_spec)["executors"]
        for name in _in_order(dag):
            task = dag.tasks[name]
            component = self.spec.components[task.component_ref.name]
            if component.WhichOneof("implementation") == "dag":
                yield from self._steps_of(component.dag)
            else:
                container = executors[component.executor_label].get("container")
                if container is not None:  # an importer runs no program
                    words = [*container.get("command", []), *container.get("args", [])]
                    is_python = any(component_factory.EXECUTOR_MODULE in word for word in words)
                    yield Step(name, container["image"], is_python)

    def describe_parameter(self, name: str) -> str:
        """What the parameter `name` means, takes, and is when it is not given."""
        spec = self.parameters[name]
        kind = _KINDS.get(spec.parameter_type, _TEXT)
        default = "required"
        if spec.HasField("default_value"):
            value = json_format.MessageToDict(spec.default_value)
            value = int(value) if kind.types == (int,) else value
            default = f"default: {json.dumps(value, ensure_ascii=False, sort_keys=True)}"
        return f"{spec.description} [{kind.title}; {default}]"

    def arguments(self, given: dict[str, Any]) -> dict[str, Any]:
        """Check parameter values and turn text, as a command line has it, into what the package declares.

        Args:
            given: name -> value; text stands for any type: lists and dictionaries as JSON, booleans as true or false.

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
        return {name: _typed(name, value, self.parameters[name].parameter_type) for name, value in given.items()}


def write_package(pipeline: base_component.BaseComponent, path: Path, **options: Any) -> None:
    """Compile a pipeline into a file; the same pipeline gives the same bytes.

    Args:
        pipeline: The pipeline.
        path: The file to write.
        options: Further arguments of kfp's compiler.

    Raises:
        UserError: it cannot be written there.
    """
    if path.suffix not in (".yaml", ".yml"):  # kfp goes by it, too
        raise UserError(f"cannot write {path}: the name of a package ends in .yaml; give another file with -o")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(pipeline, str(path), **options)
        path.write_text(_DEFAULT.sub(_in_order_of_keys, path.read_text("utf-8")), "utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; give another file with -o") from None


# A line in the head of a package. Its dictionary comes from a protobuf map, which has another order in each process.
_DEFAULT = re.compile(r"^(#\s+\w+: (?:dict|list) \[Default: )(.*)(?=\]$)", re.MULTILINE)


def _in_order_of_keys(line: re.Match[str]) -> str:
    return line[1] + repr(_sorted(ast.literal_eval(line[2])))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class _Kind:
    """A parameter type: what its values are called and look like, their Python types, and how text becomes one."""

    title: str
    example: str
    types: tuple[type, ...]
    parse: Callable[[str], Any]


_TEXT = _Kind("text", '"abc"', (str,), str)
_KINDS = {
    ParameterType.NUMBER_INTEGER: _Kind("whole number", "3", (int,), int),
    ParameterType.NUMBER_DOUBLE: _Kind("number", "0.5", (int, float), float),
    ParameterType.BOOLEAN: _Kind("truth value", "true", (bool,), lambda text: json.loads(text.lower())),
    ParameterType.LIST: _Kind("JSON list", '["a", "b"]', (list,), json.loads),
    ParameterType.STRUCT: _Kind("JSON object", '{"a": 1}', (dict,), json.loads),
}


def _typed(name: str, value: Any, parameter_type: int) -> Any:
    kind = _KINDS.get(parameter_type, _TEXT)
    try:
        typed = kind.parse(value) if isinstance(value, str) else value
        if not isinstance(typed, kind.types) or (isinstance(typed, bool) and bool not in kind.types):
            raise ValueError
    except ValueError:
        raise UserError(f"parameter {name} takes a {kind.title} such as {kind.example}, not {value!r}") from None
    return typed


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
