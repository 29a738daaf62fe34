"""Static inference as a job of its own: score files with the published model that is in use."""

from kfp import dsl

from kfp_hybrid.components.data_processing.ingest_examples.component import ingest_examples
from kfp_hybrid.components.inference.publish_predictions.component import publish_predictions
from kfp_hybrid.components.inference.resolve_model.component import resolve_model
from kfp_hybrid.targets import Target


def predict(target: Target) -> dsl.base_component.BaseComponent:
    """The pipeline for `target`."""

    @dsl.pipeline(name="predict", display_name="Predict with a published model")
    def pipeline(
        model_uri: str,
        source: str,
        destination: str,
        key_columns: list = [],
        max_bad_fraction: float = 0.0,
        max_unfamiliar_fraction: float = 1.0,
        keep: int = 0,
    ) -> None:
        """Predict for every row of files with the published model that is in use, and publish the predictions.

        Nothing is taken from an earlier run: a recurring run sees the files and the model as they are when it begins.

        Args:
            model_uri: Where models are published, such as s3://models/flights, whose version in use predicts; or one
                version, such as s3://models/flights/3.
            source: The data: a CSV, Parquet or TFRecord file, a directory or a pattern, with the model's features.
            destination: The directory in which predictions are published, each run's as a version of its own.
            key_columns: The columns to write beside the predictions, such as an identifier.
            max_bad_fraction: The share of rows that may be unreadable before the run fails; they get no prediction.
            max_unfamiliar_fraction: The share of rows in which any one feature may have no value, or one that the model
                has not learned, before the run fails and publishes nothing; 1 for any.
            keep: How many versions of the predictions to keep; 0 for all.
        """
        resolved = resolve_model(model_uri=model_uri)
        target.configure(resolved, secrets=["storage"], cache=False)  # another version may be in use now
        ingested = ingest_examples(source=source, split_ratios={"rows": 1.0}, max_bad_fraction=max_bad_fraction)
        target.configure(ingested, secrets=["storage"], cache=False)  # the source may hold other rows now
        predictions = target.predict_batch(  # never from the cache: its inputs are new artifacts
            model=resolved.outputs["model"],
            examples=ingested.outputs["examples"],
            key_columns=key_columns,
            resources="prediction",
        )
        published = publish_predictions(
            predictions=predictions,
            destination=destination,
            keep=keep,
            max_unfamiliar_fraction=max_unfamiliar_fraction,
        )
        target.configure(published, secrets=["storage"], cache=False)  # it changes the destination

    return pipeline
