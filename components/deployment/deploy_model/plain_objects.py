"""The Deployments and the Service that serve a model on plain Kubernetes."""

import json
from dataclasses import dataclass
from typing import Any

from kfp_hybrid import images
from kfp_hybrid.components.deployment.deploy_model.location import ModelLocation
from kfp_hybrid.components.deployment.deploy_model.names import (
    APPLIED,
    LABELS,
    MODEL_DIGEST,
    MODEL_URI,
    MODEL_VERSION,
    PREVIOUS,
    REPLICAS,
    REVISION,
    ROLLED_BACK,
    RUN,
    SERVICE,
    TRACK,
    annotations_of,
    fingerprint,
)
from kfp_hybrid.components.deployment.deploy_model.request import Request
from kfp_hybrid.components.deployment.deploy_model.servers import GRPC_PORT
from kfp_hybrid.step import StepError

MODELS = "/models"
STABLE, CANARY = "stable", "canary"


@dataclass(frozen=True)
class Record:
    """What the pods of one model are; kept as an annotation, to be made again.

    Attributes:
        annotations: Of the Deployment.
        pod: The specification of a pod.
    """

    annotations: dict[str, str]
    pod: dict[str, Any]

    @property
    def revision(self) -> str:
        """Stands for the model and its settings."""
        return self.annotations[REVISION]

    def to_json(self) -> str:
        """The record as text."""
        return json.dumps({"annotations": self.annotations, "pod": self.pod}, sort_keys=True)


def read_record(item: dict[str, Any] | None, annotation: str) -> Record | None:
    """The record that an object carries in an annotation, if any."""
    text = annotations_of(item).get(annotation)
    return Record(**json.loads(text)) if text else None


def split(total: int, percent: int) -> tuple[int, int]:
    """Share pods between the canary and the model before, each of which gets at least one.

    Args:
        total: The number of pods, two at least when there are both.
        percent: The share of requests wanted for the canary, 1 to 99.

    Returns:
        The number of pods of the canary, and of the model before.
    """
    total = max(total, 2)
    canary = min(max(round(total * percent / 100), 1), total - 1)
    return canary, total - canary


def make_record(request: Request, location: ModelLocation) -> Record:
    """The pods that serve a model.

    Raises:
        StepError: it is where pods cannot get it.
    """
    volume, mount, downloads = _storage(request, location)
    folder = f"{MODELS}/{request.service}"
    folder = folder if location.holds_versions else f"{folder}/{location.version or 1}"
    chosen = request.model_server
    server = {
        "name": "server",
        "env": [
            {"name": "MODEL_NAME", "value": request.service},
            {"name": "MODEL_BASE_PATH", "value": MODELS},
            {"name": "MODEL_URI", "value": folder},
        ],
        "volumeMounts": [{**mount, "readOnly": True}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
        "securityContext": _confined(),
        **chosen.container(request.service, folder, request.server_image, request.resources),
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": chosen.user,
            "fsGroup": chosen.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": downloads,
        "containers": [server],
        "volumes": [volume, {"name": "tmp", "emptyDir": {}}],
        **request.pull_secret_references,
        **({"serviceAccountName": request.service_account} if request.service_account else {}),
        **({"nodeSelector": request.node_selector} if request.node_selector else {}),
        **({"tolerations": request.tolerations} if request.tolerations else {}),
    }
    return Record(
        annotations={
            **chosen.annotations,
            **request.annotations,
            REVISION: fingerprint(pod, request.annotations, location.uri, location.digest),
            MODEL_URI: location.uri,
            MODEL_VERSION: str(location.version),
            MODEL_DIGEST: location.digest,
            RUN: request.run,
        },
        pod=pod,
    )


def _storage(request: Request, location: ModelLocation) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """How a pod gets the model: the volume, where it is mounted in the server, and what fills it beforehand."""
    folder = f"{MODELS}/{request.service}"
    target = folder if location.holds_versions else f"{folder}/{location.version or 1}"
    if location.scheme == "pvc":
        claim, _, path = location.uri.partition("://")[2].partition("/")
        volume = {"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        return volume, {"name": "model", "mountPath": target, **({"subPath": path} if path else {})}, []
    if location.scheme in ("http", "https"):
        raise StepError(
            f"{location.uri} can be served by KServe only; with serving=deployment give s3, minio, gs or pvc"
        )
    download = {
        "name": "download-model",
        "image": request.download_image or images.DEPLOYMENT,
        "command": ["python", "-m", "kfp_hybrid.storage", "download", location.uri, target],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "volumeMounts": [{"name": "model", "mountPath": MODELS}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
        "securityContext": _confined(),
        **({"envFrom": [{"secretRef": {"name": request.storage_secret}}]} if request.storage_secret else {}),
    }
    return {"name": "model", "emptyDir": {}}, {"name": "model", "mountPath": MODELS}, [download]


def _confined() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def name_of(service: str, track: str) -> str:
    """The name of the Deployment of a track."""
    return service if track == STABLE else f"{service}-{track}"


def deployment(
    service: str, track: str, record: Record, replicas: int, *, total: int, previous: Record | None = None
) -> dict[str, Any]:
    """A Deployment.

    Args:
        service: The name of the service.
        track: `STABLE` or `CANARY`.
        record: What its pods are.
        replicas: How many.
        total: How many pods the service has without a canary.
        previous: What was served before.
    """
    labels = {SERVICE: service, TRACK: track}
    kept = {REPLICAS: str(total), APPLIED: record.to_json(), **({PREVIOUS: previous.to_json()} if previous else {})}
    on_pods = {name: value for name, value in record.annotations.items() if name not in (RUN, ROLLED_BACK)}
    return {
        "metadata": {
            "name": name_of(service, track),
            "labels": {**LABELS, **labels},
            "annotations": {**record.annotations, **kept},
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": {**LABELS, **labels}, "annotations": on_pods}, "spec": record.pod},
        },
    }


def front(service: str) -> dict[str, Any]:
    """The Service in front of the pods of both tracks."""
    return {
        "metadata": {"name": service, "labels": {**LABELS, SERVICE: service}},
        "spec": {
            "selector": {SERVICE: service},
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
                {"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "protocol": "TCP"},
            ],
        },
    }
