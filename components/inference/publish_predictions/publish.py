"""Publishes predictions, unless the model knows too little of the values that they were made of."""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

from kfp_hybrid.components.deployment.push_model import publisher
from kfp_hybrid.step import StepError

MANIFEST = "manifest.json"

log = logging.getLogger(__name__)


class Artifact(Protocol):
    """What this module uses of a KFP artifact."""

    path: str
    uri: str
    metadata: dict[str, Any]


def publish(
    predictions: Artifact, destination: str, *, keep: int, max_unfamiliar_fraction: float, lock_timeout: float
) -> tuple[int, str, str]:
    """Publish predictions as the next version of a directory.

    Args:
        predictions: What to publish.
        destination: The directory of the versions.
        keep: How many versions to keep; 0 keeps all.
        max_unfamiliar_fraction: The share of rows in which any one feature may be missing or unknown to the model.
        lock_timeout: How long to wait for another process that publishes there, in seconds.

    Returns:
        The version, where it is, and a sentence that says so.

    Raises:
        StepError: the predictions are none, not all of them, or of unfamiliar values; or they cannot be published.
    """
    if not 0 <= max_unfamiliar_fraction <= 1:
        raise StepError(f"max_unfamiliar_fraction is {max_unfamiliar_fraction}; it must be from 0 to 1")
    facts = _facts(Path(predictions.path))
    feature, fraction = _least_familiar(facts)
    if fraction > max_unfamiliar_fraction:
        raise StepError(
            f"in {fraction:.1%} of the rows {feature} has no value or one that the model has not learned, more than "
            f"max_unfamiliar_fraction ({max_unfamiliar_fraction:g}); nothing was published: look at the data, or "
            "raise the limit"
        )
    reason = f"{facts['rows']:,} rows by model version {facts['model_version']}"
    if fraction:
        reason += f"; {feature} has no value or one that the model has not learned in {fraction:.1%} of them"
    publication = publisher.publish_predictions(
        destination,
        predictions.path,
        reason=reason,
        keep=keep,
        source={"predictions": {"uri": predictions.uri, "metadata": dict(predictions.metadata)}},
        lock_timeout=lock_timeout,
    )
    version = publication.version
    log.info("%s: %s", version.path, reason)
    return version.number, version.path, f"published to {version.path}: {reason}"


def _facts(folder: Path) -> dict[str, Any]:
    """What the job that made the predictions says of itself."""
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("predictions")
    except (OSError, ValueError) as error:
        raise StepError(f"cannot read {folder / MANIFEST}: {error}; give the predictions of predict_batch") from None
    if not facts:
        raise StepError(f"{folder} holds examples and no predictions; give the predictions of predict_batch")
    if "shards" in facts:
        raise StepError(f"{folder} holds a part of predictions; give it to merge_predictions with the others first")
    return dict(facts)


def _least_familiar(facts: dict[str, Any]) -> tuple[str, float]:
    """The feature that is missing or unknown in most rows, and the share of them."""
    counts = Counter(facts["missing"])
    counts.update(facts["unknown"])
    feature, count = max(counts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    return feature, count / facts["rows"] if facts["rows"] else 0.0
