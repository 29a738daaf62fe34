"""KH3: where artifacts come from and where they are written."""

import ast
from collections.abc import Iterator

from kfp_hybrid.lint.rule import ERROR, KUBEFLOW, LOCAL, TARGETS, VERTEX, Breach, rule
from kfp_hybrid.lint.spec import Pipeline, Task

KUBEFLOW_SCHEMES = {"gs", "s3", "minio", "mem", "oci"}
NOT_ON_VERTEX = {"s3", "minio", "mem", "oci", "file", ""}
UNCOMPILED = "{{channel:"  # what kfp makes of a parameter inside an f-string that becomes an importer's URI
SAVING = {"save", "save_model", "save_weights", "save_pretrained", "export", "open"}


@rule(
    "KH301",
    "importer-uri",
    local=ERROR,
    kubeflow=ERROR,
    vertex=ERROR,
    mend="Give the importer a constant, or a pipeline parameter with the whole URI.",
)
def importer_uri(pipeline: Pipeline) -> Iterator[Breach]:
    """The URI of a `dsl.importer` is a constant or a pipeline parameter.

    Kubeflow's importer reads constants and inputs of the graph around it: neither the output of a task beside it nor a
    field of a loop's item. kfp does not put parameters into an f-string that becomes a URI, on any platform.
    """
    for task in pipeline.tasks:
        if task.importer is None:
            continue
        uri = task.importer.artifact_uri
        if uri.WhichOneof("value") == "constant":
            text = uri.constant.string_value
            for target in TARGETS if UNCOMPILED in text else (LOCAL, KUBEFLOW) if "{{" in text else ():
                yield Breach(target, f"the URI is the text {text}, in which nothing is filled in", task)
        elif not _is_handed_in(task, uri.runtime_parameter):
            yield Breach(KUBEFLOW, "the URI is made during the run; Kubeflow's importer does not find it", task)


@rule(
    "KH302",
    "importer-scheme",
    local=ERROR,
    kubeflow=ERROR,
    vertex=ERROR,
    mend="Make the URI a pipeline parameter without a default, or with one for each target.",
)
def importer_scheme(pipeline: Pipeline) -> Iterator[Breach]:
    """The URI of a `dsl.importer` can be read where the pipeline runs.

    Kubeflow reads `gs://`, `s3://`, `minio://` and `oci://`; Vertex AI mounts `gs://`; a local run takes paths only.
    """
    for task in pipeline.tasks:
        uri = _imported(task)
        scheme = uri.partition("://")[0] if "://" in uri else ""
        if not uri or "{{" in uri:
            continue
        if scheme or not uri.startswith("/"):
            yield Breach(LOCAL, f"imports {uri}, no path on this machine; the next step does not find it", task)
        if scheme not in KUBEFLOW_SCHEMES:
            yield Breach(KUBEFLOW, f"imports {uri}; Kubeflow's importer takes gs, s3, minio and oci only", task)
        if scheme in NOT_ON_VERTEX:
            yield Breach(VERTEX, f"imports {uri}; Vertex AI mounts gs:// only, so the next step does not find it", task)


@rule(
    "KH303",
    "output-uri",
    kubeflow=ERROR,
    mend="Write to the artifact's `.path` and leave its `.uri` alone.",
)
def output_uri(pipeline: Pipeline) -> Iterator[Breach]:
    """A component does not set the `uri` of an output artifact.

    Kubeflow uploads an output to the pipeline root and fails when its URI names another bucket.
    """
    for task in pipeline.tasks:
        for name in _set_uris(task):
            yield Breach(
                KUBEFLOW, f"sets {name}.uri; Kubeflow fails to upload the output: not the expected bucket prefix", task
            )


@rule(
    "KH304",
    "save-to-uri",
    kubeflow=ERROR,
    vertex=ERROR,
    mend="Save to the artifact's `.path`; the platform copies it.",
)
def save_to_uri(pipeline: Pipeline) -> Iterator[Breach]:
    """A component writes an output to its `path`, never to its `uri`.

    On Kubeflow that is a `minio://` or `s3://` address, which few libraries can write. On Vertex AI a SavedModel
    written straight to a bucket leaves empty objects for its directories, which break the download in the next step.
    """
    for task in pipeline.tasks:
        for name, call in _saved_uris(task):
            yield Breach(KUBEFLOW, f"{call}(...) writes to {name}.uri, an address that the library cannot write", task)
            yield Breach(VERTEX, f"{call}(...) writes to {name}.uri; a directory written so breaks its download", task)


def _is_handed_in(task: Task, name: str) -> bool:
    """Whether an input is an input of the graph around the task, as it is."""
    if name not in task.spec.inputs.parameters:
        return False
    given = task.spec.inputs.parameters[name]
    return given.WhichOneof("kind") == "component_input_parameter" and not given.parameter_expression_selector


def _imported(task: Task) -> str:
    """The URI that a task imports, when it is a constant or a default; else ""."""
    if task.importer is None:
        return ""
    uri = task.importer.artifact_uri
    constant = uri.WhichOneof("value") == "constant"
    value = uri.constant.string_value if constant else task.known_value(uri.runtime_parameter)
    return value if isinstance(value, str) else ""


def _set_uris(task: Task) -> list[str]:
    """The output artifacts whose `uri` the task's function assigns."""
    function, outputs = _function(task)
    return sorted(
        {
            node.value.id
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == "uri"
            if isinstance(node.value, ast.Name) and node.value.id in outputs
        }
    )


def _saved_uris(task: Task) -> list[tuple[str, str]]:
    """(output artifact, call) of every call in the task's function that saves something to the artifact's `uri`."""
    function, outputs = _function(task)
    found = set()
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in SAVING:
            arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
            read = {ast.unparse(node) for argument in arguments for node in ast.walk(argument)}
            found |= {(name, ast.unparse(call.func)) for name in outputs if f"{name}.uri" in read}
    return sorted(found)


def _function(task: Task) -> tuple[ast.AST, set[str]]:
    """The task's Python function, and the names of its output artifacts; empty when it has none."""
    try:
        module = ast.parse(task.python_source)
    except (SyntaxError, ValueError):  # made by another version of Python, or by hand
        return ast.Module([], []), set()
    function = next((node for node in module.body if isinstance(node, ast.FunctionDef)), None)
    if function is None:
        return ast.Module([], []), set()
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return function, {item.arg for item in arguments if item.annotation and "Output[" in ast.unparse(item.annotation)}
