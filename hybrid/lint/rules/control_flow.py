"""KH2: branches, loops and nested pipelines."""

import json
import re
from collections.abc import Iterator

from kfp_hybrid.lint.rule import ERROR, KUBEFLOW, LOCAL, TARGETS, VERTEX, WARNING, Breach, rule
from kfp_hybrid.lint.spec import Dag, Pipeline, Task
from kfp_hybrid.package import ParameterType

REFERENCE = re.compile(r"inputs\.parameter_values\['([^']+)'\]")
TEXT = re.compile(r"'[^']*'(?=[\s)]|$)")
CHANNEL = "pipelinechannel--"
MAX_COLLECTED_ARTIFACTS = 100  # of Vertex AI


@rule(
    "KH201",
    "condition-value",
    local=ERROR,
    mend="Add a dsl.Else, or compare the output of a component that has only one; judge a loop's item in a step.",
)
def condition_value(pipeline: Pipeline) -> Iterator[Breach]:
    """A bare `dsl.If` compares a pipeline parameter or the only output (`.output`) of a component.

    A local run looks for anything else in the wrong place: for a named output without a `dsl.Else`, for `dsl.OneOf`
    and for the item of a loop over an output. It finds nothing, skips the branch, and the run succeeds.
    """
    for task in pipeline.tasks:
        for name in REFERENCE.findall(task.spec.trigger_policy.condition):
            if not _condition_finds(task, name):
                value = name.removeprefix(CHANNEL)
                what = f"a local run does not find {value}, takes the condition for false, and still succeeds"
                yield Breach(LOCAL, what, task)


@rule(
    "KH202",
    "loop-items",
    local=ERROR,
    mend="Loop over a pipeline parameter, a constant, or the output of a component that has only one; "
    "or put the loop into a nested pipeline that takes the list as a parameter.",
)
def loop_items(pipeline: Pipeline) -> Iterator[Breach]:
    """A `dsl.ParallelFor` runs over a constant, a pipeline parameter or the only output of a component.

    A local run does not find the list when it is a named output of a component in the same graph, a field of another
    loop's item, or `dsl.OneOf`, and ends with an error.
    """
    for task in pipeline.tasks:
        name = task.spec.parameter_iterator.items.input_parameter
        if name and not _loop_finds(task, name):
            value = name.removeprefix(CHANNEL)
            yield Breach(LOCAL, f"a local run does not find the list {value} and ends with: not found", task)


@rule(
    "KH203",
    "loop-over-artifacts",
    local=ERROR,
    kubeflow=ERROR,
    mend="Loop over parameters and select the artifact in the step, or hand the list of artifacts to one step.",
)
def loop_over_artifacts(pipeline: Pipeline) -> Iterator[Breach]:
    """A `dsl.ParallelFor` runs over parameters, not over artifacts."""
    for task in pipeline.tasks:
        if task.spec.HasField("artifact_iterator"):
            yield Breach(KUBEFLOW, "loops over artifacts; Kubeflow refuses the run: not implemented yet", task)
            yield Breach(LOCAL, "loops over artifacts; a local run leaves the loop out, and still succeeds", task)


@rule(
    "KH204",
    "collected-outputs",
    local=WARNING,
    mend="Make sure that the list is not empty, and that each round ends in a step without a condition around it.",
)
def collected_outputs(pipeline: Pipeline) -> Iterator[Breach]:
    """What `dsl.Collected` collects is there: the loop has a round, and each round has the output.

    A local run ends with an error when a loop whose outputs are collected has no items, or when an item skips the
    branch that makes the output.
    """
    for task in pipeline.tasks:
        collected = sorted(_collected(task))
        if collected and not task.spec.parameter_iterator.items.raw:
            yield Breach(LOCAL, "its outputs are collected; if its list is empty, a local run ends with an error", task)
        if any(_may_be_missing(task.body, key) for key in collected):
            what = "collects an output from within a condition; if an item skips that, a local run ends with an error"
            yield Breach(LOCAL, what, task)


@rule(
    "KH205",
    "collected-limit",
    vertex=ERROR,
    mend=f"Loop over at most {MAX_COLLECTED_ARTIFACTS} items, or let each step write its share to one place.",
)
def collected_limit(pipeline: Pipeline) -> Iterator[Breach]:
    """At most 100 artifacts are collected from a loop, which is the limit of Vertex AI."""
    for task in pipeline.tasks:
        rounds = _constant_rounds(task)
        artifacts = _collected(task) & set(task.component.output_definitions.artifacts)
        if artifacts and rounds > MAX_COLLECTED_ARTIFACTS:
            what = f"{rounds} artifacts are collected; Vertex AI fails above {MAX_COLLECTED_ARTIFACTS}"
            yield Breach(VERTEX, what, task)


