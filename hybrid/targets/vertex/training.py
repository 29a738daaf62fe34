"""Training on Vertex AI: as a step of the run where its machine will do, else as a custom job."""

import json
from typing import Any

from google.protobuf import json_format
from google_cloud_pipeline_components.v1.custom_job.component import custom_training_job
from google_cloud_pipeline_components.v1.custom_job.utils import create_custom_training_job_from_component
from kfp import components, dsl

from kfp_hybrid import images
from kfp_hybrid.accelerators import Accelerator, accelerator, vertex_machine
from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import Resources, VertexProfile
from kfp_hybrid.targets.interface import Component
from kfp_hybrid.targets.vertex.steps import ResourcesFor, configure

STANDARD, SPOT = "STANDARD", "SPOT"  # of the API's Scheduling.Strategy


def train(
    profile: VertexProfile,
    resources_for: ResourcesFor,
    component: Component,
    *,
    resources: str = "training",
    **inputs: Any,
) -> dsl.PipelineTask:
    """Train with a training component; see `Target.train`.

    It is a custom job when the resources ask for spot machines, for several nodes, or for an accelerator that no step
    can have. The same module of the same image runs in both; inputs and outputs are the same.

    Raises:
        UserError: no machine of Vertex AI has such resources, or the component cannot train on several of them.
    """
    wanted = resources_for(resources)
    row = accelerator(wanted.accelerator) if wanted.accelerator else None
    inputs |= _strategy(component, wanted, row, inputs)
    if not (wanted.spot or wanted.nodes > 1 or (row and (row.vertex_type is None or row.topologies))):
        return configure(profile, resources_for, component(**inputs), resources=resources)
    job = _custom_job(profile, component, wanted, row)
    return job(**inputs)


def _strategy(
    component: Component, wanted: Resources, row: Accelerator | None, inputs: dict[str, Any]
) -> dict[str, str]:
    """The distribution strategy that makes use of all that the resources have, as an input of the component."""
    if wanted.nodes > 1:
        strategy = "multi_worker"
    elif row and row.topologies:
        strategy = "tpu"
    elif row and wanted.count > 1:
        strategy = "mirrored"
    else:
        return {}
    given = inputs.get("strategy", strategy)
    has_input = "strategy" in (component.component_spec.inputs or {})
    if has_input and (given == strategy or not isinstance(given, str)):  # what a pipeline parameter holds shows later
        return {"strategy": given}
    if strategy == "mirrored":
        return {}  # one of the accelerators is used, as it was asked for
    what = f"trains with strategy {given}" if has_input else "has no input strategy"
    raise UserError(
        f"the resources need training with strategy {strategy}, but {component.name} {what}; "
        "leave strategy out, or ask for one node without TPUs"
    )


def _custom_job(profile: VertexProfile, component: Component, wanted: Resources, row: Accelerator | None) -> Component:
    """The training component as a custom job: one with its inputs and outputs, and all else filled in."""
    if row and row.topologies and wanted.nodes > 1:
        raise UserError(
            f"training on several nodes with {row.name} each is not supported on Vertex AI; ask for one node with more "
            "chips, or for GPUs"
        )
    machine = vertex_machine(wanted.accelerator, wanted.count, wanted.cpu or 0, wanted.memory_gib)
    gpu = row if row and not row.topologies else None  # the machine type of a TPU says which TPU and how many
    attachment = profile.network_attachment
    job = create_custom_training_job_from_component(
        component,
        display_name=component.name,
        replica_count=wanted.nodes,
        machine_type=machine.name,
        accelerator_type=(gpu and gpu.vertex_type) or "",
        accelerator_count=wanted.count,
        strategy=SPOT if wanted.spot else STANDARD,
        restart_job_on_worker_restart=wanted.nodes > 1,
        service_account=profile.service_account or "",
        network=profile.network or "",
        reserved_ip_ranges=profile.reserved_ip_ranges,
        psc_interface_config={"network_attachment": attachment} if attachment else {},
        encryption_spec_key_name=profile.encryption_key or "",
        labels=profile.labels,
    )
    spec = json_format.MessageToDict(job.pipeline_spec)
    _keep_scheduling(spec, component, SPOT if wanted.spot else STANDARD)
    if row and row.topologies:
        for pool in _parameters(spec)["worker_pool_specs"]["defaultValue"]:
            pool["machine_spec"]["tpu_topology"] = row.topologies[wanted.count]
    if gpu:
        spec = json.loads(json.dumps(spec).replace(images.TENSORFLOW, images.TENSORFLOW_GPU))
    return _component(spec, component.name)


def _keep_scheduling(spec: dict[str, Any], component: Component, strategy: str) -> None:
    """Write the scheduling strategy into the job itself.

    The job's own inputs and those of the component share one name space, in which the component's win: its input
    `strategy`, how training is distributed, would otherwise also be the scheduling strategy.

    Raises:
        UserError: another input of the component has the name of one of the job's.
    """
    clashes = {*custom_training_job.component_spec.inputs} & {*(component.component_spec.inputs or {})} - {"strategy"}
    if clashes:
        raise UserError(f"{component.name} cannot be a custom job of Vertex AI: rename its input {min(clashes)}")
    (executor,) = spec["deploymentSpec"]["executors"].values()
    arguments = executor["container"]["args"]
    place = arguments.index("--payload") + 1
    arguments[place] = arguments[place].replace("{{$.inputs.parameters['strategy']}}", strategy)


def _parameters(spec: dict[str, Any]) -> dict[str, Any]:
    (component,) = spec["components"].values()
    return component["inputDefinitions"]["parameters"]


def _component(spec: dict[str, Any], name: str) -> Component:
    component = components.load_component_from_text(json.dumps(spec))
    component.component_spec.name = name
    return component
