"""What push_model does with its artifacts: publish or roll back, then leave a pointer to the result."""

import json
import logging
from pathlib import Path
from typing import Any, Protocol

from kfp_hybrid import engines
from kfp_hybrid.components.deployment.push_model import publisher
from kfp_hybrid.components.deployment.push_model.publisher import NotBlessedError, Version
from kfp_hybrid.step import StepError

POINTER = "pushed.json"

log = logging.getLogger(__name__)


class Artifact(Protocol):
    """What this module uses of a KFP artifact."""

    path: str
    uri: str
    metadata: dict[str, Any]


def push(
    *,
    model: Artifact | None,
    bundle: Artifact | None,
    pushed: Artifact,
    destination: str,
    blessed: bool,
    reason: str,
    force: bool,
    keep: int,
    rollback_to: int,
    fail_if_refused: bool,
    lock_timeout: int,
) -> tuple[int, bool]:
    """Publish the model, or go back to an earlier version, and describe the result in the artifact `pushed`.

    Args:
        model: The SavedModel, if any.
        bundle: The edge bundle, if any.
        pushed: Where to leave the pointer; with an empty destination also where to publish.
        destination: The directory of the versions.
        blessed: Whether the gates accepted the model.
        reason: What they said.
        force: Publish a model that is not blessed all the same.
        keep: How many versions to keep; 0 keeps all.
        rollback_to: The version to go back to; 0 publishes.
        fail_if_refused: Whether refusing a model that is not blessed fails the step.
        lock_timeout: How long to wait for another push, in seconds.

    Returns:
        The version that is in use at the destination (0 when the model was refused), and whether it is this model.

    Raises:
        StepError: for whatever keeps the model from being published.
    """
    if rollback_to:
        if rollback_to < 0 or not destination:
            raise StepError(f"rollback_to is {rollback_to}; give an existing version, and the destination it is in")
        version = publisher.rollback(destination, rollback_to, lock_timeout=lock_timeout)
        _point(pushed, destination, version, "rolled back")
        return version.number, False
    try:
        publication = publisher.publish(
            destination or pushed.path,
            model=model.path if model else "",
            bundle=bundle.path if bundle else "",
            blessed=blessed,
            reason=reason,
            force=force,
            keep=keep,
            source={name: _origin(artifact) for name, artifact in (("model", model), ("bundle", bundle)) if artifact},
            lock_timeout=lock_timeout,
        )
    except NotBlessedError as refusal:
        if fail_if_refused:
            raise
        log.warning("nothing was pushed: %s", refusal)
        _point(pushed, destination, None, "refused")
        return 0, False
    _point(pushed, destination, publication.version, "published" if publication.copied else "unchanged")
    return publication.version.number, True


def _origin(artifact: Artifact) -> dict[str, object]:
    return {"uri": artifact.uri, "metadata": dict(artifact.metadata)}


def _point(pushed: Artifact, destination: str, version: Version | None, outcome: str) -> None:
    """Say in the artifact's metadata and in its folder where the model went.

    Without a destination the model lies beside the pointer, wherever the artifact is copied to: its path is ".".
    """
    where = version.destination if version and "://" not in destination else destination
    contents = engines.look(version.files.__contains__) if version else engines.Contents(False, False)
    facts = {
        **contents._asdict(),
        "version": version.number if version else 0,
        "digest": version.digest if version else "",
        "pushed": outcome in ("published", "unchanged"),
        "outcome": outcome,
    }
    pushed.metadata.update(facts, destination=where if destination else pushed.uri)
    folder = Path(pushed.path)
    folder.mkdir(parents=True, exist_ok=True)
    pointer = json.dumps({"destination": where if destination else ".", **facts}, indent=2)
    (folder / POINTER).write_text(pointer + "\n", encoding="utf-8")
