"""KH1: values that travel in a package: constants, defaults, placeholders."""

import json
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format

from kfp_hybrid.lint.rule import ERROR, KUBEFLOW, LOCAL, TARGETS, Breach, rule
from kfp_hybrid.lint.spec import Dag, Pipeline, Task

LIMIT = 128 * 1024  # bytes of one argument of a program on Linux, its closing NUL included (MAX_ARG_STRLEN)
PLACEHOLDER = re.compile(r"\{\{\$\.(\w+)\}\}")
_IDENTITY = {"pipeline_job_name", "pipeline_job_uuid", "pipeline_task_name", "pipeline_task_uuid"}
_TIMES = {"pipeline_job_create_time_utc", "pipeline_job_schedule_time_utc"}
KNOWN = {
    LOCAL: _IDENTITY | {"pipeline_root", "workspace_path", "outputMetadataUri"},
    KUBEFLOW: _IDENTITY | _TIMES | {"pipeline_job_resource_name", "workspace_path"},
}


@rule(
    "KH101",
    "placeholder-unsupported",
    local=ERROR,
    kubeflow=ERROR,
    mend="Use the job's or the task's name or id only, or pass the value as a pipeline parameter.",
)
def placeholder_unsupported(pipeline: Pipeline) -> Iterator[Breach]:
    """The placeholders that every platform fills in are the name and the id of the job and of the task.

    Kubeflow does not know the pipeline root; a local run does not know times and resource names; only Vertex AI knows
    the Google Cloud project and location.
    """
    for where, kind, text, task in _texts(pipeline):
        for name in PLACEHOLDER.findall(text):
            if name not in KNOWN[KUBEFLOW] and kind != "variable":
                yield Breach(KUBEFLOW, f"{where}: Kubeflow does not fill in {{{{$.{name}}}}}", task)
            if name not in KNOWN[LOCAL] and kind in ("input", "part of an input", "default"):
                yield Breach(LOCAL, f"{where}: a local run ends with an IndexError at {{{{$.{name}}}}}", task)


@rule(
    "KH102",
    "placeholder-embedded",
    local=ERROR,
    kubeflow=ERROR,
    mend="Give the placeholder alone to an input of the step, and build the text inside the step.",
)
def placeholder_embedded(pipeline: Pipeline) -> Iterator[Breach]:
    """A placeholder is the whole value of a task's input.

    Only Vertex AI fills one in within a longer text. Kubeflow leaves it as it is there, as well as in lists,
    dictionaries, defaults, environment variables and the arguments of container components; a local run does so in
    environment variables.
    """
    for where, kind, text, task in _texts(pipeline):
        for match in PLACEHOLDER.finditer(text):
            filled = kind == "input" and (match.group() == text or match[1] == "workspace_path")
            if not filled and (match[1] in KNOWN[KUBEFLOW] or kind == "variable"):
                yield Breach(KUBEFLOW, f"{where}: {match.group()} is not filled in there", task)
            if kind == "variable":
                yield Breach(LOCAL, f"{where}: {match.group()} is not filled in there", task)


@rule(
    "KH103",
    "value-size",
    local=ERROR,
    kubeflow=ERROR,
    vertex=ERROR,
    mend="Put the value into a file or an artifact and pass its path.",
)
def value_size(pipeline: Pipeline) -> Iterator[Breach]:
    """Every value stays below 128 KiB, and so do all inputs of a step together.

    A step's inputs are one argument of its program, and so is the source of its function; Linux takes no longer one.
    """
    for where, size, task in _sizes(pipeline):
        if size >= LIMIT:
            for target in TARGETS:
                what = f"{where}: {size / 1024:,.0f} KiB; at 128 KiB the step cannot start (argument list too long)"
                yield Breach(target, what, task)
    for task in pipeline.tasks:
        size = _size(task.spec.parameter_iterator.items.raw)
        if size >= LIMIT:
            what = f"the items of the loop: {size / 1024:,.0f} KiB; at 128 KiB Kubeflow's driver cannot start"
            yield Breach(KUBEFLOW, what, task)


@rule(
    "KH104",
    "optional-parameter",
    local=ERROR,
    mend='Give the parameter a default that is not None: "", 0, [] or {}.',
)
def optional_parameter(pipeline: Pipeline) -> Iterator[Breach]:
    """An optional parameter of a pipeline, or of a nested one, has a default other than None.

    A local run in which it is left out ends with an error. Optional parameters of components are fine.
    """
    for dag in pipeline.dags:
        for name, parameter in dag.component.input_definitions.parameters.items():
            left_out = dag.task is None or name not in dag.task.spec.inputs.parameters
            if parameter.is_optional and not parameter.HasField("default_value") and left_out:
                what = f"parameter {name}: left out, it is None, and the run ends with: Unknown value type"
                yield Breach(LOCAL, what, dag.task)


def _texts(pipeline: Pipeline) -> Iterator[tuple[str, str, str, Task | None]]:
    """(where, kind, text, task) of every text in which a placeholder may stand.

    The kinds: input, part of an input (inside a list or dictionary), default, argument, variable.
    """
    for name, value in _defaults(pipeline.root):
        yield from ((f"default of parameter {name}", "default", text, None) for text in _strings(value))
    for task in pipeline.tasks:
        if task.is_google_cloud:  # it runs where every placeholder is filled in, or not at all
            continue
        for name, value in _constants(task):
            kind = "input" if isinstance(value, str) else "part of an input"
            yield from ((f"input {name}", kind, text, task) for text in _strings(value))
        for name, value in _defaults(task):
            if name not in task.spec.inputs.parameters:
                yield from ((f"default of input {name}", "default", text, task) for text in _strings(value))
        if task.container:
            yield from ((f"variable {item.name}", "variable", item.value, task) for item in task.container.env)
            if not task.is_python_component:
                yield from (("an argument", "argument", word, task) for word in task.words)


def _sizes(pipeline: Pipeline) -> Iterator[tuple[str, int, Task | None]]:
    """(what, bytes, task) of everything that becomes an argument of a program."""
    for name, value in _defaults(pipeline.root):
        yield f"default of parameter {name}", _size(value), None
    for task in pipeline.tasks:
        yield "the constant inputs", sum(_size(value) for _, value in _constants(task)), task
        for word in task.words:
            where = "the source of the function" if word == task.python_source else "an argument of the command"
            yield where, _size(word), task


def _constants(task: Task) -> Iterator[tuple[str, Any]]:
    for name, given in task.spec.inputs.parameters.items():
        if given.HasField("runtime_value"):
            yield name, json_format.MessageToDict(given.runtime_value.constant)


def _defaults(owner: Task | Dag) -> Iterator[tuple[str, Any]]:
    for name, parameter in owner.component.input_definitions.parameters.items():
        if parameter.HasField("default_value"):
            yield name, json_format.MessageToDict(parameter.default_value)


def _strings(value: Any) -> Iterator[str]:
    """Every text within a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)


def _size(value: Any) -> int:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return len(text.encode())
