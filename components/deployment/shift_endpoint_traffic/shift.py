"""Giving all requests of an endpoint to one of its models."""

import logging
from typing import NamedTuple

import tenacity

from kfp_hybrid.components.deployment.vertex_endpoints import (
    LABEL_LENGTH,
    ROLLED_BACK,
    DeployedModel,
    Endpoint,
    find_endpoint,
)
from kfp_hybrid.google_api import ConflictError, GoogleApi
from kfp_hybrid.step import StepError

PROMOTE, ROLLBACK = "promote", "rollback"
ATTEMPTS = 5  # when others change the endpoint at the same time

log = logging.getLogger(__name__)


class Shift(NamedTuple):
    """What was done; the fields are the component's outputs."""

    traffic_split: dict[str, int]
    changed: bool
    summary: str


def shift(api: GoogleApi, parent: str, service: str, action: str, *, undeploy: bool = False) -> Shift:
    """Give all requests of an endpoint to its newest model, or to the one before.

    Args:
        api: Vertex AI.
        parent: The project and region, `projects/PROJECT/locations/REGION`.
        service: The display name of the endpoint.
        action: "promote" or "rollback".
        undeploy: Whether models without requests are taken off the endpoint afterwards.

    Raises:
        StepError: there is no such endpoint or action, no model to go to, or Vertex AI refuses.
    """
    if action not in (PROMOTE, ROLLBACK):
        raise StepError(f"action is {action}; give {PROMOTE} or {ROLLBACK}")
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(ConflictError),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        before_sleep=lambda state: log.warning("the endpoint %s has changed meanwhile; looking at it again", service),
        reraise=True,
    )
    chosen, changed = attempts(_shift, api, parent, service, action)
    removed = _undeploy_idle(api, parent, service) if undeploy else 0
    done = "gets" if changed else "already got"
    summary = f"model {chosen.model}@{chosen.version or 'default'} {done} all requests of {service}"
    summary += f"; undeployed {removed} without requests" if removed else ""
    log.info("%s", summary)
    return Shift({chosen.id: 100}, changed or bool(removed), summary)


def _shift(api: GoogleApi, parent: str, service: str, action: str) -> tuple[DeployedModel, bool]:
    """The model that now gets all requests, and whether it did not before."""
    endpoint = _existing(api, parent, service)
    chosen = endpoint.models[0] if action == PROMOTE else _before_newest(endpoint, service)
    rolled_back = {model.id for model in endpoint.models if model.rolled_back} - {chosen.id}
    if action == ROLLBACK:
        rolled_back.add(endpoint.models[0].id)
    label = _label([model.id for model in endpoint.models if model.id in rolled_back])
    if chosen.share == 100 and endpoint.labels.get(ROLLED_BACK, "") == label:
        return chosen, False
    labels = {name: value for name, value in endpoint.labels.items() if name != ROLLED_BACK}
    body = {"trafficSplit": {chosen.id: 100}, "labels": labels | ({ROLLED_BACK: label} if label else {})}
    what = f"giving all requests of {service} to model {chosen.model}"
    api.patch(f"v1/{endpoint.name}", body | {"etag": endpoint.etag}, fields="trafficSplit,labels", what=what)
    return chosen, True


def _existing(api: GoogleApi, parent: str, service: str) -> Endpoint:
    endpoint = find_endpoint(api, parent, service)
    if endpoint is None or not endpoint.models:
        what = "model on the endpoint" if endpoint else "endpoint"
        raise StepError(f"there is no {what} {service} in {parent}; deploy a model first")
    return endpoint


def _before_newest(endpoint: Endpoint, service: str) -> DeployedModel:
    """The model to go back to: what answers most now, else the newest that has not failed before."""
    others = endpoint.models[1:]
    answering = [model for model in others if model.share > 0]
    if answering:
        return max(answering, key=lambda model: model.share)
    for model in others:
        if not model.rolled_back:
            return model
    raise StepError(f"the endpoint {service} has no model before {endpoint.models[0].model} to go back to; deploy one")


def _label(ids: list[str]) -> str:
    """The ids, newest first, as the value of a label; the oldest are left out when there are too many."""
    value = "_".join(ids)
    return value if len(value) <= LABEL_LENGTH else value[: LABEL_LENGTH + 1].rpartition("_")[0]


def _undeploy_idle(api: GoogleApi, parent: str, service: str) -> int:
    """Take the models without requests off the endpoint; returns how many there were."""
    endpoint = _existing(api, parent, service)
    idle = [model for model in endpoint.models if not model.share]
    for model in idle:
        what = f"undeploying model {model.model} from {service}"
        try:
            operation = api.post(f"v1/{endpoint.name}:undeployModel", {"deployedModelId": model.id}, what=what)
            api.wait(operation, what=what)
        except StepError:
            if any(left.id == model.id for left in _existing(api, parent, service).models):
                raise  # else an earlier request, whose answer was lost, has done it
    return len(idle)
