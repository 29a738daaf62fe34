"""The ServingRuntime that KServe runs this collection's model server by, made together with the InferenceService.

`manifests/serving` has the same for InferenceServices that are written by hand; there they are for the whole cluster.
A runtime of its own for each service and image keeps a later release from changing what an earlier one has deployed.
"""

from typing import Any

from kfp_hybrid.components.deployment.deploy_model.names import LABELS, fingerprint
from kfp_hybrid.components.deployment.deploy_model.request import Request
from kfp_hybrid.components.deployment.deploy_model.servers import DRAIN_SECONDS, DRAIN_TIMEOUT, Server

MODELS = "/mnt/models"  # where KServe puts the model
PORT = 8080


def runtime_name(request: Request) -> str:
    """The name of the runtime that KServe is told to take; "" where it chooses."""
    if not request.brings_runtime:
        return request.runtime
    return f"{request.service}-{fingerprint(runtime(request.model_server, request.server_image))}"


def serving_runtime(request: Request) -> dict[str, Any]:
    """The ServingRuntime; KServe finds it by its name alone."""
    metadata = {"name": runtime_name(request), "labels": LABELS}
    return {"metadata": metadata, "spec": runtime(request.model_server, request.server_image)}


def runtime(server: Server, image: str) -> dict[str, Any]:
    """The specification of a runtime for the model server.

    Args:
        server: Which one.
        image: Its image.
    """
    container = {
        "name": "kserve-container",
        "image": image,
        "command": ["python", "-m", "kfp_hybrid.serving"],
        "args": [
            MODELS,
            "--name={{.Name}}",
            f"--port={PORT}",
            f"--engine={server.engine}",
            f"--drain-delay={DRAIN_SECONDS}",
            f"--drain-timeout={DRAIN_TIMEOUT}",
        ],
        # Knative wants one port, and this name for HTTP/1.1.
        "ports": [{"name": "http1", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": server.ready_path, "port": PORT}, "periodSeconds": 2},
        "livenessProbe": {
            "httpGet": {"path": server.live_path, "port": PORT},
            "periodSeconds": 10,
            "failureThreshold": 6,
        },
        "resources": server.resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "work", "mountPath": "/tmp"}],  # noqa: S108
    }
    return {
        "annotations": {"prometheus.kserve.io/port": str(PORT), "prometheus.kserve.io/path": server.metrics_path},
        "supportedModelFormats": [{"name": server.model_format, "version": "1"}],
        "protocolVersions": ["v1", "v2"],
        "containers": [container],
        "volumes": [{"name": "work", "emptyDir": {}}],
    }
