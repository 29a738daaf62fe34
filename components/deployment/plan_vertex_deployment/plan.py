"""What is there on Vertex AI, and what is missing for a model to be deployed."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from kfp_hybrid import engines
from kfp_hybrid.components.deployment import model_contents
from kfp_hybrid.components.deployment.push_model.versions import MANIFEST
from kfp_hybrid.components.deployment.vertex_endpoints import (
    LABEL_LENGTH,
    DeployedModel,
    find_endpoint,
    find_named,
    model_id,
)
from kfp_hybrid.google_api import GoogleApi
from kfp_hybrid.step import StepError
from kfp_hybrid.storage import StorageError, open_store

NEW = "0"  # what the model that is being deployed is called in a traffic split
DIGEST = "kfp_hybrid_digest"  # the label with what stands for a model's content
SERVER = "kfp_hybrid_server"  # the label with what stands for the container that serves it
MODEL, VERSION, NOTHING = "model", "version", "nothing"  # what to upload
SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")

log = logging.getLogger(__name__)


class Artifact(Protocol):
    """What this module uses of a KFP artifact."""

    uri: str
    path: str | None
    metadata: dict[str, Any]


class Plan(NamedTuple):
    """What to do; the fields are the component's outputs."""

    deploy: bool
    upload: str
    source_uri: str
    model_name: str
    model_uri: str
    endpoint_exists: bool
    endpoint_name: str
    endpoint_uri: str
    server_image: str
    traffic_split: dict[str, str]
    labels: dict[str, str]
    summary: str


