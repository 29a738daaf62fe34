"""From the place where models are published to the version in use."""

import json
import logging
from pathlib import Path
from typing import Any, Protocol

from kfp_hybrid import storage
from kfp_hybrid.components.deployment.push_model.versions import MANIFEST
from kfp_hybrid.scoring.model_files import POINTER, SIGNS, version_in_use
from kfp_hybrid.step import StepError

log = logging.getLogger(__name__)


class Artifact(Protocol):
    """What this module uses of a KFP artifact."""

    path: str
    metadata: dict[str, Any]


def resolve(place: str, model: Artifact) -> str:
    """Leave a pointer to the version in use in the artifact `model`.

    Args:
        place: A directory of versions, one version, or any folder with a model: a path or URI.
        model: Where to leave the pointer.

    Returns:
        The name of the version.

    Raises:
        StepError: there is no model.
        StorageError: the place cannot be read.
    """
    address, options = _address(place)
    version = version_in_use(address + options)
    if not version:  # the place is a model itself
        address, _, version = address.rpartition("/")
    elif not version.isalnum():
        raise StepError(f"LATEST in {address} holds {version[:40]!r}, which is no version; publish or roll back again")
    store = storage.open_store(f"{address}/{version}{options}")
    if not any(store.exists(name) for name in SIGNS):
        raise StepError(f"there is no model at {address}/{version}: it has none of {', '.join(SIGNS)}; check the name")
    facts = {"destination": address + options, "version": version, "digest": _digest(store)}
    model.metadata.update(facts)
    folder = Path(model.path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / POINTER).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    log.info("version %s of %s", version, address)
    return version


def _address(place: str) -> tuple[str, str]:
    """Where it is, as steps that run elsewhere find it, and the options of the store."""
    location = storage.parse(place)
    if location.scheme == "file":
        return location.prefix, ""
    if not location.prefix:
        raise StepError(f"{place} is a whole bucket; give the folder in it that models are published to")
    _, mark, options = place.partition("?")
    return location.uri, mark + options


def _digest(store: storage.Store) -> str:
    """What push_model noted; "" for a model that something else has put there."""
    try:
        return str(json.loads(store.read(MANIFEST)).get("digest", ""))
    except storage.NotFound:
        return ""
    except (ValueError, AttributeError) as error:
        raise StepError(f"cannot read {store.uri_of(MANIFEST)}: {error}; use another version") from None
