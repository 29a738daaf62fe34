"""AutoML on Vertex AI: structured data without code."""

from typing import Any

from google_cloud_pipeline_components.v1.automl.training_job import AutoMLTabularTrainingJobRunOp
from google_cloud_pipeline_components.v1.dataset import TabularDatasetCreateOp
from kfp import dsl

from kfp_hybrid.components.data_processing.export_csv.component import export_csv
from kfp_hybrid.components.training.plan_automl.component import plan_automl
from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import VertexProfile
from kfp_hybrid.targets.vertex.steps import ResourcesFor

NAME = dsl.PIPELINE_JOB_NAME_PLACEHOLDER  # data sets and models are called like the run that makes them
SPLIT_COLUMN = "ml_use"
TASKS = ("auto", "binary", "multiclass", "regression")
BUDGET_HOURS = (1, 72)  # what AutoML takes


def train_tabular(
    profile: VertexProfile,
    resources_for: ResourcesFor,
    *,
    examples: Any,
    statistics: Any,
    schema: Any,
    label: Any,
    task: Any,
    budget_hours: Any = 1.0,
) -> Any:
    """Train on structured data without code; see `Target.train_tabular`.

    Raises:
        UserError: an unknown task, or a budget that AutoML does not take.
    """
    if isinstance(task, str) and task not in TASKS:
        raise UserError(f"task is {task}; give one of: {', '.join(TASKS)}")
    least, most = BUDGET_HOURS
    if isinstance(budget_hours, (int, float)) and not least <= budget_hours <= most:
        raise UserError(f"budget_hours is {budget_hours:g}; AutoML takes {least} to {most} node hours")
    plan = plan_automl(statistics=statistics, schema=schema, label=label, task=task, budget_hours=budget_hours)
    table = export_csv(
        examples=examples,
        columns=plan.outputs["columns"],
        split_column=SPLIT_COLUMN,
        split_values=plan.outputs["split_values"],
    )
    key = {"encryption_spec_key_name": profile.encryption_key} if profile.encryption_key else {}
    place = {"project": profile.project, "location": profile.location, "labels": profile.labels}
    dataset = TabularDatasetCreateOp(display_name=NAME, gcs_source=table.outputs["source"], **place, **key)
    trained = AutoMLTabularTrainingJobRunOp(
        display_name=NAME,
        dataset=dataset.outputs["dataset"],
        target_column=label,
        column_specs=plan.outputs["column_specs"],  # without, the split column would be a feature
        optimization_prediction_type=plan.outputs["prediction_type"],
        budget_milli_node_hours=plan.outputs["budget_milli_node_hours"],
        predefined_split_column_name=SPLIT_COLUMN,
        model_display_name=NAME,
        model_labels=profile.labels,
        **{f"{what}_{name}": value for what in ("training", "model") for name, value in key.items()},
        **place,
    )
    return trained.outputs["model"]
