"""A compiled package as the rules see it: every task, where it stands, what it runs, and its platform settings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.dsl import component_factory
from kfp.pipeline_spec import pipeline_spec_pb2

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What only Google runs: these images are clients of Vertex AI, started with its credentials.
_GOOGLE_CLOUD_IMAGE = re.compile(r"/google-cloud-pipeline-components[:@]|/vertex-ai-restricted/|/automl-tables")


@dataclass(eq=False)
class Dag:
    """A graph of tasks: the pipeline itself, a branch, the body of a loop, or a nested pipeline.

    Attributes:
        component: Its `ComponentSpec` message.
        place: The keys that lead to it in the package's YAML.
        task: The task that runs it; None for the pipeline itself.
        tasks: Its tasks, by name.
    """

    component: Any
    place: tuple[str, ...]
    task: "Task | None" = None
    tasks: dict[str, "Task"] = field(default_factory=dict)

    def scopes(self) -> Iterator["Dag"]:
        """This graph, then each one around it."""
        dag: Dag | None = self
        while dag is not None:
            yield dag
            dag = dag.task.dag if dag.task else None


@dataclass(eq=False)
class Task:
    """One task.

    Attributes:
        name: Its name within `dag`.
        spec: Its `PipelineTaskSpec` message.
        component: The `ComponentSpec` message of what it runs.
        dag: The graph it stands in.
        body: The graph it runs; None when it runs a program or an importer.
        executor: The `ExecutorSpec` message of what it runs; empty when it runs a graph.
        kubernetes: Its settings in the platform document: `secretAsEnv`, `nodeSelector` ...
    """

    name: str
    spec: Any
    component: Any
    dag: Dag
    body: Dag | None = None
    executor: Any = None
    kubernetes: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Its name, after the names of the tasks around it: `for-loop-1/train`."""
        return f"{self.dag.task.path}/{self.name}" if self.dag.task else self.name

    @property
    def place(self) -> tuple[str, ...]:
        """The keys that lead to it in the package's YAML."""
        return (*self.dag.place, "dag", "tasks", self.name)

    @property
    def container(self) -> Any:
        """The `PipelineContainerSpec` message of the program it runs, or None."""
        return self.executor.container if self.executor.HasField("container") else None

    @property
    def importer(self) -> Any:
        """Its `ImporterSpec` message when it is an importer, or None."""
        return self.executor.importer if self.executor.HasField("importer") else None

    @property
    def words(self) -> list[str]:
        """The command and arguments of the program it runs."""
        return [*self.container.command, *self.container.args] if self.container else []

    @property
    def is_python_component(self) -> bool:
        """Whether it runs a Python function through kfp's executor."""
        return any(component_factory.EXECUTOR_MODULE in word for word in self.words)

    @property
    def python_source(self) -> str:
        """The source of the Python function that travels in its command; "" when it is not such a component."""
        return next((word for word in self.words if "\ndef " in word), "") if self.is_python_component else ""

    @property
    def is_google_cloud(self) -> bool:
        """Whether only Google Cloud can run it: a custom job, or a Google Cloud pipeline component."""
        if self.executor.HasField("custom_job"):
            return True
        return bool(self.container and _GOOGLE_CLOUD_IMAGE.search(self.container.image))

    @property
    def is_kubernetes_operation(self) -> bool:
        """Whether it makes or deletes a volume claim, which Kubeflow's driver does without a container."""
        return bool(self.container and self.container.image.startswith("argostub/"))

    @property
    def sources(self) -> set[tuple[str, str]]:
        """(task beside it, output) of everything it reads."""
        given = self.spec.inputs
        parameters = [item.task_output_parameter for item in given.parameters.values()]
        artifacts = [item.task_output_artifact for item in given.artifacts.values()]
        found = {(source.producer_task, source.output_parameter_key) for source in parameters}
        found |= {(source.producer_task, source.output_artifact_key) for source in artifacts}
        return found - {("", "")}

    def known_value(self, name: str) -> Any:
        """What the parameter `name` gets when that is in the package: a constant or a default; else None."""
        if name not in self.spec.inputs.parameters:
            return _default(self.component, name)
        given = self.spec.inputs.parameters[name]
        if given.WhichOneof("kind") == "runtime_value":
            return json_format.MessageToDict(given.runtime_value.constant)
        if given.WhichOneof("kind") == "component_input_parameter" and not given.parameter_expression_selector:
            outer = given.component_input_parameter
            return self.dag.task.known_value(outer) if self.dag.task else _default(self.dag.component, outer)
        return None


