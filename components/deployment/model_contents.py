"""What a model holds that is to be deployed, and so which model server can run it."""

from pathlib import Path
from typing import Any, Protocol

from kfp_hybrid import engines
from kfp_hybrid.engines import SERVERS, Contents
from kfp_hybrid.step import StepError
from kfp_hybrid.storage import StorageError, open_store

_OF_ENGINE = {engine: server for server, engine in SERVERS.items()}


class Artifact(Protocol):
    """What this module uses of a KFP artifact."""

    path: str | None
    metadata: dict[str, Any]


def choose_server(server: str, model: Artifact | None, uri: str) -> str:
    """The model server that is to run a model: never auto.

    Args:
        server: One of `engines.SERVERS`; auto chooses by what the model holds.
        model: The model artifact, if any.
        uri: Where the model is.

    Raises:
        StepError: the model lacks what the server runs, or nothing says what it holds.
    """
    contents = _known(model)
    if contents is None:
        if server != "auto":
            return server  # it will tell by itself when something is missing
        contents = _stored(uri)
    engine = engines.choose(SERVERS[server], contents)
    if lacks := engines.missing(engine, contents):
        if server == "auto":
            raise StepError(f"{uri} holds neither a SavedModel nor an edge bundle; give the folder of one version")
        raise StepError(
            f"{uri} has no {lacks}, which server={server} needs; publish the model with one, or set server to auto"
        )
    return _OF_ENGINE[engine]


def _known(model: Artifact | None) -> Contents | None:
    """What the artifact says, or has on this machine; None where it is but a pointer that says nothing."""
    if model is None:
        return None
    if "edge_bundle" in model.metadata:  # push_model says it
        return Contents(*(bool(model.metadata.get(name)) for name in Contents._fields))
    contents = engines.look_in(Path(model.path)) if model.path else None  # KFP has no path for foreign schemes
    return contents if contents and any(contents) else None


def _stored(uri: str) -> Contents:
    """What there is in the object store."""
    try:
        return engines.look(open_store(uri).exists)
    except StorageError as error:
        raise StepError(
            f"cannot see whether {uri} has an edge bundle: {error}; set server to kfp-hybrid if it has, "
            "else to kfp-hybrid-tensorflow"
        ) from None
