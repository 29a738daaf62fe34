"""What a pipeline asks of Kubeflow, each a function of the profile and the resources."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from kfp import dsl, kubernetes

from kfp_hybrid import images
from kfp_hybrid.accelerators import accelerator
from kfp_hybrid.components.deployment.deploy_model.component import deploy_model
from kfp_hybrid.components.training.train_distributed.component import train_distributed
from kfp_hybrid.components.training.train_model.component import train_model
from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import KubeflowProfile, Resources, image_reference
from kfp_hybrid.profiles.models import KubernetesSecret, Toleration
from kfp_hybrid.targets import model_server
from kfp_hybrid.targets.interface import Component, give_cuda
from kfp_hybrid.targets.shards import predict_in_steps

ResourcesFor = Callable[[str], Resources]

STORAGE = "storage"
"""The secret that pipelines mean by the credentials of the object store."""

ALL_TRIES = "30d"
"""How long all tries of a step may take together, by which Argo also ends the last; an hour when left out."""

log = logging.getLogger(__name__)


def configure(
    profile: KubeflowProfile,
    resources_for: ResourcesFor,
    task: dsl.PipelineTask,
    *,
    resources: str = "",
    secrets: Sequence[str] = (),
    retries: int = 0,
    timeout_seconds: int = 0,
    cache: bool = True,
) -> dsl.PipelineTask:
    """Say what a step gets and how it is run; see `Target.configure`."""
    if resources:
        wanted = resources_for(resources)
        _limit(task, wanted)
        _place(task, profile, resources, wanted)
    for name in secrets:
        if name in profile.secrets:
            _give_secret(task, profile.secrets[name])
    if retries:
        task.set_retry(retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration=ALL_TRIES)
    if timeout_seconds:
        kubernetes.set_timeout(task, timeout_seconds)
    return task.set_caching_options(cache)


def train(
    profile: KubeflowProfile, resources_for: ResourcesFor, component: Component, *, resources: str, **inputs: Any
) -> dsl.PipelineTask:
    """Train in a step; or, with several nodes, in a TrainJob of Kubeflow Trainer that a step starts and waits for.

    Raises:
        UserError: several nodes for another component than `train_model`.
    """
    wanted = resources_for(resources) if resources else Resources()
    if wanted.nodes == 1:
        return configure(profile, resources_for, component(**inputs), resources=resources)
    if component is not train_model:
        raise UserError(
            f"resources {resources}: only train_model trains on {wanted.nodes} nodes on Kubeflow; "
            f"give {component.name} resources with one node"
        )
    _warn_of_spot(profile, resources, wanted, component.name)
    task = train_distributed(
        **inputs,
        nodes=wanted.nodes,
        runtime=profile.training_runtime,
        image=image_reference(profile, "tensorflow", images.GPU if model_server.has_gpu(wanted) else ""),
        pod=_pod(profile, wanted),
        namespace=profile.namespace or "",
        service_account=profile.service_account or "",
    )
    return configure(profile, resources_for, task, secrets=[STORAGE])


def train_tabular(profile: KubeflowProfile, resources_for: ResourcesFor, **inputs: Any) -> Any:
    """Train the default model; see `Target.train_tabular`."""
    return train(profile, resources_for, train_model, resources="training", **inputs).outputs["model"]


def deploy(
    profile: KubeflowProfile, resources_for: ResourcesFor, *, model: Any, service: Any, canary_percent: Any
) -> None:
    """Serve a model in the cluster that the pipeline runs in; see `Target.deploy`."""
    pods = _serving(profile, resources_for(model_server.SERVING))
    deploy_model(model=model, service=service, canary_percent=canary_percent, **pods).set_caching_options(False)


def shift_traffic(profile: KubeflowProfile, resources_for: ResourcesFor, *, service: Any, action: Any) -> None:
    """End a canary; see `Target.shift_traffic`."""
    pods = _serving(profile, resources_for(model_server.SERVING))
    deploy_model(service=service, action=action, **pods).set_caching_options(False)


def predict_batch(
    profile: KubeflowProfile,
    resources_for: ResourcesFor,
    *,
    model: Any,
    examples: Any,
    key_columns: Any,
    resources: str,
) -> Any:
    """Predict in a step, or in one for each of several nodes; see `Target.predict_batch`."""
    configured = functools.partial(configure, profile, resources_for, secrets=[STORAGE])
    return predict_in_steps(
        resources_for(resources).nodes if resources else 1,
        functools.partial(configured, resources=resources),
        configured,
        model=model,
        examples=examples,
        key_columns=key_columns,
    )


def _limit(task: dsl.PipelineTask, wanted: Resources) -> None:
    if wanted.cpu_limit:
        task.set_cpu_limit(wanted.cpu_limit)
    if wanted.memory:
        task.set_memory_limit(wanted.memory)
    if wanted.accelerator:
        row = accelerator(wanted.accelerator)
        task.set_accelerator_type(row.kubernetes_resource)
        task.set_accelerator_limit(wanted.count)
        if row.is_gpu:
            give_cuda(task)


def _warn_of_spot(profile: KubeflowProfile, name: str, wanted: Resources, what: str) -> None:
    if wanted.spot and profile.spot is None:
        log.warning("resources %s: the profile has no table `spot` that says how to get onto spot nodes, "
                    "so %s runs on any", name, what)  # fmt: skip


def _place(task: dsl.PipelineTask, profile: KubeflowProfile, name: str, wanted: Resources) -> None:
    _warn_of_spot(profile, name, wanted, task.name)
    for key, value in profile.node_labels(wanted).items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in profile.node_tolerations(wanted):
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))


def _give_secret(task: dsl.PipelineTask, secret: KubernetesSecret) -> None:
    for variable, key in secret.env.items():  # one at a time: two variables may take the same key
        kubernetes.use_secret_as_env(task, secret.secret, {key: variable}, optional=secret.optional)
    if secret.path:
        kubernetes.use_secret_as_volume(task, secret.secret, str(secret.path), optional=secret.optional)


def _serving(profile: KubeflowProfile, resources: Resources) -> dict[str, Any]:
    """What serves models and what its pods get, as `deploy_model` takes it."""
    storage = profile.secrets.get(STORAGE)
    limits = _limits(resources)
    return {
        "serving": profile.serving,
        "server": model_server.server(profile, resources),
        "namespace": profile.namespace or "",
        "storage_secret": storage.secret if storage else "",
        "image": profile.serving_image or "",
        "server_images": model_server.server_images(profile, resources),
        "download_image": image_reference(profile, "deployment"),
        "pull_secrets": list(profile.pull_secrets),
        "resources": {"requests": limits, "limits": limits} if limits else {},
        "node_selector": profile.node_labels(resources),
        "tolerations": _tolerations(profile, resources),
        "run": dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    }


def _pod(profile: KubeflowProfile, resources: Resources) -> dict[str, Any]:
    """What each machine of a training gets, as `train_distributed` takes it."""
    storage = profile.secrets.get(STORAGE)
    return {
        "resources": _limits(resources),
        "node_selector": profile.node_labels(resources),
        "tolerations": _tolerations(profile, resources),
        "pull_secrets": list(profile.pull_secrets),
        "secrets": [storage.model_dump(mode="json", exclude_none=True)] if storage else [],
    }


def _limits(resources: Resources) -> dict[str, str]:
    limits = {"cpu": resources.cpu_limit, "memory": resources.memory}
    if resources.accelerator:
        limits[accelerator(resources.accelerator).kubernetes_resource] = str(resources.count)
    return {name: limit for name, limit in limits.items() if limit}


def _tolerations(profile: KubeflowProfile, resources: Resources) -> list[dict[str, Any]]:
    return [_as_kubernetes_spells(toleration) for toleration in profile.node_tolerations(resources)]


def _as_kubernetes_spells(toleration: Toleration) -> dict[str, Any]:
    fields = toleration.model_dump(exclude_none=True)
    if "toleration_seconds" in fields:
        fields["tolerationSeconds"] = fields.pop("toleration_seconds")
    return fields
