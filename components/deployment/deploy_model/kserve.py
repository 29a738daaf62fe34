"""Serves a model with KServe."""

import logging
import re
from collections.abc import Callable
from typing import Any

from kfp_hybrid.components.deployment.deploy_model import inference_service as objects
from kfp_hybrid.components.deployment.deploy_model.inference_service import Record, Status, read_record
from kfp_hybrid.components.deployment.deploy_model.location import ModelLocation
from kfp_hybrid.components.deployment.deploy_model.names import (
    APPLIED,
    MODEL_URI,
    PREVIOUS,
    REVISION,
    ROLLED_BACK,
    annotations_of,
)
from kfp_hybrid.components.deployment.deploy_model.pods import PodWatch
from kfp_hybrid.components.deployment.deploy_model.request import Request, Result
from kfp_hybrid.components.deployment.deploy_model.rollout import has_served, is_rolled_out
from kfp_hybrid.components.deployment.deploy_model.runtime import serving_runtime
from kfp_hybrid.components.deployment.deploy_model.waiting import Deadline, NotReady, saying_what_stays, wait
from kfp_hybrid.kubernetes_api.cluster import Cluster
from kfp_hybrid.kubernetes_api.kinds import CONFIG_MAPS, DEPLOYMENTS, SERVICE_ACCOUNTS, Kind
from kfp_hybrid.step import StepError

INFERENCE_SERVICES = Kind(
    "serving.kserve.io/v1beta1",
    "InferenceService",
    "inferenceservices",
    absent="KServe; install it, or use serving=deployment",
)
SERVING_RUNTIMES = Kind("serving.kserve.io/v1alpha1", "ServingRuntime", "servingruntimes", absent="KServe's runtimes")
REVISIONS = Kind("serving.knative.dev/v1", "Revision", "revisions")
SERVICE_LABEL = "serving.kserve.io/inferenceservice"
SETTLING_SECONDS = 10.0  # after this long, what KServe says is about what it was asked last

log = logging.getLogger(__name__)


