"""How far a Deployment is with its pods."""

from typing import Any


def is_rolled_out(deployment: dict[str, Any]) -> bool:
    """Whether all pods are of the newest template, and ready."""
    status, replicas = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return _is_seen(deployment) and counts == [replicas] * 3


def has_served(deployment: dict[str, Any]) -> bool:
    """Whether the newest template was rolled out once, even if some of its pods are not ready now."""
    conditions = (deployment.get("status") or {}).get("conditions") or []
    reasons = [each.get("reason") for each in conditions if each["type"] == "Progressing"]
    return _is_seen(deployment) and reasons == ["NewReplicaSetAvailable"]


def _is_seen(deployment: dict[str, Any]) -> bool:
    return (deployment.get("status") or {}).get("observedGeneration", 0) >= deployment["metadata"]["generation"]
