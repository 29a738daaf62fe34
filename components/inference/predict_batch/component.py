"""The interface of predict_batch."""

from typing import NamedTuple, Optional

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def predict_batch(
    predictions: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    examples: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045 - kfp knows no other spelling
    model: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
    bundle: Optional[dsl.Input[dsl.Artifact]] = None,  # noqa: UP045
    splits: list[str] = [],  # noqa: B006 - kfp copies it into the package
    key_columns: list[str] = [],  # noqa: B006
    task: str = "auto",
    classes: list = [],  # noqa: B006
    decision_threshold: float = 0.5,
    prefix: str = "",
    time: str = "",
    batch_size: int = 16384,
    shard_rows: int = 262144,
    workers: int = 0,
    checkpoint_dir: str = "",
    shard_index: int = 0,
    shard_count: int = 1,
    to_table: bool = False,
    table_duplicates: str = "error",
    source: str = "",
    format: str = "auto",
    max_bad_fraction: float = 0.0,
) -> NamedTuple("Outputs", [("rows", int)]):  # type: ignore[valid-type]
    """Predict for every row of examples or files, in their order, with a SavedModel or an edge bundle.

    A job that was killed goes on where it stopped, and gives the same bytes as one that was not.

    Args:
        examples: The examples to predict for (from ingest_examples); or give source.
        model: A SavedModel, or what push_model puts out.
        bundle: An edge bundle (from export_tflite). It predicts; a model beside it says how far the two differ.
        splits: The splits to predict for; empty for all.
        key_columns: Columns of the examples to write beside the predictions, such as an identifier or the label.
        task: binary, multiclass or regression. auto takes what the model says; a model that says nothing gets its
            scores written and nothing else.
        classes: Class values in the order of the model's scores, for a model that does not name them.
        decision_threshold: A row is predicted positive when its score is at least this (binary only).
        prefix: Put before the names of the columns that this step adds, in case a key column has such a name.
        time: The time to write into each row, ISO 8601 in UTC; empty for the start of the job.
        batch_size: Rows per call of the model.
        shard_rows: Rows of an output file, rounded up to whole row groups of the examples (131,072 rows as a rule).
        workers: Shards computed at the same time; 0 for one per processor core.
        checkpoint_dir: Folder for finished shards, from which an interrupted job goes on; empty for
            KFP_HYBRID_CHECKPOINTS if set, otherwise a folder beside the output.
        shard_index: Which part of the shards this step predicts, when several steps share them, from 0.
        shard_count: How many steps share the shards; merge_predictions puts their predictions together.
        to_table: Also write a table, in the folder table of the predictions, from which the model server can answer by
            the key columns without the model.
        table_duplicates: What happens when a key comes twice in the table: error, or the last row counts.
        source: Instead of examples, files in CSV, Parquet or TFRecord: a file, folder, pattern or URI, as
            ingest_examples takes it. The predictions have one split, rows.
        format: The format of source: auto, csv, parquet or tfrecord.
        max_bad_fraction: The share of rows of source that may be unreadable; they get no prediction.

    Returns:
        predictions: The key columns, scores, predicted, model_version and predicted_at of every row, as an examples
            artifact with the same splits; its manifest says which model made them.
        metrics: Rows, missing and unknown values by feature, rows without a score, and the largest difference between
            the SavedModel's own signature and what computed the scores.
        rows: How many rows were predicted.
    """
    from pathlib import Path

    from kfp_hybrid.components.inference.predict_batch.options import Options
    from kfp_hybrid.components.inference.predict_batch.predict import predict
    from kfp_hybrid.step import step

    with step():
        options = Options(
            splits=splits,
            key_columns=key_columns,
            task=task,
            classes=classes,
            decision_threshold=decision_threshold,
            prefix=prefix,
            time=time,
            batch_size=batch_size,
            shard_rows=shard_rows,
            workers=workers,
            checkpoint_dir=checkpoint_dir,
            shard_index=shard_index,
            shard_count=shard_count,
            to_table=to_table,
            table_duplicates=table_duplicates,
            source=source,
            format=format,
            max_bad_fraction=max_bad_fraction,
        )
        predicted = predict(
            Path(examples.path) if examples else None,
            Path(model.path) if model else None,
            Path(bundle.path) if bundle else None,
            Path(predictions.path),
            options,
        )
        predictions.metadata.update(predicted.metadata)
        for name, value in predicted.metrics.items():
            metrics.log_metric(name, value)
        return (predicted.rows,)
