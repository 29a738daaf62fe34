"""The first step of the main job alone, on data in an object store."""

from kfp import dsl

from kfp_hybrid.components.data_processing.ingest_examples.component import ingest_examples
from kfp_hybrid.targets import Target


def ingestion(target: Target) -> dsl.base_component.BaseComponent:
    """The pipeline for `target`."""

    @dsl.pipeline(name="ingestion")
    def pipeline(source: str) -> None:
        """Read data with the secret `storage` of the profile.

        Args:
            source: Where they are.
        """
        target.configure(ingest_examples(source=source), secrets=["storage"])

    return pipeline
