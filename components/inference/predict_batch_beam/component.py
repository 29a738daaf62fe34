"""The interface of predict_batch_beam."""

from typing import NamedTuple

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.VALIDATION, install_kfp_package=False)
def predict_batch_beam(
    examples: dsl.Input[dsl.Dataset],
    bundle: dsl.Input[dsl.Artifact],
    predictions: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    splits: list[str] = [],  # noqa: B006 - kfp copies it into the package
    key_columns: list[str] = [],  # noqa: B006
    decision_threshold: float = 0.5,
    prefix: str = "",
    time: str = "",
    batch_size: int = 16384,
    shard_rows: int = 262144,
    checkpoint_dir: str = "",
    to_table: bool = False,
    table_duplicates: str = "error",
    runner: str = "DirectRunner",
    pipeline_options: list[str] = [],  # noqa: B006
    exchange: str = "",
) -> NamedTuple("Outputs", [("rows", int)]):  # type: ignore[valid-type]
    """Predict for every row of examples with an edge bundle, by Apache Beam's RunInference on the workers of a runner.

    What comes out is what predict_batch writes with the same bundle.

    Args:
        examples: The examples to predict for (from ingest_examples).
        bundle: An edge bundle (from export_tflite), or what push_model puts out for one.
        splits: The splits to predict for; empty for all.
        key_columns: Columns of the examples to write beside the predictions, such as an identifier or the label.
        decision_threshold: A row is predicted positive when its score is at least this (binary only).
        prefix: Put before the names of the columns that this step adds, in case a key column has such a name.
        time: The time to write into each row, ISO 8601 in UTC; empty for the start of the job.
        batch_size: Rows per call of the model.
        shard_rows: Rows of an output file, rounded up to whole row groups of the examples; what a worker does at once.
        checkpoint_dir: Folder for finished shards, from which an interrupted job goes on; empty for
            KFP_HYBRID_CHECKPOINTS if set, otherwise a folder beside the output. Without exchange, workers write there.
        to_table: Also write a table, in the folder table of the predictions, from which the model server can answer by
            the key columns without the model.
        table_duplicates: What happens when a key comes twice in the table: error, or the last row counts.
        runner: The runner, such as DirectRunner, DataflowRunner, FlinkRunner or SparkRunner.
        pipeline_options: The runner's options, such as --direct_num_workers=4.
        exchange: A URI that this step and all workers can read and write, through which they get the examples and the
            model and give shards back; empty when workers see the folders of this step.

    Returns:
        predictions: The key columns, scores, predicted, model_version and predicted_at of every row, as an examples
            artifact with the same splits; its manifest says which model made them.
        metrics: Rows, missing and unknown values by feature, and rows without a score.
        rows: How many rows were predicted.
    """
    from pathlib import Path

    from kfp_hybrid.components.inference.predict_batch.options import Options
    from kfp_hybrid.components.inference.predict_batch.predict import predict
    from kfp_hybrid.components.inference.predict_batch_beam.job import Runner
    from kfp_hybrid.step import step

    with step():
        options = Options(
            splits=splits,
            key_columns=key_columns,
            decision_threshold=decision_threshold,
            prefix=prefix,
            time=time,
            batch_size=batch_size,
            shard_rows=shard_rows,
            checkpoint_dir=checkpoint_dir,
            to_table=to_table,
            table_duplicates=table_duplicates,
        )
        workers = Runner(runner, pipeline_options, exchange)
        output = Path(predictions.path)
        predicted = predict(Path(examples.path), None, Path(bundle.path), output, options, workers)
        predictions.metadata.update(predicted.metadata)
        for name, value in predicted.metrics.items():
            metrics.log_metric(name, value)
        return (predicted.rows,)