@rule(
    "KH206",
    "oneof-artifact",
    local=ERROR,
    kubeflow=WARNING,
    mend="Let the branches hand out parameters, or give each branch a step of its own that uses its artifact.",
)
def oneof_artifact(pipeline: Pipeline) -> Iterator[Breach]:
    """`dsl.OneOf` chooses among parameters, not among artifacts."""
    for dag in pipeline.dags:
        if any(len(output.artifact_selectors) > 1 for output in dag.component.dag.outputs.artifacts.values()):
            yield Breach(LOCAL, "dsl.OneOf over artifacts: a local run ends with: Expected 1 artifact", dag.task)
            yield Breach(KUBEFLOW, "dsl.OneOf over artifacts: Kubeflow can do that from 2.17.0 on", dag.task)


@rule(
    "KH207",
    "nested-artifact-inputs",
    local=ERROR,
    mend="Give the nested pipeline a parameter too, and a value for it where it is called.",
)
def nested_artifact_inputs(pipeline: Pipeline) -> Iterator[Breach]:
    """A nested pipeline or `dsl.ExitHandler` that takes artifacts is given a parameter as well.

    A local run drops the artifacts when the call passes no parameter at all; a default does not count.
    """
    for task in pipeline.tasks:
        if task.body is None or task.spec.inputs.parameters or task.spec.WhichOneof("iterator"):
            continue
        for name in sorted(task.spec.inputs.artifacts):
            if not any(name in scope.component.input_definitions.artifacts for scope in task.dag.scopes()):
                what = f"is given artifacts only; a local run drops them and ends with: argument '{name}' not found"
                yield Breach(LOCAL, what, task)


@rule(
    "KH208",
    "undeclared-dependency",
    local=ERROR,
    kubeflow=ERROR,
    mend="Use the loop's item inside the loop, or give a step in it an .after() the producer.",
)
def undeclared_dependency(pipeline: Pipeline) -> Iterator[Breach]:
    """A task that reads another's output is declared to depend on it.

    kfp forgets that for a `dsl.ParallelFor` over an output whose item the loop does not use. Kubeflow and a local run
    order tasks by what is declared, so the loop may start before its list is there.
    """
    for task in pipeline.tasks:
        for producer in sorted({producer for producer, _ in task.sources} - set(task.spec.dependent_tasks)):
            what = f"reads an output of {producer} but is not declared to run after it; it may start first and fail"
            for target in (LOCAL, KUBEFLOW):
                yield Breach(target, what, task)


@rule(
    "KH209",
    "untyped-loop-item",
    local=ERROR,
    mend="Say what the list holds in the parameter's type, such as List[int].",
)
def untyped_loop_item(pipeline: Pipeline) -> Iterator[Breach]:
    """A condition on a loop's item knows the item's type.

    The items of a bare `list` count as text, so that `item == 2` is compiled to `item == '2'`. Kubeflow turns the item
    into text too; a local run compares the number with the text, and the condition is never true.
    """
    for task in pipeline.tasks:
        iterator = task.spec.parameter_iterator
        items = task.known_value(iterator.items.input_parameter)
        if task.body is None or not isinstance(items, list) or all(isinstance(item, str) for item in items):
            continue
        declared = task.component.input_definitions.parameters[iterator.item_input].parameter_type
        conditions = " ".join(inner.spec.trigger_policy.condition for inner in _below(task.body))
        if declared == ParameterType.STRING and iterator.item_input in REFERENCE.findall(conditions):
            name = iterator.items.input_parameter.removeprefix(CHANNEL)
            what = f"a condition compares items of {name} as text; a local run takes it for false, and still succeeds"
            yield Breach(LOCAL, what, task)


@rule(
    "KH210",
    "condition-quote",
    local=ERROR,
    kubeflow=ERROR,
    vertex=ERROR,
    mend="Compare in a step that returns a bool, and branch on that.",
)
def condition_quote(pipeline: Pipeline) -> Iterator[Breach]:
    """A condition compares with a text that has no single quote.

    kfp puts the text between single quotes as it is, so that the condition cannot be read on any platform.
    """
    for task in pipeline.tasks:
        condition = task.spec.trigger_policy.condition
        if "'" in TEXT.sub("", REFERENCE.sub("", condition)):
            for target in TARGETS:
                yield Breach(target, f"the condition cannot be read: {condition}", task)


