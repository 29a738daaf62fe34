"""The pods that serve one revision of a model: how they fare, and why not better."""

import logging
import re
import time
from typing import Any

from kfp_hybrid.components.deployment.deploy_model.names import REVISION, annotations_of
from kfp_hybrid.components.deployment.deploy_model.waiting import NotReady
from kfp_hybrid.kubernetes_api.cluster import Cluster
from kfp_hybrid.kubernetes_api.errors import one_line
from kfp_hybrid.kubernetes_api.kinds import PODS
from kfp_hybrid.kubernetes_api.pods import container_statuses, is_leaving, why_unscheduled
from kfp_hybrid.step import StepError

RESTARTS = 1  # a container that ended, was started again, and ended again is not going to recover by itself
PATIENCE_SECONDS = 60.0  # for how long these may pass by themselves:
STUCK = ("ImagePullBackOff", "CreateContainerConfigError", "CreateContainerError")
HOPELESS = ("InvalidImageName", "ErrImageNeverPull")
EVENTS_SHOWN, LOG_LINES, LOGS_SHOWN = 5, 20, 2

log = logging.getLogger(__name__)


class PodWatch:
    """Follows the pods of one revision.

    Args:
        cluster: Where they are.
        labels: The label selector that finds them, with those of other revisions.
        revision: The revision, which the pods carry as an annotation.
        owners: Matches the names of the other objects of the service, whose events count too.
    """

    def __init__(self, cluster: Cluster, labels: str, revision: str, owners: re.Pattern[str]) -> None:
        self._cluster = cluster
        self._labels = labels
        self._revision = revision
        self._owners = owners
        self._pods: list[dict[str, Any]] = []
        self._states: dict[str, str] = {}
        self._stuck_since: dict[str, float] = {}
        self._old_events = {_version(event) for event in self._warnings()}
        self._seen_events = set(self._old_events)

    def look(self) -> None:
        """Log what has changed since the last look.

        Raises:
            NotReady: a container cannot start, or keeps ending.
        """
        pods = self._cluster.find(PODS, labels=self._labels)
        self._pods = [pod for pod in pods if self._is_ours(pod)]
        for pod in self._pods:
            name, state = pod["metadata"]["name"], _state(pod)
            if self._states.get(name) != state:
                self._states[name] = state
                log.info("pod %s: %s", name, state)
        for event in self._warnings():
            if _version(event) not in self._seen_events:
                self._seen_events.add(_version(event))
                log.info("event %s", _told(event))
        for pod in self._pods:
            self._give_up_on(pod)

    def explain(self) -> None:
        """Log the newest warnings, and the end of the logs of containers that are not well."""
        warnings = [event for event in self._warnings() if _version(event) not in self._old_events]
        for event in sorted(warnings, key=_time)[-EVENTS_SHOWN:]:
            log.error("event %s", _told(event))
        all_containers = ((pod, status) for pod in self._pods for status in container_statuses(pod))
        ailing = [(pod, status) for pod, status in all_containers if _has_log_of_trouble(status)]
        for pod, status in ailing[:LOGS_SHOWN]:
            name, container = pod["metadata"]["name"], status["name"]
            if text := self._end_of_log(name, container, ended_before="waiting" in status["state"]):
                log.error("the last lines of container %s of pod %s:\n%s", container, name, text)

    def _end_of_log(self, pod: str, container: str, *, ended_before: bool) -> str:
        try:
            return self._cluster.log(pod, container, previous=ended_before, lines=LOG_LINES).rstrip()
        except StepError as error:
            return f"(no log: {error})"

    def _is_ours(self, pod: dict[str, Any]) -> bool:
        return not is_leaving(pod) and annotations_of(pod).get(REVISION) == self._revision

    def _warnings(self) -> list[dict[str, Any]]:
        ours = {pod["metadata"]["name"] for pod in self._pods}
        names = ((event["involvedObject"].get("name", ""), event) for event in self._cluster.warnings())
        return [event for name, event in names if name in ours or self._owners.fullmatch(name)]

    def _give_up_on(self, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        for status in container_statuses(pod):
            waiting = status.get("state", {}).get("waiting") or {}
            reason, container = waiting.get("reason", ""), status["name"]
            message = one_line(waiting.get("message") or "", 300)
            if reason == "CrashLoopBackOff" and status["restartCount"] >= RESTARTS:
                raise NotReady(f"container {container} of pod {name} keeps ending{_last_end(status)}")
            if reason in HOPELESS:
                raise NotReady(f"container {container} of pod {name} cannot start: {reason}: {message}")
            if reason not in STUCK:
                self._stuck_since.pop(f"{name}/{container}", None)
            elif time.monotonic() - self._stuck_since.setdefault(f"{name}/{container}", time.monotonic()) > (
                PATIENCE_SECONDS
            ):
                raise NotReady(f"container {container} of pod {name} cannot start: {reason}: {message}")


def _is_well(status: dict[str, Any]) -> bool:
    ended = status.get("state", {}).get("terminated")
    return ended["exitCode"] == 0 if ended else bool(status.get("ready"))


def _has_log_of_trouble(status: dict[str, Any]) -> bool:
    has_never_run = "waiting" in status.get("state", {}) and not status["restartCount"]
    return bool(status.get("state")) and not has_never_run and not _is_well(status)


def _last_end(status: dict[str, Any]) -> str:
    end = status.get("lastState", {}).get("terminated")
    return f" ({end.get('reason', 'ended')}, exit status {end['exitCode']})" if end else ""


def _state(pod: dict[str, Any]) -> str:
    """A pod in a few words: the first container that waits, else its phase."""
    for status in container_statuses(pod):
        state = status.get("state", {})
        if waiting := state.get("waiting"):
            return f"container {status['name']} waits: {waiting.get('reason', 'no reason given')}"
        if "running" in state and not status.get("ready"):
            return f"container {status['name']} runs"
        if "terminated" in state and not _is_well(status):
            return f"container {status['name']} ended with exit status {state['terminated']['exitCode']}"
    if why := why_unscheduled(pod):
        return f"not scheduled: {why}"
    return "ready" if pod.get("status", {}).get("containerStatuses") else pod.get("status", {}).get("phase", "Pending")


def _told(event: dict[str, Any]) -> str:
    subject, count = event["involvedObject"], event.get("count") or 1
    times = f", {count} times" if count > 1 else ""
    message = one_line(event.get("message") or "")
    return f"{event.get('reason')} ({subject.get('kind')} {subject.get('name')}{times}): {message}"


def _version(event: dict[str, Any]) -> str:
    return f"{event['metadata'].get('uid')}@{event['metadata'].get('resourceVersion')}"


def _time(event: dict[str, Any]) -> str:
    return event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or ""
