"""The interface of plan_automl."""

from typing import NamedTuple

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.VALIDATION, install_kfp_package=False)
def plan_automl(
    statistics: dsl.Input[dsl.Artifact],
    schema: dsl.Input[dsl.Artifact],
    label: str,
    task: str = "auto",
    budget_hours: float = 1.0,
    train_split: str = "train",
    eval_split: str = "eval",
    test_split: str = "test",
) -> NamedTuple(  # type: ignore[valid-type]
    "Outputs",
    [
        ("prediction_type", str),
        ("columns", list),
        ("column_specs", dict),
        ("split_values", dict),
        ("budget_milli_node_hours", int),
    ],
):
    """Decide what AutoML of Vertex AI trains on, and check it before training costs anything.

    Args:
        statistics: Statistics of the examples.
        schema: Schema of the examples; the features are those known in the environment SERVING, as in train_model.
        label: Name of the label column.
        task: binary, multiclass or regression; auto decides by the label, as in train_model.
        budget_hours: The training budget, 1 to 72 node hours.
        train_split: Split to train on.
        eval_split: Split that decides between models; without it, a part of train_split does.
        test_split: Split for the final evaluation; without it, half of eval_split is.

    Returns:
        prediction_type: classification or regression.
        columns: The label and the features.
        column_specs: For each feature, whether AutoML decides what it is (auto) or takes it as categorical.
        split_values: For each split, what AutoML calls its rows: TRAIN, VALIDATE or TEST, dealt in turn.
        budget_milli_node_hours: The budget as AutoML counts it.
    """
    from pathlib import Path

    from kfp_hybrid.components.training.plan_automl.plan import Splits, plan
    from kfp_hybrid.step import step

    with step():
        splits = Splits(train_split, eval_split, test_split)
        return plan(Path(statistics.path), Path(schema.path), label, task, budget_hours, splits)
