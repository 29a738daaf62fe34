"""The interface of merge_predictions."""

from typing import NamedTuple, Optional

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.TENSORFLOW, install_kfp_package=False)
def merge_predictions(
    predictions: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    part_0: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045 - kfp knows no other spelling
    part_1: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_2: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_3: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_4: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_5: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_6: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_7: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_8: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_9: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_10: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_11: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_12: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_13: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_14: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    part_15: Optional[dsl.Input[dsl.Dataset]] = None,  # noqa: UP045
    to_table: bool = False,
    table_duplicates: str = "error",
) -> NamedTuple("Outputs", [("rows", int)]):  # type: ignore[valid-type]
    """Put the predictions of several predict_batch steps together, which shared the shards of one job.

    Nothing is computed: the files are checked and take their places. What comes out is, byte for byte, what one step
    would have written.

    Args:
        part_0: What predict_batch with shard_index and shard_count put out, or merge_predictions for a part of them.
        part_1: The same of another step.
        part_2: The same of another step.
        part_3: The same of another step.
        part_4: The same of another step.
        part_5: The same of another step.
        part_6: The same of another step.
        part_7: The same of another step.
        part_8: The same of another step.
        part_9: The same of another step.
        part_10: The same of another step.
        part_11: The same of another step.
        part_12: The same of another step.
        part_13: The same of another step.
        part_14: The same of another step.
        part_15: The same of another step.
        to_table: Also write a table, in the folder table of the predictions, from which the model server can answer by
            the key columns without the model. It needs all shards.
        table_duplicates: What happens when a key comes twice in the table: error, or the last row counts.

    Returns:
        predictions: The predictions of all parts. While shards are missing, they say so and can be merged further.
        metrics: The sums of the parts' rows, missing and unknown values.
        rows: How many rows there are.
    """
    from pathlib import Path

    from kfp_hybrid.components.inference.merge_predictions.merge import merge
    from kfp_hybrid.step import step

    with step():
        given = [
            part_0,
            part_1,
            part_2,
            part_3,
            part_4,
            part_5,
            part_6,
            part_7,
            part_8,
            part_9,
            part_10,
            part_11,
            part_12,
            part_13,
            part_14,
            part_15,
        ]
        parts = [Path(part.path) for part in given if part]
        merged = merge(parts, Path(predictions.path), to_table, table_duplicates)
        predictions.metadata.update(merged.metadata)
        for name, value in merged.metrics.items():
            metrics.log_metric(name, value)
        return (merged.rows,)
