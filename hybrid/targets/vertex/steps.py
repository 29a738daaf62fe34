"""How a step of a pipeline gets its machine, secrets, retries and timeout on Vertex AI."""

import logging
from collections.abc import Callable, Sequence

from google_cloud_pipeline_components import _image
from kfp import dsl

from kfp_hybrid.accelerators import accelerator, vertex_machine
from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import Resources, VertexProfile
from kfp_hybrid.step import SECRET_SCHEME, TIMEOUT_VARIABLE
from kfp_hybrid.targets.interface import give_cuda

ResourcesFor = Callable[[str], Resources]

log = logging.getLogger(__name__)


def configure(
    profile: VertexProfile,
    resources_for: ResourcesFor,
    task: dsl.PipelineTask,
    *,
    resources: str = "",
    secrets: Sequence[str] = (),
    retries: int = 0,
    timeout_seconds: int = 0,
    cache: bool = True,
) -> dsl.PipelineTask:
    """Say what a step gets and how it is run; see `Target.configure`.

    Limits choose the machine; Vertex AI does not heed requests, so none are made.

    Raises:
        UserError: no machine of Vertex AI has such resources, or the step is a job of its own, which secrets and
            timeouts of a step do not reach.
    """
    if is_google_cloud(task) and (secrets or timeout_seconds):
        raise UserError(
            f"the step {task.name} starts a job of its own on Vertex AI, which gets neither secrets nor a timeout from "
            "the step; leave them out, or ask for resources that a plain step can have"
        )
    if resources:
        _limit(task, resources, resources_for(resources))
    for name in secrets:
        if name in profile.secrets:
            for variable, version in profile.secrets[name].env.items():
                task.set_env_variable(variable, SECRET_SCHEME + version)
    if retries:
        task.set_retry(retries, backoff_duration="30s", backoff_factor=2)
    if timeout_seconds:
        task.set_env_variable(TIMEOUT_VARIABLE, str(timeout_seconds))
    return task.set_caching_options(cache)


def is_google_cloud(task: dsl.PipelineTask) -> bool:
    """Whether a step is a Google Cloud pipeline component, which starts something and waits for it."""
    return task.container_spec is not None and task.container_spec.image == _image.GCPC_IMAGE_TAG


def _limit(task: dsl.PipelineTask, name: str, wanted: Resources) -> None:
    vertex_machine(wanted.accelerator, wanted.count, wanted.cpu or 0, wanted.memory_gib)  # is there one?
    if wanted.spot:
        log.warning("resources %s: Vertex AI runs single steps on regular machines, so %s has no spot machine; "
                    "training steps (target.train) have", name, task.name)  # fmt: skip
    if wanted.cpu_limit:
        task.set_cpu_limit(wanted.cpu_limit)
    if wanted.memory:
        task.set_memory_limit(wanted.memory)
    if wanted.accelerator:
        row = accelerator(wanted.accelerator)
        if row.vertex_type is None or row.topologies:
            raise UserError(
                f"resources {name}: no single step of Vertex AI can have {row.name}, only a custom job; start training "
                f"steps with target.train, or give {task.name} other resources"
            )
        task.set_accelerator_type(row.vertex_type).set_accelerator_limit(wanted.count)
        give_cuda(task)  # a step has no TPU
