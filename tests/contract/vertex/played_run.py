"""A run of a compiled package, played as Vertex AI plays it: with the package's own graph, placeholders and containers.

Google Cloud pipeline components are started with the code that their image has, our own components with kfp's executor;
both reach whatever is at the other end of the network.
"""

import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from unittest import mock

from google.protobuf import json_format
from kfp.dsl.executor import Executor
from kfp.local.placeholder_utils import resolve_struct_placeholders

from kfp_hybrid.lint.spec import Pipeline

REFERENCE = re.compile(r"\{\{\$\.(inputs|outputs)\.(parameters|artifacts)\['([^']+)'\]\.?([^}]*)\}\}")
CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\] == (true|'[^']*')")


class PlayedRun:
    """One run.

    Attributes:
        started: The steps that were started, in order, by the path of their task.
    """

    def __init__(self, package, components, folder: Path) -> None:
        """Prepare a run.

        Args:
            package: The compiled package.
            components: Our own components in it.
            folder: Where outputs go.
        """
        self.started: list[str] = []
        self._pipeline = Pipeline(package)
        self._functions = {component.python_func.__name__: component.python_func for component in components}
        self._folder = folder

    def run(self, **arguments) -> "PlayedRun":
        self._dag(self._pipeline.root, defaults(self._pipeline.spec.root) | arguments, {})
        return self

    def _dag(self, dag, parameters, artifacts):
        done = {}
        waiting = dict(dag.tasks)
        while waiting:
            name = next(name for name, task in waiting.items() if set(task.spec.dependent_tasks) <= set(done))
            task = waiting.pop(name)
            done[name] = self._task(task, parameters, artifacts, done)
        outputs = dag.component.dag.outputs
        found = {}
        for key, output in outputs.artifacts.items():
            for selector in output.artifact_selectors:
                produced = done[selector.producer_subtask]
                if produced is not None and selector.output_artifact_key in produced[1]:
                    found[key] = produced[1][selector.output_artifact_key]
        return {}, found

    def _task(self, task, around, artifacts_around, done):
        parameters = defaults(task.component)
        for key, given in task.spec.inputs.parameters.items():
            kind = given.WhichOneof("kind")
            if kind == "runtime_value":
                parameters[key] = json_format.MessageToDict(given.runtime_value.constant)
            elif kind == "component_input_parameter":
                parameters[key] = around[given.component_input_parameter]
            else:
                source = given.task_output_parameter
                parameters[key] = done[source.producer_task][0][source.output_parameter_key]
        artifacts = {}
        for key, given in task.spec.inputs.artifacts.items():
            if given.WhichOneof("kind") == "component_input_artifact":
                artifacts[key] = artifacts_around[given.component_input_artifact]
            else:
                source = given.task_output_artifact
                artifacts[key] = done[source.producer_task][1][source.output_artifact_key]
        if task.spec.trigger_policy.condition and not holds(task.spec.trigger_policy.condition, parameters):
            return None
        if task.body:
            return self._dag(task.body, parameters, artifacts)
        self.started.append(task.path)
        if task.importer:
            return {}, {"artifact": imported(task.importer, parameters)}
        return self._container(task, parameters, artifacts)

    def _container(self, task, parameters, artifacts):
        folder = self._folder / task.path.replace("/", "-")
        folder.mkdir()
        values = as_service(parameters)
        produced = task.component.output_definitions
        executor_input = {
            "inputs": {
                "parameterValues": values,
                "artifacts": {key: {"artifacts": [artifact]} for key, artifact in artifacts.items()},
            },
            "outputs": {
                "parameters": {key: {"outputFile": str(folder / key)} for key in produced.parameters},
                "artifacts": {
                    key: {"artifacts": [{
                        "name": key, "uri": f"gs://bucket/{folder.name}/{key}", "metadata": {},
                        "type": {"schemaTitle": artifact.artifact_type.schema_title},
                    }]}
                    for key, artifact in produced.artifacts.items()
                },
                "outputFile": str(folder / "output.json"),
            },
        }  # fmt: skip
        if task.is_python_component:
            function = self._functions[task.words[task.words.index("--function_to_execute") + 1]]
            Executor(executor_input=executor_input, function_to_execute=function).execute()
        else:
            launch(words(task.container, executor_input))
        written = json.loads((folder / "output.json").read_text()) if (folder / "output.json").exists() else {}
        made = {key: value["artifacts"][0] for key, value in written.get("artifacts", {}).items()}
        return {key: file_or(written, key, folder) for key in produced.parameters}, made


