"""Batch prediction on Vertex AI."""

import functools
from typing import Any

from google_cloud_pipeline_components.v1.batch_predict_job import ModelBatchPredictOp
from kfp import dsl

from kfp_hybrid.accelerators import accelerator, vertex_machine
from kfp_hybrid.components.data_processing.export_csv.component import export_csv
from kfp_hybrid.profiles import Resources, VertexProfile
from kfp_hybrid.targets.interface import NO_COLUMNS
from kfp_hybrid.targets.shards import predict_in_steps
from kfp_hybrid.targets.vertex.serving import is_registered
from kfp_hybrid.targets.vertex.steps import ResourcesFor, configure


def predict_batch(
    profile: VertexProfile,
    resources_for: ResourcesFor,
    *,
    model: Any,
    examples: Any,
    key_columns: Any = NO_COLUMNS,
    resources: str = "",
) -> Any:
    """Predict for all examples; see `Target.predict_batch`.

    A model of this collection is run by the steps that run it on every target, with the same results. One of the model
    registry, which AutoML trained, is run by a batch prediction job of Vertex AI on CSV files, which writes all columns
    beside the predictions.

    Raises:
        UserError: no machine of Vertex AI has such resources.
    """
    wanted = resources_for(resources) if resources else Resources()
    if not is_registered(model):
        configured = functools.partial(configure, profile, resources_for, secrets=["storage"])
        predicting = functools.partial(configured, resources=resources)
        inputs = {"model": model, "examples": examples, "key_columns": key_columns}
        return predict_in_steps(wanted.nodes, predicting, configured, **inputs)
    row = accelerator(wanted.accelerator) if wanted.accelerator else None
    machine = vertex_machine(wanted.accelerator, wanted.count, wanted.cpu or 0, wanted.memory_gib)
    table = export_csv(examples=examples)
    job = ModelBatchPredictOp(
        job_display_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        model=model,
        project=profile.project,
        location=profile.location,
        instances_format="csv",
        predictions_format="csv",
        gcs_source_uris=table.outputs["uris"],
        gcs_destination_output_uri_prefix=f"{profile.pipeline_root.rstrip('/')}/predictions",
        machine_type=machine.name,
        accelerator_type=(row and row.vertex_type) or "",
        accelerator_count=wanted.count if row else 0,
        starting_replica_count=1,
        max_replica_count=wanted.nodes,
        labels=profile.labels,
        encryption_spec_key_name=profile.encryption_key or "",
    )
    return job.outputs["gcs_output_directory"]
