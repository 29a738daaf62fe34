"""KH5: settings that only one platform understands."""

import re
from collections.abc import Iterator

from kfp_hybrid.lint.rule import ERROR, KUBEFLOW, LOCAL, VERTEX, WARNING, Breach, rule
from kfp_hybrid.lint.spec import Pipeline

# What a step reads or writes through Kubernetes: without it, it does something else.
NEEDS = {
    "secretAsEnv": "a secret in environment variables",
    "secretAsVolume": "a secret as files",
    "configMapAsEnv": "a config map in environment variables",
    "configMapAsVolume": "a config map as files",
    "fieldPathAsEnv": "a field of its pod in environment variables",
    "pvcMount": "a volume claim",
    "genericEphemeralVolume": "an ephemeral volume",
    "emptyDirMounts": "an empty directory volume",
}
VERTEX_ACCELERATOR = re.compile(r"[A-Z][A-Z0-9_]*")  # a value of the API's enum AcceleratorType: NVIDIA_TESLA_T4
KUBERNETES_RESOURCE = re.compile(r"[a-z0-9.-]+\.[a-z]+/[\w.-]+")  # nvidia.com/gpu


@rule(
    "KH501",
    "kubernetes-data",
    local=ERROR,
    vertex=ERROR,
    mend="Read secrets and data through this project's storage and target profile, and pass artifacts between steps.",
)
def kubernetes_data(pipeline: Pipeline) -> Iterator[Breach]:
    """A step gets no data through Kubernetes: secrets, config maps, volumes.

    Vertex AI has none of them (it has Secret Manager and Cloud Storage), and a local run passes them over in silence.
    """
    for task in pipeline.tasks:
        needs = [meaning for key, meaning in NEEDS.items() if key in task.kubernetes]
        if needs:
            for target in (LOCAL, VERTEX):
                yield Breach(target, f"needs {', '.join(needs)}, and does not get that there", task)
        if task.is_kubernetes_operation:
            for target in (LOCAL, VERTEX):
                yield Breach(target, "makes or deletes a Kubernetes volume claim, and fails there", task)
    if "workspace" in pipeline.pipeline_config:
        yield Breach(VERTEX, "needs a workspace, which is a Kubernetes volume; Vertex AI has none")


@rule(
    "KH502",
    "kubernetes-placement",
    vertex=WARNING,
    mend="Let the target profile choose: on Vertex AI limits and accelerator choose the machine.",
)
def kubernetes_placement(pipeline: Pipeline) -> Iterator[Breach]:
    """Where and how Kubernetes runs a step (node selectors, tolerations, pull policy ...) is not in the package.

    Vertex AI has no nodes to choose from and ignores all of that.
    """
    for task in pipeline.tasks:
        settings = sorted(set(task.kubernetes) - set(NEEDS))
        if settings:
            yield Breach(VERTEX, f"sets {', '.join(settings)}; Vertex AI has no such settings", task)
    settings = sorted(set(pipeline.pipeline_config) - {"workspace"})
    if settings:
        yield Breach(VERTEX, f"sets {', '.join(settings)}; Vertex AI has no such settings")


@rule(
    "KH503",
    "accelerator-type",
    kubeflow=ERROR,
    vertex=ERROR,
    mend="Name the accelerator in a resource profile, so that each target gets its own spelling.",
)
def accelerator_type(pipeline: Pipeline) -> Iterator[Breach]:
    """A package names no type of accelerator, for no name is right on both platforms.

    Vertex AI takes the names of its API, such as `NVIDIA_TESLA_T4`; Kubeflow takes the name for a Kubernetes resource,
    such as `nvidia.com/gpu`.
    """
    for task in pipeline.tasks:
        accelerator = task.container.resources.accelerator if task.container else None
        kind = (accelerator.resource_type or accelerator.type) if accelerator else ""
        if not kind or "{{" in kind:
            continue
        if not KUBERNETES_RESOURCE.fullmatch(kind):
            yield Breach(KUBEFLOW, f"asks for {kind}; no node has a resource of that name; the pod waits forever", task)
        if not VERTEX_ACCELERATOR.fullmatch(kind):
            yield Breach(VERTEX, f"asks for {kind}, which is no accelerator of Vertex AI; the job is refused", task)


@rule(
    "KH504",
    "resource-request",
    vertex=WARNING,
    mend="Set cpu and memory limits too; they choose the machine.",
)
def resource_request(pipeline: Pipeline) -> Iterator[Breach]:
    """Vertex AI chooses a step's machine by its limits and ignores its requests."""
    for task in pipeline.tasks:
        if task.container is None:
            continue
        given = task.container.resources
        requests = {
            "cpu": given.resource_cpu_request or given.cpu_request,
            "memory": given.resource_memory_request or given.memory_request,
        }
        asked = [f"{name} {request}" for name, request in requests.items() if request]
        if asked:
            yield Breach(VERTEX, f"requests {' and '.join(asked)}, which Vertex AI ignores", task)