@dataclass(frozen=True)
class _Server:
    """The container that serves; "" for a model of the registry, which has its own."""

    image: str = ""
    engine: str = ""

    @property
    def label(self) -> str:
        """Stands for it in a label, whose letters are few."""
        return hashlib.sha256(f"{self.image} {self.engine}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Source:
    """The model to deploy: files on Cloud Storage, or a model of the registry."""

    uri: str = ""
    digest: str = ""
    name: str = ""


def plan(
    api: GoogleApi,
    parent: str,
    model: Artifact,
    service: str,
    canary_percent: int,
    labels: Mapping[str, str],
    server: str,
    server_images: Mapping[str, str],
) -> Plan:
    """Find out what deploying a model takes.

    Args:
        api: Vertex AI.
        parent: The project and region, `projects/PROJECT/locations/REGION`.
        model: The model artifact.
        service: The display name of the endpoint and of the model in the registry.
        canary_percent: The share of requests for the new model.
        labels: Labels for what is uploaded.
        server: What serves it: auto, kfp-hybrid, kfp-hybrid-tensorflow, or another.
        server_images: The images of servers, by their names.

    Raises:
        StepError: the model cannot be served on Vertex AI, a value is wrong, or Vertex AI refuses.
    """
    if not SERVICE.fullmatch(service):
        raise StepError(
            f"service is {service!r}; give a name of up to 63 lower-case letters, digits and hyphens, a letter first, "
            "so that every target can use it"
        )
    if not 0 <= canary_percent <= 100:
        raise StepError(f"canary_percent is {canary_percent}; give a share of requests between 0 and 100")
    source = _source(model)
    serves = _server(server, server_images, model, source)
    upload, name = _registered(api, parent, service, source, serves)
    endpoint = find_endpoint(api, parent, service)
    deployed = endpoint.models if endpoint else ()
    same = [each for each in deployed if upload == NOTHING and _is(each, name)]
    address = f"https://{parent.rpartition('/')[2]}-aiplatform.googleapis.com/v1/"
    made = Plan(
        deploy=not same,
        upload=upload,
        source_uri=source.uri,
        model_name=name,
        model_uri=address + name,
        endpoint_exists=endpoint is not None,
        endpoint_name=endpoint.name if endpoint else "",
        endpoint_uri=address + endpoint.name if endpoint else "",
        server_image=serves.image,
        traffic_split=_traffic_split(deployed, canary_percent),
        labels={**labels, **({DIGEST: source.digest, SERVER: serves.label} if source.digest else {})},
        summary=_summary(service, same, upload, endpoint is not None),
    )
    log.info("%s", made.summary)
    return made


def _source(model: Artifact) -> _Source:
    facts = model.metadata
    if facts.get("resourceName"):
        return _Source(name=str(facts["resourceName"]))
    uri = model.uri
    if "outcome" in facts:  # what push_model put out
        version = int(facts.get("version") or 0)
        if not version:
            raise StepError("push_model refused this model, so there is nothing to deploy; look at the reason it gave")
        uri = f"{str(facts['destination']).rstrip('/')}/{version}"
    if uri.startswith("/gcs/"):
        uri = "gs://" + uri.removeprefix("/gcs/")
    if not uri.startswith("gs://"):
        raise StepError(
            f"the model is at {uri}, where Vertex AI cannot read it; publish it to Cloud Storage "
            "(destination of push_model, such as gs://bucket/models), or copy it there with kfp-hybrid sync"
        )
    return _Source(uri, str(facts.get("digest") or _published_digest(uri))[:LABEL_LENGTH])


def _server(server: str, server_images: Mapping[str, str], model: Artifact, source: _Source) -> _Server:
    """What serves the model.

    Raises:
        StepError: the model lacks what the server needs, or there is no image of it.
    """
    if source.name:
        return _Server()
    if server in engines.SERVERS:
        server = model_contents.choose_server(server, model, source.uri)
    if server not in server_images:
        raise StepError(f"server_images has no image of {server}; it has {', '.join(server_images) or 'none'}")
    return _Server(server_images[server], engines.SERVERS.get(server, ""))


def _published_digest(uri: str) -> str:
    """The digest that push_model left beside the files of a version; "" when something else made them.

    Raises:
        StepError: there are no files.
    """
    try:
        store = open_store(uri)
        if not store.exists():
            raise StepError(f"there is nothing at {uri}; give the folder of a version of the model")
        return json.loads(store.read(MANIFEST)).get("digest", "") if store.stat(MANIFEST) else ""
    except (StorageError, ValueError, AttributeError) as error:
        log.warning("cannot tell what the model at %s contains, so it is taken for a new one: %s", uri, error)
        return ""


def _registered(api: GoogleApi, parent: str, service: str, source: _Source, server: _Server) -> tuple[str, str]:
    """What to upload, and the resource name of the model: with this content in this server, or to get a new version."""
    if source.name:
        return NOTHING, source.name
    model = find_named(api, parent, "models", service)
    if model is None:
        return MODEL, ""
    name = model["name"].partition("@")[0]
    if source.digest:
        what = f"looking at the versions of model {service} of {parent}"
        query = {"filter": f'labels.{DIGEST}="{source.digest}"'}
        for version in api.list(f"v1/{name}:listVersions", "models", what=what, query=query):
            if version.get("labels", {}).get(SERVER) == server.label:
                return NOTHING, f"{name}@{version['versionId']}"
    return VERSION, name


def _is(deployed: DeployedModel, name: str) -> bool:
    """Whether a deployed model is the one with this resource name, of any version if it names none."""
    identifier, version = model_id(name)
    return deployed.model == identifier and version in ("", deployed.version)


def _traffic_split(deployed: tuple[DeployedModel, ...], canary_percent: int) -> dict[str, str]:
    """The shares with the new model: whole numbers that add up to 100, those of 0 left out.

    They are text, which the API takes for numbers: a number would reach it as 10.0 on some ways and as 10 on others.
    """
    total = sum(model.share for model in deployed)
    if not total:
        return {NEW: "100"}
    rest = 100 - canary_percent
    exact = {model.id: rest * model.share / total for model in deployed}
    shares = {name: int(share) for name, share in exact.items()}
    largest_fractions = sorted(exact, key=lambda name: (shares[name] - exact[name], name))
    for name in largest_fractions[: rest - sum(shares.values())]:
        shares[name] += 1
    return {name: str(share) for name, share in {NEW: canary_percent, **shares}.items() if share}


def _summary(service: str, same: list[DeployedModel], upload: str, endpoint_exists: bool) -> str:
    if same:
        return (
            f"this model is on the endpoint {service} already and gets {same[0].share} % of the requests; nothing is "
            "deployed, shift_traffic would change its share"
        )
    uploads = {MODEL: "is uploaded as a new model", VERSION: "is uploaded as a new version", NOTHING: "is registered"}
    where = "joins those on the" if endpoint_exists else "gets a new"
    return f"the model {uploads[upload]} and {where} endpoint {service}"