class Pipeline:
    """A package, taken apart.

    Attributes:
        spec: The `PipelineSpec` message.
        root: The pipeline's own graph.
        dags: Every graph, the root first.
        tasks: Every task of every graph, in the order of their paths.
        kubernetes: The Kubernetes part of the platform document; empty when there is none.
        pipeline_config: What that says of the pipeline as a whole: `workspace`, `resourceTtl` ...
        documents: How many YAML documents the file has.
    """

    def __init__(self, package: Package) -> None:
        """Take a package apart.

        Raises:
            UserError: a task refers to a component or an executor that is not there, or a graph contains itself.
        """
        self.spec: Any = package.spec
        nodes = _documents(package)
        self.documents = len(nodes)
        self.kubernetes = _mapping(_platform_document(nodes), "platforms", "kubernetes")
        self.pipeline_config = _mapping(self.kubernetes, "pipelineConfig")
        self._node = next((node for node in nodes if _child(node, "deploymentSpec")), None)
        self._executors = _executors(self.spec)
        self.root = Dag(self.spec.root, ("root",))
        self.dags = [self.root]
        self.tasks: list[Task] = []
        self._enter(self.root)
        self.tasks.sort(key=lambda task: task.path)

    def line(self, place: tuple[str, ...]) -> int:
        """The line of the file on which `place` begins, from 1; 1 when it is not in the file."""
        node, line = self._node, 1
        for key in place:
            found = _child(node, key)
            if found is None:
                return 1
            line, node = found[0].start_mark.line + 1, found[1]
        return line

    def _enter(self, dag: Dag) -> None:
        for name, spec in dag.component.dag.tasks.items():
            task = self._task(name, spec, dag)
            dag.tasks[name] = task
            self.tasks.append(task)
            if task.body:
                self.dags.append(task.body)
                self._enter(task.body)

    def _task(self, name: str, spec: Any, dag: Dag) -> Task:
        reference = spec.component_ref.name
        if reference not in self.spec.components:
            raise _damaged(self.spec, f"task {name} refers to the component {reference!r}, which is not there")
        component = self.spec.components[reference]
        task = Task(name, spec, component, dag, executor=pipeline_spec_pb2.PipelineDeploymentConfig.ExecutorSpec())
        kind = component.WhichOneof("implementation")  # none for an empty branch
        if kind == "dag":
            place = ("components", reference)
            if any(scope.place == place for scope in dag.scopes()):
                raise _damaged(self.spec, f"the component {reference} contains itself")
            task.body = Dag(component, place, task)
        elif kind == "executor_label":
            label = component.executor_label
            if label not in self._executors:
                raise _damaged(self.spec, f"component {reference} refers to the executor {label!r}, which is not there")
            task.executor = self._executors[label]
            task.kubernetes = _mapping(self.kubernetes, "deploymentSpec", "executors", label)
        return task


def _documents(package: Package) -> list[yaml.Node]:
    """The YAML documents of the file, as nodes that know their lines; an empty one counts."""
    try:
        return list(yaml.compose_all(package.text, _LOADER))
    except (yaml.YAMLError, RecursionError) as error:
        raise _damaged(package.spec, " ".join(str(error).split())[:200]) from None


def _damaged(spec: Any, what: str) -> UserError:
    return UserError(f"package {spec.pipeline_info.name} is damaged: {what}; compile it again")


def _executors(spec: Any) -> Any:
    """The executors by label, as messages; the package holds them as free-form JSON."""
    config = pipeline_spec_pb2.PipelineDeploymentConfig()
    try:
        json_format.ParseDict(json_format.MessageToDict(spec.deployment_spec), config, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise _damaged(spec, " ".join(str(error).split())[:200]) from None
    return config.executors


def _default(component: Any, name: str) -> Any:
    parameters = component.input_definitions.parameters
    if name not in parameters or not parameters[name].HasField("default_value"):
        return None
    return json_format.MessageToDict(parameters[name].default_value)


def _platform_document(nodes: list[yaml.Node]) -> Any:
    node = next((node for node in nodes if _child(node, "platforms")), None)
    return yaml.constructor.SafeConstructor().construct_document(node) if node else {}


def _child(node: Any, key: str) -> tuple[Any, Any] | None:
    """The (key, value) nodes of `key` in a mapping node, or None."""
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((pair for pair in node.value if pair[0].value == key), None)


def _mapping(value: Any, *keys: str) -> dict[str, Any]:
    """The mapping below `keys`; empty when something on the way is missing or is no mapping."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