@rule(
    "KH211",
    "empty-branch",
    local=ERROR,
    kubeflow=ERROR,
    mend="Put a step into the branch, or leave the branch out.",
)
def empty_branch(pipeline: Pipeline) -> Iterator[Breach]:
    """A branch, a loop and a nested pipeline have at least one step.

    kfp compiles an empty one into a component that runs nothing, which Kubeflow refuses; a local run fails when it gets
    there.
    """
    for task in pipeline.tasks:
        if task.component.WhichOneof("implementation") is None:
            yield Breach(KUBEFLOW, "has no step; Kubeflow refuses the run: unknown component implementation", task)
            yield Breach(LOCAL, "has no step; a local run that gets there ends with an error", task)


def _condition_finds(task: Task, name: str) -> bool:
    """Whether kfp.local finds the value `name` of a condition; it searches by the spelling of the name."""
    bare = name.replace(CHANNEL, "")
    if "-Output" not in bare:
        return _is_input_around(task.dag, bare, CHANNEL + bare, name)
    if not bare.endswith("-Output") or name not in task.spec.inputs.parameters:
        return False
    given = task.spec.inputs.parameters[name]
    if given.WhichOneof("kind") != "task_output_parameter":
        return True  # handed down from a graph around this one, where it is found by the same name
    source = given.task_output_parameter
    return (source.producer_task, source.output_parameter_key) == (bare.removesuffix("-Output"), "Output")


def _loop_finds(task: Task, name: str) -> bool:
    """Whether kfp.local finds the list `name` of a loop; it searches by the spelling of the name."""
    if not name.startswith(CHANNEL):
        return _is_input_around(task.dag, name)
    bare = name.removeprefix(CHANNEL)
    if "-loop-item" in bare:
        return False  # it takes the list that the item is from
    return bare.endswith("-Output") or _is_input_around(task.dag, bare, name)


def _is_input_around(dag: Dag, *names: str) -> bool:
    """Whether a graph, or one around it, has a parameter of one of these names."""
    return any(name in scope.component.input_definitions.parameters for scope in dag.scopes() for name in names)


def _below(dag: Dag) -> Iterator[Task]:
    """Every task of a graph and of the graphs in it."""
    for task in dag.tasks.values():
        yield task
        if task.body:
            yield from _below(task.body)


def _constant_rounds(loop: Task) -> int:
    """How many items a loop over a constant has; 0 for any other task."""
    try:
        return len(json.loads(loop.spec.parameter_iterator.items.raw))
    except (ValueError, TypeError):  # not a loop over a constant
        return 0


def _collected(loop: Task) -> set[str]:
    """The outputs of a loop that tasks beside it, or the graph around it, read as lists."""
    if not loop.spec.WhichOneof("iterator"):
        return set()
    read = {source for task in loop.dag.tasks.values() for source in task.sources}
    outputs = loop.dag.component.dag.outputs
    for parameter in outputs.parameters.values():
        read.add((parameter.value_from_parameter.producer_subtask, parameter.value_from_parameter.output_parameter_key))
    for artifact in outputs.artifacts.values():
        read.update((chosen.producer_subtask, chosen.output_artifact_key) for chosen in artifact.artifact_selectors)
    return {key for producer, key in read if producer == loop.name}


def _may_be_missing(dag: Dag | None, key: str) -> bool:
    """Whether the output `key` of a graph comes from a task that a condition can skip."""
    if dag is None:
        return False
    outputs = dag.component.dag.outputs
    if key in outputs.parameters:
        chosen = outputs.parameters[key].value_from_parameter
        producer, inner = chosen.producer_subtask, chosen.output_parameter_key
    elif key in outputs.artifacts and len(outputs.artifacts[key].artifact_selectors) == 1:
        (chosen,) = outputs.artifacts[key].artifact_selectors
        producer, inner = chosen.producer_subtask, chosen.output_artifact_key
    else:
        return False
    task = dag.tasks.get(producer)  # none for dsl.OneOf, of which one is always there
    return task is not None and (bool(task.spec.trigger_policy.condition) or _may_be_missing(task.body, inner))
