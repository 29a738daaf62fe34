"""One batch prediction in several steps, as many as its resources have nodes."""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from kfp_hybrid.components.inference.merge_predictions.component import merge_predictions
from kfp_hybrid.components.inference.predict_batch.component import predict_batch

PARTS = 16
"""How many parts one merging step takes."""


def predict_in_steps(
    nodes: int,
    configure_predicting: Callable[[dsl.PipelineTask], dsl.PipelineTask],
    configure_merging: Callable[[dsl.PipelineTask], dsl.PipelineTask],
    **inputs: Any,
) -> Any:
    """Predict in one step, or in several side by side whose predictions are then put together.

    Args:
        nodes: How many steps share the work.
        configure_predicting: Says what a step that predicts gets.
        configure_merging: Says what a step that puts predictions together gets.
        inputs: The inputs of `predict_batch`.

    Returns:
        The artifact with the predictions.
    """
    if nodes == 1:
        return configure_predicting(predict_batch(**inputs)).outputs["predictions"]
    parts = []
    for index in range(nodes):
        task = predict_batch(**inputs, shard_index=index, shard_count=nodes)
        parts.append(configure_predicting(task).outputs["predictions"])
    while len(parts) > 1:
        groups = [parts[start : start + PARTS] for start in range(0, len(parts), PARTS)]
        parts = [configure_merging(_merge(group)).outputs["predictions"] for group in groups]
    return parts[0]


def _merge(parts: list[Any]) -> dsl.PipelineTask:
    return merge_predictions(**{f"part_{number}": part for number, part in enumerate(parts)})
