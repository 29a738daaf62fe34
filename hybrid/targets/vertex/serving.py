"""Online serving on Vertex AI: models of the registry on endpoints."""

from typing import Any

from google_cloud_pipeline_components.types.artifact_types import UnmanagedContainerModel, VertexEndpoint, VertexModel
from google_cloud_pipeline_components.v1.endpoint import EndpointCreateOp, ModelDeployOp
from google_cloud_pipeline_components.v1.model import ModelUploadOp
from kfp import dsl

from kfp_hybrid.accelerators import accelerator, vertex_machine
from kfp_hybrid.components.deployment.plan_vertex_deployment.component import plan_vertex_deployment
from kfp_hybrid.components.deployment.shift_endpoint_traffic.component import shift_endpoint_traffic
from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import Resources, VertexProfile
from kfp_hybrid.profiles.models import PREBUILT
from kfp_hybrid.targets import model_server
from kfp_hybrid.targets.vertex.steps import ResourcesFor

MODEL, VERSION = "model", "version"  # what plan_vertex_deployment says is to be uploaded


def deploy(
    profile: VertexProfile, resources_for: ResourcesFor, *, model: Any, service: Any, canary_percent: Any = 100
) -> None:
    """Serve a model online; see `Target.deploy`.

    The machines are those of the resources "serving"; `nodes` is the most of them that serve a model.

    Raises:
        UserError: no machine of Vertex AI has such resources.
    """
    serving = resources_for(model_server.SERVING)
    machines = _machines(serving)
    plan = plan_vertex_deployment(
        model=model,
        service=service,
        project=profile.project,
        location=profile.location,
        canary_percent=canary_percent,
        labels=profile.labels,
        server=model_server.server(profile, serving),
        server_images={**model_server.server_images(profile, serving), "prebuilt": profile.serving_image or PREBUILT},
        api_endpoint=profile.api_endpoint or "",
    ).set_caching_options(False)
    with dsl.If(plan.outputs["deploy"] == True, name="model-is-not-deployed"):  # noqa: E712
        deployed = ModelDeployOp(
            model=model if is_registered(model) else _registered_model(profile, serving, plan, service),
            endpoint=_endpoint(profile, plan, service),
            traffic_split=plan.outputs["traffic_split"],
            # A model that AutoML trained runs in Google's own container, as nobody of this project.
            service_account="" if is_registered(model) else profile.service_account or "",
            **machines,
        )
        deployed.set_caching_options(False)


def shift_traffic(profile: VertexProfile, resources_for: ResourcesFor, *, service: Any, action: Any) -> None:
    """End a canary; see `Target.shift_traffic`."""
    shift_endpoint_traffic(
        service=service,
        action=action,
        project=profile.project,
        location=profile.location,
        api_endpoint=profile.api_endpoint or "",
    ).set_caching_options(False)


def is_registered(model: Any) -> bool:
    """Whether a model artifact is one of Vertex AI's model registry."""
    return model.channel_type.startswith(f"{VertexModel.schema_title}@")


def _files(profile: VertexProfile, serving: Resources, plan: dsl.PipelineTask) -> Any:
    """An artifact for the files of the model on Cloud Storage, and the container that serves them."""
    container: dict[str, Any] = {"imageUri": plan.outputs["server_image"]}
    if profile.server != "prebuilt":  # it finds the model and its routes in Vertex AI's variables
        command = ["python", "-m", "kfp_hybrid.serving", f"--engine={model_server.engine(profile, serving)}"]
        container["command"] = command
    return dsl.importer(
        artifact_uri=plan.outputs["source_uri"],
        artifact_class=UnmanagedContainerModel,
        metadata={"containerSpec": container},
        reimport=True,
    ).output


def _registered_model(profile: VertexProfile, serving: Resources, plan: dsl.PipelineTask, service: Any) -> Any:
    """The model in the registry: uploaded, as a model or as a version of it, unless it has the content already."""
    settings = {
        "display_name": service,
        "location": profile.location,
        "project": profile.project,
        "labels": plan.outputs["labels"],
        "encryption_spec_key_name": profile.encryption_key or "",
    }
    registered = {"artifact_class": VertexModel, "metadata": {"resourceName": plan.outputs["model_name"]}}
    files = _files(profile, serving, plan)
    with dsl.If(plan.outputs["upload"] == MODEL, name="upload-model"):
        first = ModelUploadOp(unmanaged_container_model=files, **settings).set_caching_options(False)
    with dsl.Elif(plan.outputs["upload"] == VERSION, name="upload-version"):
        parent = dsl.importer(artifact_uri=plan.outputs["model_uri"], **registered, reimport=True)
        next_ = ModelUploadOp(unmanaged_container_model=files, parent_model=parent.output, **settings)
        next_.set_caching_options(False)
    with dsl.Else(name="model-is-registered"):
        known = dsl.importer(artifact_uri=plan.outputs["model_uri"], **registered, reimport=True)
    return dsl.OneOf(first.outputs["model"], next_.outputs["model"], known.output)


def _endpoint(profile: VertexProfile, plan: dsl.PipelineTask, service: Any) -> Any:
    """The endpoint of the service, made if it is not there."""
    with dsl.If(plan.outputs["endpoint_exists"] == True, name="endpoint-exists"):  # noqa: E712
        found = dsl.importer(
            artifact_uri=plan.outputs["endpoint_uri"],
            artifact_class=VertexEndpoint,
            metadata={"resourceName": plan.outputs["endpoint_name"]},
            reimport=True,
        )
    with dsl.Else(name="make-endpoint"):
        made = EndpointCreateOp(
            display_name=service,
            location=profile.location,
            project=profile.project,
            labels=profile.labels,
            encryption_spec_key_name=profile.encryption_key or "",
        ).set_caching_options(False)
    return dsl.OneOf(found.output, made.outputs["endpoint"])


def _machines(wanted: Resources) -> dict[str, Any]:
    """What serves a model, as `ModelDeployOp` takes it.

    Raises:
        UserError: no machine of Vertex AI that can serve has such resources.
    """
    row = accelerator(wanted.accelerator) if wanted.accelerator else None
    if row and row.topologies:
        raise UserError(
            f"resources {model_server.SERVING}: endpoints of Vertex AI have no {row.name} here; ask for GPUs or CPUs"
        )
    machine = vertex_machine(wanted.accelerator, wanted.count, wanted.cpu or 0, wanted.memory_gib)
    return {
        "dedicated_resources_machine_type": machine.name,
        "dedicated_resources_min_replica_count": 1,
        "dedicated_resources_max_replica_count": wanted.nodes,
        "dedicated_resources_accelerator_type": (row and row.vertex_type) or "",
        "dedicated_resources_accelerator_count": wanted.count if row else 0,
    }
