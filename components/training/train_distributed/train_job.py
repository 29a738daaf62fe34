"""The TrainJob of a training: what Kubeflow Trainer 2.2 and later take.

Trainer makes a JobSet of it, with the replicated job `node` of the runtime; a headless service gives every pod the name
that `addresses` foretells, and the indexed job gives it its index.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from kfp_hybrid.checkpoints import VARIABLE as CHECKPOINTS_VARIABLE
from kfp_hybrid.components.training.train_distributed.placement import Placement, Pod, Secret
from kfp_hybrid.components.training.train_distributed.request import VARIABLE, Request
from kfp_hybrid.kubernetes_api.kinds import Kind

GROUP, KIND = "trainer.kubeflow.org", "TrainJob"
TRAIN_JOBS = Kind(
    f"{GROUP}/v1alpha1",
    KIND,
    "trainjobs",
    absent="Kubeflow Trainer; install version 2.2 or later",
)
OWNER = "kfp-hybrid"
FIELD_MANAGER = f"{OWNER}-train-distributed"  # the name for the API server
PATCH_MANAGER = f"{OWNER}/train-distributed"  # the same for Trainer, in the form of a path as others there
MODEL_ANNOTATION = f"{OWNER}/model"
NODE = "node"  # Trainer's name of the replicated job and of the container that train
PORT = 2222
WORKER = "kfp_hybrid.components.training.train_distributed.worker"
CHECKPOINTS, STORAGE_SECRET = "/checkpoints", "/secrets/storage"
STORAGE_SECRET_VARIABLE = "S3_SECRET_DIR"  # noqa: S105 - where the storage module looks for the secret


def name_of(model_uri: str) -> str:
    """The name of the TrainJob that makes a model.

    A run's outputs have URIs of their own, which a retried step keeps: so it finds the job of the try before.
    """
    return f"train-{hashlib.sha256(model_uri.encode()).hexdigest()[:16]}"


def addresses(name: str, nodes: int) -> list[str]:
    """Where the nodes of a TrainJob listen, by index."""
    return [f"{name}-{NODE}-0-{index}.{name}:{PORT}" for index in range(nodes)]


def train_job(
    name: str,
    namespace: str,
    model_uri: str,
    request: Request,
    placement: Placement,
    environment: Mapping[str, str],
    owner: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The object to apply.

    Args:
        name: of the TrainJob.
        namespace: of the TrainJob.
        model_uri: URI of the model; noted in an annotation.
        request: what the nodes do.
        placement: where, and with what.
        environment: variables for the pods besides those of `placement`, such as the address of the object store.
        owner: reference to the pod of the step, with which the TrainJob goes; None for no owner.
    """
    pod = placement.pod
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": {**pod.labels, "app.kubernetes.io/managed-by": OWNER, "app.kubernetes.io/component": "training"},
        "annotations": {MODEL_ANNOTATION: model_uri},
    }
    if owner:
        metadata["ownerReferences"] = [dict(owner)]
    secrets = _secrets(placement)
    trainer: dict[str, Any] = {
        "image": placement.image,
        "command": ["python3", "-m", WORKER],
        "numNodes": placement.nodes,
        "env": _variables({**environment, **pod.env, **_own_variables(request, placement)}, secrets),
    }
    if pod.resources:
        trainer["resourcesPerNode"] = {"limits": dict(pod.resources), "requests": dict(pod.resources)}
    spec: dict[str, Any] = {
        "runtimeRef": {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", "name": placement.runtime},
        "trainer": trainer,
    }
    if patch := _pod_patch(placement, secrets):
        template = {"spec": {"template": {"spec": patch}}}
        jobs = {"replicatedJobs": [{"name": NODE, "template": template}]}
        spec["runtimePatches"] = [{"manager": PATCH_MANAGER, "trainingRuntimeSpec": {"template": {"spec": jobs}}}]
    if placement.timeout_seconds:
        spec["activeDeadlineSeconds"] = placement.timeout_seconds
    return {"apiVersion": TRAIN_JOBS.api_version, "kind": KIND, "metadata": metadata, "spec": spec}


def _secrets(placement: Placement) -> list[Secret]:
    named = [Secret(placement.storage_secret, path=STORAGE_SECRET)] if placement.storage_secret else []
    return [*named, *placement.pod.secrets]


def _own_variables(request: Request, placement: Placement) -> dict[str, str]:
    own = {VARIABLE: request.to_json()}
    if placement.storage_secret:
        own[STORAGE_SECRET_VARIABLE] = STORAGE_SECRET
    if placement.pod.checkpoint_claim:
        own[CHECKPOINTS_VARIABLE] = CHECKPOINTS
    return own


def _variables(values: Mapping[str, str], secrets: Sequence[Secret]) -> list[dict[str, Any]]:
    from_secrets = {
        name: {"secretKeyRef": {"name": secret.secret, "key": key, "optional": secret.optional}}
        for secret in secrets
        for name, key in secret.env.items()
    }
    plain = [{"name": name, "value": value} for name, value in values.items() if name not in from_secrets]
    return [*plain, *({"name": name, "valueFrom": source} for name, source in from_secrets.items())]


def _pod_patch(placement: Placement, secrets: Sequence[Secret]) -> dict[str, Any]:
    """What the pods get beyond the runtime's template; empty for nothing."""
    volumes, mounts = _volumes(placement.pod, secrets)
    patch: dict[str, Any] = {
        "serviceAccountName": placement.service_account,
        "nodeSelector": dict(placement.pod.node_selector),
        "tolerations": [dict(toleration) for toleration in placement.pod.tolerations],
        "imagePullSecrets": [{"name": name} for name in placement.pod.pull_secrets],
        "volumes": volumes,
        "containers": [{"name": NODE, "volumeMounts": mounts}] if mounts else [],
    }
    return {name: value for name, value in patch.items() if value}


def _volumes(pod: Pod, secrets: Sequence[Secret]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes, mounts = [], []
    for number, secret in enumerate(secret for secret in secrets if secret.path):
        name = f"secret-{number}"
        volumes.append({"name": name, "secret": {"secretName": secret.secret, "optional": secret.optional}})
        mounts.append({"name": name, "mountPath": secret.path, "readOnly": True})
    if pod.checkpoint_claim:
        volumes.append({"name": "checkpoints", "persistentVolumeClaim": {"claimName": pod.checkpoint_claim}})
        mounts.append({"name": "checkpoints", "mountPath": CHECKPOINTS})
    return volumes, mounts
