"""The interface of resolve_model."""

from typing import NamedTuple

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def resolve_model(model_uri: str, model: dsl.Output[dsl.Model]) -> NamedTuple("Outputs", [("version", str)]):  # type: ignore[valid-type]
    """Find the version of a published model that is in use now, for the steps of this run.

    Args:
        model_uri: Where models are published, as push_model's destination: the version in use is taken. Or one version
            of it, or any folder with a model. A URI (s3://, minio:// or gs://), or a path that every step sees.

    Returns:
        model: A pointer to that version, as push_model puts it out; nothing is copied. Metadata: destination, version
            and digest.
        version: The name of the version, which is a number where push_model has published it.
    """
    from kfp_hybrid.components.inference.resolve_model.resolve import resolve
    from kfp_hybrid.step import step

    with step():
        return (resolve(model_uri, model),)
