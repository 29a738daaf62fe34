"""What a pod of a training tells: which node it is, what it waits for, how and why it ended."""

import dataclasses
import datetime

from kubernetes.client import V1ContainerStatus, V1Pod

from kfp_hybrid.components.training.train_distributed.request import NODE_LOST
from kfp_hybrid.components.training.train_distributed.train_job import NODE

LATEST = datetime.datetime.max.replace(tzinfo=datetime.timezone.utc)


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a pod ended.

    Attributes:
        code: exit status of its container; -1 when the pod was ended as a whole, as by an eviction.
        reason: in one word or two, such as "OOMKilled".
        time: when.
    """

    code: int
    reason: str
    time: datetime.datetime

    def __str__(self) -> str:
        return self.reason if self.code < 0 else f"{self.reason}, exit status {self.code}"


def index_of(pod: V1Pod) -> int:
    """Which node a pod is."""
    return int((pod.metadata.annotations or {}).get("batch.kubernetes.io/job-completion-index", 0))


def ending_of(pod: V1Pod) -> Ending | None:
    """How a pod ended, None when it has not."""
    status = _container(pod)
    if status and (ended := status.state.terminated):
        return Ending(ended.exit_code, ended.reason or "Error", ended.finished_at or LATEST)
    if pod.status.phase == "Failed":
        return Ending(-1, f"{pod.status.reason or 'Failed'} {pod.status.message or ''}".strip(), LATEST)
    return None


def state_of(pod: V1Pod) -> str:
    """What a pod does or waits for, in a few words."""
    if ending := ending_of(pod):
        return f"ended: {ending}"
    status = _container(pod)
    if status and status.state.waiting and status.state.waiting.reason not in (None, "ContainerCreating"):
        return f"waits: {status.state.waiting.reason} {status.state.waiting.message or ''}".strip()
    for one in pod.status.conditions or []:
        if one.type == "PodScheduled" and one.status == "False":
            return f"waits for a machine: {one.message or one.reason}"
    return (pod.status.phase or "unknown").lower()


def first_failed(pods: list[V1Pod]) -> tuple[V1Pod, Ending] | None:
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


def _container(pod: V1Pod) -> V1ContainerStatus | None:
    return next((status for status in pod.status.container_statuses or [] if status.name == NODE), None)
