"""What a pod of a training tells: which node it is, what it waits for, how and why it ended."""

import dataclasses
from typing import Any

from kfp_hybrid.components.training.train_distributed.request import NODE_LOST
from kfp_hybrid.components.training.train_distributed.train_job import NODE
from kfp_hybrid.kubernetes_api.pods import container_statuses, why_unscheduled

LATEST = "9999-12-31T23:59:59Z"


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a pod ended.

    Attributes:
        code: exit status of its container; -1 when the pod was ended as a whole, as by an eviction.
        reason: in one word or two, such as "OOMKilled".
        time: when, as Kubernetes writes it; such times compare as text.
    """

    code: int
    reason: str
    time: str

    def __str__(self) -> str:
        return self.reason if self.code < 0 else f"{self.reason}, exit status {self.code}"


def index_of(pod: dict[str, Any]) -> int:
    """Which node a pod is."""
    return int((pod["metadata"].get("annotations") or {}).get("batch.kubernetes.io/job-completion-index", 0))


def phase_of(pod: dict[str, Any]) -> str:
    """The phase of a pod, such as "Pending"."""
    return pod.get("status", {}).get("phase") or "Unknown"


def ending_of(pod: dict[str, Any]) -> Ending | None:
    """How a pod ended, None when it has not."""
    if ended := _state(pod).get("terminated"):
        return Ending(ended["exitCode"], ended.get("reason") or "Error", ended.get("finishedAt") or LATEST)
    if phase_of(pod) == "Failed":
        status = pod["status"]
        return Ending(-1, f"{status.get('reason') or 'Failed'} {status.get('message') or ''}".strip(), LATEST)
    return None


def state_of(pod: dict[str, Any]) -> str:
    """What a pod does or waits for, in a few words."""
    if ending := ending_of(pod):
        return f"ended: {ending}"
    waiting = _state(pod).get("waiting") or {}
    if waiting.get("reason") not in (None, "ContainerCreating"):
        return f"waits: {waiting['reason']} {waiting.get('message') or ''}".strip()
    if why := why_unscheduled(pod):
        return f"waits for a machine: {why}"
    return phase_of(pod).lower()


def first_failed(pods: list[dict[str, Any]]) -> tuple[dict[str, Any], Ending] | None:
    """The pod that ended first and not well; one that stopped only because another had gone comes after all others."""
    ended = [(pod, ending) for pod in pods if (ending := ending_of(pod)) and ending.code != 0]
    return min(ended, key=lambda one: (one[1].code == NODE_LOST, one[1].time), default=None)


def cause(ending: Ending, log: list[str]) -> str:
    """Why a pod failed, in one line: what its step said, else how it ended.

    Args:
        ending: how it ended.
        log: the end of its log, with times.
    """
    if "OOMKilled" in ending.reason:
        return f"{ending}; give it more memory in pod.resources, or lower memory_mb"
    lines = [text_of(line) for line in log]
    said = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), "")
    return said or f"{ending}; {lines[-1] if lines else 'no log'}"


def time_of(line: str) -> str:
    """The time in front of a line of a log; times compare as text."""
    return line.partition(" ")[0]


def text_of(line: str) -> str:
    """The line without the time."""
    return line.partition(" ")[2]


def _state(pod: dict[str, Any]) -> dict[str, Any]:
    """The state of the container that trains; empty when it has none yet."""
    return next((status.get("state") or {} for status in container_statuses(pod) if status["name"] == NODE), {})
