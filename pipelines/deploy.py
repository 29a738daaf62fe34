"""Serve a published model online, all at once or as a canary."""

from kfp import dsl

from kfp_hybrid.targets import Target


def deploy(target: Target) -> dsl.base_component.BaseComponent:
    """The pipeline for `target`."""

    @dsl.pipeline(name="deploy", display_name="Deploy a published model")
    def pipeline(model_uri: str, service: str, canary_percent: int = 100) -> None:
        """Serve a published model online.

        Args:
            model_uri: The version of a published model in an object store, such as s3://models/flights/3.
            service: The name of the service; it is made when it is not there.
            canary_percent: The share of requests that the new model answers; the rest goes to the one before.
        """
        imported = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model, reimport=True)
        target.deploy(model=imported.output, service=service, canary_percent=canary_percent)

    return pipeline
