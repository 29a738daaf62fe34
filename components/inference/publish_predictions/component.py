"""The interface of publish_predictions."""

from typing import NamedTuple

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def publish_predictions(
    predictions: dsl.Input[dsl.Dataset],
    destination: str,
    keep: int = 0,
    max_unfamiliar_fraction: float = 1.0,
    lock_timeout_seconds: int = 600,
) -> NamedTuple("Outputs", [("version", int), ("uri", str), ("reason", str)]):  # type: ignore[valid-type]
    """Publish predictions as the next version of a directory.

    They appear whole or not at all, the same predictions are never published twice, none are overwritten, and LATEST
    changes last.

    Args:
        predictions: What predict_batch or merge_predictions puts out.
        destination: The directory of the versions, which every run must see under the same path, or a URI (s3://,
            minio:// or gs://BUCKET/FOLDER). It holds predictions alone, no models.
        keep: How many versions to keep; the oldest are deleted first. 0 keeps all.
        max_unfamiliar_fraction: The share of rows in which any one feature may have no value, or one that the model has
            not learned; with more the step fails, and nothing is published. 1 allows all.
        lock_timeout_seconds: How long to wait for another run that publishes to the same destination.

    Returns:
        version: The version in use at the destination, which is these predictions.
        uri: Where they are: the folder of that version.
        reason: What was published where, and which feature the model knows least of, in one sentence.
    """
    from kfp_hybrid.components.inference.publish_predictions.publish import publish
    from kfp_hybrid.step import step

    with step():
        return publish(
            predictions,
            destination,
            keep=keep,
            max_unfamiliar_fraction=max_unfamiliar_fraction,
            lock_timeout=lock_timeout_seconds,
        )