class KServe:
    """One InferenceService.

    Args:
        cluster: Where it is.
        request: What is wanted.
    """

    def __init__(self, cluster: Cluster, request: Request) -> None:
        self._cluster = cluster
        self._request = request
        self._name = f"InferenceService {cluster.namespace}/{request.service}"
        self._deadline = Deadline(request.timeout_seconds)
        self._seen: Status | None = None
        self._changed = False

    def deploy(self, location: ModelLocation) -> Result:
        """Serve a model; with less than 100 % as a canary beside the one before.

        Raises:
            StepError: it does not get ready, or KServe cannot split requests here.
        """
        live = self._look()
        record = objects.make_record(self._request, location)
        share = self._wanted_share(live)
        applied = read_record(live.item, APPLIED) if live else None
        is_new = applied is None or applied.revision != record.revision
        if live and not is_new and live.share is None:
            share = None  # it has all requests; as a canary of itself KServe would take them away
        previous = read_record(live.item, PREVIOUS) if live else None
        if live and applied and is_new and self._had_all_requests(live, applied):
            previous = applied
        record = record if is_new or applied is None else applied
        with saying_what_stays(self._state):
            self._apply_companions(location, live)
            if live and live.share is not None:
                # Knative gives requests to the newest revision that is ready, which is the earlier canary until then.
                withheld = 0 if is_new else live.share
                self._ask(record, previous, withheld, live, anew=is_new)
                self._wait(record, lambda status: self._serves(status, record, withheld))
            status = self._ask(
                record, previous, share, self._seen, anew=is_new and (live is None or live.share is None)
            )
            if live is None:
                self._apply_companions(location, status)
            revision = self._wait(record, lambda status: self._serves(status, record, share))
        return self._result(record, revision, share, "is served")

    def promote(self) -> Result:
        """Give the newest model all requests.

        Raises:
            StepError: there is no canary that could take them.
        """
        live, record = self._existing()
        if live.share == 0:
            raise StepError(f"the newest model of {self._name} was rolled back; deploy a model instead of promoting it")
        if live.share is not None and not live.newest_is_ready:
            raise StepError(f"the canary {live.newest} of {self._name} is not ready; wait for it, or roll it back")
        with saying_what_stays(self._state):
            self._ask(record, read_record(live.item, PREVIOUS), None, live)
            revision = self._wait(record, lambda status: self._serves(status, record, None))
        return self._result(record, revision, None, "is promoted")

    def rollback(self) -> Result:
        """Give the requests back to the model before.

        Raises:
            StepError: there is none.
        """
        live, record = self._existing()
        previous = read_record(live.item, PREVIOUS)
        with saying_what_stays(self._state):
            if live.is_knative:
                if not live.has_earlier_revision:
                    raise StepError(f"{self._name} has no model before this one; deploy another one")
                self._ask(record, previous, 0, live)
                revision = self._wait(previous or record, Status.withdrawn_to)
                return self._result(previous, revision, None, "is served again")
            log.info("%s runs without Knative, so that the model before has to start again", self._name)
            if ROLLED_BACK not in record.annotations:
                if previous is None:
                    raise StepError(f"{self._name} has no model before this one; deploy another one")
                record = Record({**previous.annotations, ROLLED_BACK: record.revision}, previous.predictor)
                self._ask(record, None, None, live, anew=True)
            revision = self._wait(record, lambda status: self._serves(status, record, None))
        return self._result(record, revision, None, "is served again")

    def _wanted_share(self, live: Status | None) -> int | None:
        """The share of requests for a new model; None for all, also where there is no model to share with."""
        if self._request.canary_percent == 100:
            return None
        if live and live.is_knative is False:
            raise StepError(
                f"{self._name} runs without Knative, where KServe cannot split requests; "
                "deploy with canary_percent=100, or use serving=deployment"
            )
        if live is None or not live.predictor.get("latestRolledoutRevision"):
            log.info("the first model of a service gets all requests")
            return None
        return self._request.canary_percent

    def _existing(self) -> tuple[Status, Record]:
        live = self._look()
        if live is None:
            raise StepError(f"there is no {self._name}; deploy a model first")
        record = read_record(live.item, APPLIED)
        if record is None:
            raise StepError(f"{self._name} was not made by deploy_model; deploy a model with it first")
        return live, record

    def _ask(
        self, record: Record, previous: Record | None, share: int | None, live: Status | None, *, anew: bool = False
    ) -> Status:
        """Ask KServe to serve `record` with a share of the requests, unless `live` asks for just that."""
        if live and live.share == share and not anew:
            return live
        item = objects.inference_service(self._request.service, record, previous, share)
        self._seen = Status(self._cluster.apply(INFERENCE_SERVICES, item, force=self._request.force))
        self._changed = True
        log.info("asked KServe for %s with %s", record.annotations.get(MODEL_URI), _told(share))
        return self._seen

    def _wait(self, record: Record, reached: Callable[[Status], str]) -> str:
        """Wait until `reached` names the revision that is waited for.

        Raises:
            StepError: that will not come, or not in time; the log says why.
        """
        service = self._request.service
        owners = re.compile(rf"{service}(-predictor.*)?")
        pods = PodWatch(self._cluster, f"{SERVICE_LABEL}={service}", record.revision, owners)
        told: set[str] = set()
        settling = Deadline(SETTLING_SECONDS)

        def look() -> str | None:
            status = self._look()
            if status is None:
                raise NotReady("somebody deleted it")
            if revision := reached(status):
                return revision
            for line in status.conditions():
                if line not in told:
                    told.add(line)
                    log.info("%s", line)
            if status.spec_is_invalid and settling.passed():
                raise NotReady("KServe refuses it")
            pods.look()
            return None

        try:
            return wait(look, self._deadline)
        except NotReady as error:
            pods.explain()
            said = self._seen and (self._seen.failure() or "; ".join(self._seen.conditions()))
            raise StepError(
                f"{self._name} did not get ready: {error}{f' (KServe: {said})' if said else ''}; "
                f"{self._answering()}; deploy a model that loads, or withdraw this one with action=rollback"
            ) from None

    def _serves(self, status: Status, record: Record, share: int | None) -> str:
        """The revision of `record` if it is ready and gets its share of the requests, else "".

        KServe's own fields do not tell: its observedGeneration is that of an object it makes, and until it has looked
        at a change, its conditions are about the model before. So what it made is looked at.
        """
        if status.condition("Ready").get("status") != "True":
            return ""
        if not status.is_knative:
            made = self._deployments_of(record.revision)
            return record.revision if made and all(map(is_rolled_out, made)) else ""
        if not status.newest_is_ready or status.traffic().get(status.newest, 0) != (100 if share is None else share):
            return ""
        newest = self._cluster.get(REVISIONS, status.newest)
        return status.newest if annotations_of(newest).get(REVISION) == record.revision else ""

    def _had_all_requests(self, live: Status, record: Record) -> bool:
        """Whether the model that is asked for was ready once, and not as a canary."""
        if live.is_knative:
            return live.share is None and live.newest_is_ready
        return any(has_served(deployment) for deployment in self._deployments_of(record.revision))

    def _deployments_of(self, revision: str) -> list[dict[str, Any]]:
        """What KServe makes of a revision where there is no Knative."""
        deployments = self._cluster.find(DEPLOYMENTS, labels=f"{SERVICE_LABEL}={self._request.service}")
        return [each for each in deployments if annotations_of(each["spec"]["template"]).get(REVISION) == revision]

    def _result(self, record: Record | None, revision: str, share: int | None, done: str) -> Result:
        uri = record.annotations.get(MODEL_URI, "") if record else ""
        url = self._seen.url if self._seen else ""
        nothing = "" if self._changed else "; nothing had to be changed"
        summary = (
            f"{uri or 'the model before'} {done} by {self._name}: "
            f"revision {revision} gets {_told(share)} at {url}{nothing}"
        )
        return Result(url, revision, uri, self._changed, summary)

    def _apply_companions(self, location: ModelLocation, owner: Status | None) -> None:
        """Make what the InferenceService refers to; it goes away with its owner."""
        request, place = self._request, location.in_kserve_terms()
        companions = []
        if request.brings_runtime:
            companions.append((SERVING_RUNTIMES, serving_runtime(request)))
        if objects.storage_account_name(request):
            companions.append((SERVICE_ACCOUNTS, objects.storage_account(request)))
        if objects.pin_name(request, place):
            companions.append((CONFIG_MAPS, objects.pin(request, place)))
        for kind, item in companions:
            self._cluster.apply(kind, objects.owned_by(item, owner.item) if owner else item, force=request.force)

    def _look(self) -> Status | None:
        item = self._cluster.get(INFERENCE_SERVICES, self._request.service)
        self._seen = Status(item) if item else None
        return self._seen

    def _answering(self) -> str:
        traffic = self._seen.traffic() if self._seen else {}
        if not traffic:
            return "what was served before, if anything, goes on being served"
        return "requests go to " + ", ".join(f"{name} ({percent} %)" for name, percent in sorted(traffic.items()))

    def _state(self) -> str:
        if not self._changed:
            return f"{self._name} is as it was before this step"
        share = self._seen.share if self._seen else None
        return (
            f"KServe goes on giving the newest model of {self._name} {_told(share)}, without this step; "
            f"{self._answering()} now; run the step again to see to the end of it"
        )


def _told(share: int | None) -> str:
    return "all requests" if share is None else f"{share} % of the requests"
