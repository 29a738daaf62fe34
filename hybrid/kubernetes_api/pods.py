"""What pods and events say, as far as it is the same for pods of all kinds."""

from collections.abc import Iterator
from typing import Any


def container_statuses(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The states of a pod's containers, those that prepare it first."""
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def why_unscheduled(pod: dict[str, Any]) -> str:
    """Why a pod has no machine, in the scheduler's words; "" when it has one, or was not looked at yet."""
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason") or "no reason given")
    return ""


def is_leaving(pod: dict[str, Any]) -> bool:
    """Whether a pod was told to go; it gets no new requests then."""
    return "deletionTimestamp" in pod["metadata"]
