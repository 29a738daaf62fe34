"""Endpoints of Vertex AI, and how their requests are shared among the models on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kfp_hybrid.google_api import GoogleApi
from kfp_hybrid.step import StepError

ROLLED_BACK = "kfp_hybrid_rolled_back"  # the label of an endpoint with the ids of models that were rolled back
LABEL_LENGTH = 63  # characters in the value of a label


@dataclass(frozen=True)
class DeployedModel:
    """A model on an endpoint.

    Attributes:
        id: What it is called there.
        model: The id of the model in the registry, the last part of its resource name.
        version: Its version there; "" when Vertex AI does not say.
        share: The percentage of requests that it answers.
        rolled_back: Whether it was taken out of use by a rollback.
    """

    id: str
    model: str
    version: str
    share: int
    rolled_back: bool


@dataclass(frozen=True)
class Endpoint:
    """An endpoint.

    Attributes:
        name: Its resource name.
        models: The models on it, the newest first.
        labels: Its labels.
        etag: Stands for this state of it.
    """

    name: str
    models: tuple[DeployedModel, ...]
    labels: Mapping[str, str]
    etag: str


def regional_api(location: str, address: str = "", **options: Any) -> GoogleApi:
    """The interface of Vertex AI in a region, at another address if one is given.

    Raises:
        StepError: there are no credentials here.
    """
    return GoogleApi(address or f"https://{location}-aiplatform.googleapis.com", **options)


def find_named(api: GoogleApi, parent: str, kind: str, name: str) -> dict[str, Any] | None:
    """The one thing with a display name.

    Args:
        api: Vertex AI.
        parent: The project and region, `projects/PROJECT/locations/REGION`.
        kind: "endpoints" or "models".
        name: The display name.

    Returns:
        It, or None when there is none.

    Raises:
        StepError: there are several, or they cannot be listed.
    """
    what = f"looking for {name} among the {kind} of {parent}"
    found = [*api.list(f"v1/{parent}/{kind}", kind, what=what, query={"filter": f'display_name="{name}"'})]
    if len(found) > 1:
        names = ", ".join(item["name"].rpartition("/")[2] for item in found)
        raise StepError(f"{parent} has several {kind} with the display name {name} ({names}); rename or delete others")
    return found[0] if found else None


def find_endpoint(api: GoogleApi, parent: str, service: str) -> Endpoint | None:
    """The endpoint with a display name, or None when there is none.

    Raises:
        StepError: as for `find_named`.
    """
    item = find_named(api, parent, "endpoints", service)
    return _endpoint(item) if item else None


def model_id(name: str) -> tuple[str, str]:
    """The id and the version in the resource name of a model, `projects/.../models/ID@VERSION`; "" for no version."""
    identifier, _, version = name.rpartition("/")[2].partition("@")
    return identifier, version


def _endpoint(item: Mapping[str, Any]) -> Endpoint:
    shares, labels = item.get("trafficSplit", {}), item.get("labels", {})
    rolled_back = labels.get(ROLLED_BACK, "").split("_")
    models = sorted(item.get("deployedModels", []), key=_created, reverse=True)
    return Endpoint(
        item["name"],
        tuple(_deployed(model, int(shares.get(model["id"], 0)), model["id"] in rolled_back) for model in models),
        labels,
        item.get("etag", ""),
    )


def _deployed(item: Mapping[str, Any], share: int, rolled_back: bool) -> DeployedModel:
    identifier, version = model_id(item["model"])
    return DeployedModel(item["id"], identifier, item.get("modelVersionId") or version, share, rolled_back)


def _created(item: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(item["createTime"])
