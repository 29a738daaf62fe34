"""Serves a model on plain Kubernetes: a Deployment for the model, one for its canary, a Service in front of both."""

import logging
import re
from dataclasses import dataclass
from typing import Any

from kfp_hybrid.components.deployment.deploy_model import plain_objects as objects
from kfp_hybrid.components.deployment.deploy_model.location import ModelLocation
from kfp_hybrid.components.deployment.deploy_model.names import (
    APPLIED,
    MANAGED_BY,
    MANAGER,
    MODEL_URI,
    PREVIOUS,
    REPLICAS,
    ROLLED_BACK,
    SERVICE,
    TRACK,
    annotations_of,
)
from kfp_hybrid.components.deployment.deploy_model.plain_objects import CANARY, STABLE, Record, read_record
from kfp_hybrid.components.deployment.deploy_model.pods import PodWatch
from kfp_hybrid.components.deployment.deploy_model.request import Request, Result
from kfp_hybrid.components.deployment.deploy_model.rollout import has_served, is_rolled_out
from kfp_hybrid.components.deployment.deploy_model.waiting import Deadline, NotReady, saying_what_stays, wait
from kfp_hybrid.kubernetes_api.cluster import Cluster
from kfp_hybrid.kubernetes_api.kinds import DEPLOYMENTS, PODS, SERVICES, Kind
from kfp_hybrid.kubernetes_api.pods import is_leaving
from kfp_hybrid.step import StepError

HASH = "[bcdfghjklmnpqrstvwxz0-9]+"  # the letters of which Kubernetes makes the names of replica sets

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tracks:
    """What is served, or is to be.

    Attributes:
        stable: The model.
        canary: The one beside it, if any.
        previous: The one before it, if any.
        total: The number of pods without a canary.
        canary_pods: How many of them are the canary's; 0 without one.
        stable_pods: The rest.
        has_served: Whether `stable` was ready once.
    """

    stable: Record
    canary: Record | None
    previous: Record | None
    total: int
    canary_pods: int
    stable_pods: int
    has_served: bool = False