def as_service(value):
    """A value as the service writes it in JSON: 2, where Python writes 2.0."""
    if isinstance(value, dict):
        return {key: as_service(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_service(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def file_or(written, key, folder):
    """The value of an output parameter: in the executor's file, or in a file of its own."""
    values = written.get("parameterValues", {})
    return values[key] if key in values else (folder / key).read_text()


def defaults(component):
    return {
        key: json_format.MessageToDict(value.default_value)
        for key, value in component.input_definitions.parameters.items()
        if value.HasField("default_value")
    }


def holds(condition, parameters):
    """Whether a trigger condition holds, of the few forms that kfp makes of If, Elif and Else."""

    def compare(found):
        expected = found[2] == "true" or found[2].strip("'")
        return str(parameters[found[1]] == expected)

    expression = CONDITION.sub(compare, condition).replace("&&", "and").replace("!", "not ")
    assert re.fullmatch(r"(True|False|and|not|[() ])+", expression), condition
    return eval(expression)


def imported(importer, parameters):
    uri = importer.artifact_uri
    text = uri.constant.string_value or parameters[uri.runtime_parameter]
    assert text, "an importer needs a URI"
    metadata = filled(json_format.MessageToDict(importer.metadata), parameters)
    return {
        "name": "artifact",
        "uri": text,
        "metadata": metadata,
        "type": {"schemaTitle": importer.type_schema.schema_title},
    }


def filled(value, parameters):
    if isinstance(value, dict):
        return {key: filled(item, parameters) for key, item in value.items()}
    return REFERENCE.sub(lambda found: parameters[found[3]], value) if isinstance(value, str) else value


def words(container, executor_input):
    """The words that Vertex AI starts a container with."""
    values, artifacts = executor_input["inputs"]["parameterValues"], executor_input["inputs"]["artifacts"]
    provided = [*values, *artifacts]
    flat = []
    for word in [*container.command, *container.args]:
        resolved = resolve_struct_placeholders(word, provided)
        flat += resolved if isinstance(resolved, list) else [] if resolved is None else [resolved]
    return [filled_word(word, executor_input) for word in flat]


def filled_word(word, executor_input):
    values = executor_input["inputs"]["parameterValues"]

    def value(found):
        side, kind, name, rest = found.groups()
        if (side, kind) == ("outputs", "parameters"):
            return executor_input["outputs"]["parameters"][name]["outputFile"]
        if kind == "artifacts":
            artifact = executor_input[side]["artifacts"][name]["artifacts"][0]
            return (
                artifact["uri"] if rest == "uri" else artifact["metadata"][re.fullmatch(r"metadata\['(.+)'\]", rest)[1]]
            )
        return values[name] if isinstance(values[name], str) else json.dumps(values[name])

    word = REFERENCE.sub(value, word)
    everything = json.dumps(executor_input)
    constants = {
        "{{$.json_escape[1]}}": json.dumps(everything)[1:-1],
        "{{$}}": everything,
        "{{$.pipeline_job_uuid}}": "job-1",
        "{{$.pipeline_job_name}}": "a-run",
        "{{$.pipeline_google_cloud_project_id}}": "ml-production",
        "{{$.pipeline_google_cloud_location}}": "europe-west4",
        "{{$.pipeline_persistent_resource_id}}": "",
    }
    for placeholder, text in constants.items():
        word = word.replace(placeholder, text)
    assert "{{$" not in word or word.startswith("{"), word
    return word


def launch(command):
    """Start the program of a Google Cloud pipeline component, in this process."""
    module, arguments = command[command.index("-m") + 1], command[command.index("-m") + 2 :]
    program = importlib.import_module(module)
    if inspect.signature(program.main).parameters:
        program.main(arguments)
    else:
        with mock.patch.object(sys, "argv", [module, *arguments]):
            program.main()
