"""Waiting for a TrainJob, and saying meanwhile how it goes: what its pods wait for, and the log of its first node."""

import collections
import datetime
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from kfp_hybrid.components.training.train_distributed.cluster import log_of, pods_of
from kfp_hybrid.components.training.train_distributed.pods import (
    cause,
    first_failed,
    index_of,
    phase_of,
    state_of,
    text_of,
    time_of,
)
from kfp_hybrid.components.training.train_distributed.train_job import KIND, NODE, TRAIN_JOBS
from kfp_hybrid.kubernetes_api.cluster import Cluster
from kfp_hybrid.kubernetes_api.kinds import PODS
from kfp_hybrid.step import StepError

POLL_SECONDS = 10.0
TAIL_LINES = 30  # of a failed node, for the log of the step
OVERLAP_SECONDS = 5  # between two looks at a log, since the clocks are not the same; lines are known by their times


class TrainingFailed(StepError):
    """The TrainJob has failed, or was not done in time."""


class OutOfTime(TrainingFailed):
    """The TrainJob was not done in time; it may still run."""


def condition(train_job: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The condition of a TrainJob that is `kind`, such as "Complete", if it holds."""
    conditions = (train_job.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind and c.get("status") == "True"), None)


class Watch:
    """Looks at one TrainJob again and again.

    Args:
        cluster: where it is.
        name: its name.
        at_each_look: called each time.
        sleep: waits some seconds between two looks.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        at_each_look: Callable[[], None] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._cluster = cluster
        self._name = name
        self._at_each_look = at_each_look
        self._sleep = sleep
        self._said: dict[str, str] = {}
        self._log = FirstNodeLog(cluster)

    def wait(self, timeout_seconds: float, poll_seconds: float = POLL_SECONDS) -> None:
        """Wait until the TrainJob is complete.

        Args:
            timeout_seconds: the most, since the TrainJob was made; 0 for no end.
            poll_seconds: between two looks.

        Raises:
            TrainingFailed: it has failed, was not done in time, or is gone; with what its pods say.
        """
        while True:
            self._at_each_look()
            job = self._cluster.get(TRAIN_JOBS, self._name)
            if job is None:
                raise TrainingFailed(f"{KIND} {self._where} is gone; somebody has deleted it: run the step again")
            pods = pods_of(self._cluster, self._name)
            self._report(job, pods)
            if condition(job, "Complete"):
                return
            if failed := condition(job, "Failed"):
                raise TrainingFailed(self._explain(failed, pods))
            if timeout_seconds and _age(job) > timeout_seconds:
                raise OutOfTime(self._explain_stuck(pods, timeout_seconds))
            self._sleep(poll_seconds)

    @property
    def _where(self) -> str:
        return f"{self._cluster.namespace}/{self._name}"

    def _report(self, job: Mapping[str, Any], pods: list[dict[str, Any]]) -> None:
        if condition(job, "Suspended"):
            self._say(KIND, "is suspended, waits for its turn")
        for pod in pods:
            self._say(f"{NODE} {index_of(pod)}", state_of(pod))
        waiting = [pod["metadata"]["name"] for pod in pods if phase_of(pod) == "Pending"]
        for kind, name in [(TRAIN_JOBS, self._name), *((PODS, name) for name in waiting)]:
            for event in self._cluster.warnings(kind, name):
                what = f"{event.get('reason')}: {event.get('message')}"
                self._say(event["metadata"]["uid"], what, as_=f"{kind.name} {name}")
        self._log.follow(pods)

    def _say(self, key: str, what: str, as_: str = "") -> None:
        if self._said.get(key) != what:
            self._said[key] = what
            logging.info("%s: %s", as_ or key, " ".join(what.split()))

    def _explain(self, failed: Mapping[str, Any], pods: list[dict[str, Any]]) -> str:
        what = f"{failed.get('reason', '')}: {failed.get('message', '')}".strip(": ") or "no reason given"
        if found := first_failed(pods):
            pod, ending = found
            lines = log_of(self._cluster, pod["metadata"]["name"], lines=TAIL_LINES)
            for line in lines:
                logging.error("%s %d: %s", NODE, index_of(pod), text_of(line))
            what = f"{NODE} {index_of(pod)}: {cause(ending, lines)}"
        elif self._log.last:
            what = f"{what}; last of {NODE} 0: {self._log.last[-1]}"
        return f"the training has failed: {' '.join(what.split())[:500]}; {KIND} {self._where} is kept"

    def _explain_stuck(self, pods: list[dict[str, Any]], seconds: float) -> str:
        states = "; ".join(f"{NODE} {index_of(pod)}: {state_of(pod)}" for pod in pods) or "it has no pods"
        what = " ".join(states.split())[:500]
        return f"the training is not done {seconds:g} s after its start: {what}; raise timeout_seconds, or see why"


class FirstNodeLog:
    """Passes the log of node 0 on, as it grows."""

    def __init__(self, cluster: Cluster):
        self.last: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._cluster = cluster
        self._pod = ""
        self._newest = ""
        self._read_at = 0.0

    def follow(self, pods: list[dict[str, Any]]) -> None:
        """Log the lines that are new."""
        pod = next((pod for pod in pods if index_of(pod) == 0 and phase_of(pod) != "Pending"), None)
        if pod is None:
            return
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        if uid != self._pod:  # a new try of the whole job
            self._pod, self._newest, self._read_at = uid, "", 0.0
        now = time.monotonic()
        since = math.ceil(now - self._read_at) + OVERLAP_SECONDS if self._newest else None
        lines = [line for line in log_of(self._cluster, name, since_seconds=since) if time_of(line) > self._newest]
        for line in lines:
            self.last.append(text_of(line))
            logging.info("%s 0: %s", NODE, text_of(line))
        self._newest = time_of(lines[-1]) if lines else self._newest
        self._read_at = now


def _age(job: Mapping[str, Any]) -> float:
    made = datetime.datetime.fromisoformat(job["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
    return time.time() - made.timestamp()