class PlainDeployment:
    """One service on plain Kubernetes.

    Args:
        cluster: Where it is.
        request: What is wanted.
    """

    def __init__(self, cluster: Cluster, request: Request) -> None:
        self._cluster = cluster
        self._request = request
        self._name = f"Deployment {cluster.namespace}/{request.service}"
        self._deadline = Deadline(request.timeout_seconds)
        self._changed = False

    def deploy(self, location: ModelLocation) -> Result:
        """Serve a model; with less than 100 % as a canary beside the one before.

        Raises:
            StepError: it does not get ready.
        """
        live, percent = self._live(), self._request.canary_percent
        record = objects.make_record(self._request, location)
        total = max(self._request.min_replicas, 1)
        if live and live.stable.revision == record.revision:
            return self._reach(Tracks(live.stable, None, live.previous, total, 0, total), "is served")
        if live is None or percent == 100:
            if percent < 100:
                log.info("the first model of a service gets all requests")
            previous = (live.stable if live.has_served else live.previous) if live else None
            return self._reach(Tracks(record, None, previous, total, 0, total), "is served")
        canary_pods, stable_pods = objects.split(total, percent)
        if live.canary and live.canary.revision == record.revision:
            record = live.canary
        wanted = Tracks(live.stable, record, live.previous, total, canary_pods, stable_pods)
        return self._reach(wanted, "is served as a canary")

    def promote(self) -> Result:
        """Give the canary all requests; without one the model has them already.

        Raises:
            StepError: there is no service, or the canary does not get ready in that number.
        """
        live = self._existing()
        if live.canary is None:
            return self._reach(Tracks(live.stable, None, live.previous, live.total, 0, live.total), "is promoted")
        return self._reach(Tracks(live.canary, None, live.stable, live.total, 0, live.total), "is promoted")

    def rollback(self) -> Result:
        """Take the canary away, or go back to the model before.

        Raises:
            StepError: there is neither.
        """
        live = self._existing()
        if live.canary or ROLLED_BACK in live.stable.annotations:
            record, previous = live.stable, live.previous
            if live.canary:
                record = Record({**record.annotations, ROLLED_BACK: live.canary.revision}, record.pod)
        elif live.previous:
            record, previous = live.previous, None
            record = Record({**record.annotations, ROLLED_BACK: live.stable.revision}, record.pod)
        else:
            raise StepError(f"{self._name} has no model before this one; deploy another one")
        return self._reach(Tracks(record, None, previous, live.total, 0, live.total), "is served again")

    def _live(self) -> Tracks | None:
        """What is asked for in the cluster; None when there is nothing.

        Raises:
            StepError: objects of these names are somebody else's.
        """
        stable, canary = (self._own(DEPLOYMENTS, objects.name_of(self._request.service, track))
                          for track in (STABLE, CANARY))  # fmt: skip
        self._own(SERVICES, self._request.service)
        record = read_record(stable, APPLIED)
        if stable is None or record is None:
            return None
        pods = stable["spec"]["replicas"]
        total = int(annotations_of(stable).get(REPLICAS, pods))
        canary_pods = canary["spec"]["replicas"] if canary else 0
        return Tracks(
            stable=record,
            canary=read_record(canary, APPLIED),
            previous=read_record(stable, PREVIOUS),
            total=total,
            canary_pods=canary_pods,
            stable_pods=pods,
            has_served=has_served(stable),
        )

    def _own(self, kind: Kind, name: str) -> dict[str, Any] | None:
        item = self._cluster.get(kind, name)
        if item and not self._request.force and (item["metadata"].get("labels") or {}).get(MANAGED_BY) != MANAGER:
            raise StepError(
                f"the {kind.name} {name} in namespace {self._cluster.namespace} was not made by deploy_model; "
                "choose another service name, or set force=true to take it over"
            )
        return item

    def _existing(self) -> Tracks:
        live = self._live()
        if live is None:
            raise StepError(f"there is no {self._name} made by deploy_model; deploy a model first")
        return live

    def _reach(self, wanted: Tracks, done: str) -> Result:
        """Bring the cluster there in steps that all leave ready pods behind the Service."""
        with saying_what_stays(self._state):
            self._cluster.apply(SERVICES, objects.front(self._request.service), force=self._request.force)
            if wanted.canary:
                self._roll_out(CANARY, wanted.canary, wanted.canary_pods, wanted)
                self._roll_out(STABLE, wanted.stable, wanted.stable_pods, wanted)
            else:
                self._roll_out(STABLE, wanted.stable, wanted.stable_pods, wanted)
                self._remove_canary()
        return self._result(wanted, done)

    def _roll_out(self, track: str, record: Record, replicas: int, wanted: Tracks) -> None:
        """Ask for a Deployment unless it is asked for already, and wait until all its pods are ready."""
        service = self._request.service
        name = objects.name_of(service, track)
        previous = wanted.previous if track == STABLE else None
        item = objects.deployment(service, track, record, replicas, total=wanted.total, previous=previous)
        if not _asks_for(self._cluster.get(DEPLOYMENTS, name), item):
            self._cluster.apply(DEPLOYMENTS, item, force=self._request.force)
            self._changed = True
            log.info("asked for %d pods of Deployment %s with %s", replicas, name, record.annotations[MODEL_URI])
        owners = re.compile(rf"{name}(-{HASH})?")
        pods = PodWatch(self._cluster, f"{SERVICE}={service},{TRACK}={track}", record.revision, owners)

        def look() -> bool | None:
            live = self._cluster.get(DEPLOYMENTS, name)
            if live is None:
                raise NotReady("somebody deleted it")
            if is_rolled_out(live):
                return True
            pods.look()
            return None

        try:
            wait(look, self._deadline)
        except NotReady as error:
            pods.explain()
            raise StepError(
                f"Deployment {self._cluster.namespace}/{name} did not get ready: {error}; pods that were ready before "
                "go on answering; deploy a model that loads, or withdraw this one with action=rollback"
            ) from None

    def _remove_canary(self) -> None:
        """Delete the canary, and wait until its pods get no more requests.

        Raises:
            StepError: pods stay in spite of that.
        """
        name = objects.name_of(self._request.service, CANARY)
        if not self._cluster.get(DEPLOYMENTS, name):
            return
        self._cluster.delete(DEPLOYMENTS, name)
        self._changed = True
        log.info("removed Deployment %s", name)
        labels = f"{SERVICE}={self._request.service},{TRACK}={CANARY}"

        def look() -> bool | None:
            return None if any(not is_leaving(pod) for pod in self._cluster.find(PODS, labels=labels)) else True

        try:
            wait(look, self._deadline)
        except NotReady as error:
            raise StepError(
                f"Deployment {self._cluster.namespace}/{name} was deleted, but its pods did not go: {error}; "
                "delete them by hand"
            ) from None

    def _result(self, wanted: Tracks, done: str) -> Result:
        service, namespace = self._request.service, self._cluster.namespace
        newest = wanted.canary or wanted.stable
        url, uri = f"http://{service}.{namespace}.svc", newest.annotations[MODEL_URI]
        pods = f"{wanted.canary_pods or wanted.stable_pods} of {wanted.canary_pods + wanted.stable_pods} pods"
        share = round(100 * wanted.canary_pods / (wanted.canary_pods + wanted.stable_pods)) or 100
        nothing = "" if self._changed else "; nothing had to be changed"
        summary = f"{uri} {done} by {self._name}: {pods}, so {share} % of the requests, at {url}{nothing}"
        return Result(url, newest.revision, uri, self._changed, summary)

    def _state(self) -> str:
        if not self._changed:
            return f"{self._name} is as it was before this step"
        return (
            f"{self._name} and its canary stay as asked for so far, and the pods that are ready go on answering; "
            "run the step again to see to the end of it"
        )


def _asks_for(live: dict[str, Any] | None, item: dict[str, Any]) -> bool:
    """Whether a live Deployment asks for what `item` asks for."""
    if live is None or live["spec"]["replicas"] != item["spec"]["replicas"]:
        return False
    ours = (APPLIED, PREVIOUS, REPLICAS)
    return all(annotations_of(live).get(name) == annotations_of(item).get(name) for name in ours)
