"""The interface of push_model."""

from typing import NamedTuple, Optional

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def push_model(
    pushed: dsl.Output[dsl.Model],
    model: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045 - kfp knows no other spelling
    bundle: Optional[dsl.Input[dsl.Artifact]] = None,  # noqa: UP045
    blessed: bool = False,
    reason: str = "",
    destination: str = "",
    keep: int = 5,
    force: bool = False,
    rollback_to: int = 0,
    fail_if_refused: bool = False,
    lock_timeout_seconds: int = 600,
) -> NamedTuple("Outputs", [("version", int), ("published", bool)]):  # type: ignore[valid-type]
    """Publish a blessed model as the next version of a directory.

    The new version appears whole or not at all, the same content is never published twice, and LATEST changes last.

    Args:
        model: The SavedModel to publish. Leave it out to publish an edge bundle alone.
        bundle: The edge bundle to publish with the model, in the folder edge/ of the version.
        blessed: Whether the gates accepted the model. One that is not blessed is refused.
        reason: What the gates said, one sentence; noted in the manifest, and shown when the model is refused.
        destination: The directory of the versions, which every run must see under the same path, or a URI (s3://,
            minio:// or gs://BUCKET/FOLDER). Empty publishes into the output artifact itself.
        keep: How many versions to keep; the oldest are deleted first, the one in use never. 0 keeps all.
        force: Publish even if the model is not blessed. The manifest says so.
        rollback_to: Publish nothing and make LATEST point back to this version, after checking its files. 0 publishes.
        fail_if_refused: Fail the step when a model is refused; otherwise it succeeds with nothing pushed.
        lock_timeout_seconds: How long to wait for another push to the same destination.

    Returns:
        pushed: A pointer to the published model: the file pushed.json and metadata with destination, version, digest
            and outcome (published, unchanged, rolled back or refused).
        version: The version in use at the destination; 0 when the model was refused.
        published: Whether that version is this model; False after a refusal and after a rollback.
    """
    from kfp_hybrid.components.deployment.push_model.push import push
    from kfp_hybrid.step import step

    with step():
        return push(
            model=model,
            bundle=bundle,
            pushed=pushed,
            destination=destination,
            blessed=blessed,
            reason=reason,
            force=force,
            keep=keep,
            rollback_to=rollback_to,
            fail_if_refused=fail_if_refused,
            lock_timeout=lock_timeout_seconds,
        )
