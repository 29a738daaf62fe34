"""Packages for Kubeflow: every step gets the images, the nodes and the security context of the profile.

This is done when the pipeline is written out, not while it is described, so that no step can be forgotten.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format, struct_pb2
from kfp import components
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from kfp_hybrid import images
from kfp_hybrid.errors import UserError
from kfp_hybrid.package import write_package
from kfp_hybrid.profiles import KubeflowProfile, image_references
from kfp_hybrid.targets.interface import Component

PLATFORM = "kubernetes"
RESOURCE_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""What Kubernetes takes: a DNS subdomain."""


def write(pipeline: Component, profile: KubeflowProfile, path: Path) -> None:
    """Write a package of two documents: the pipeline, and what Kubernetes is to do for its steps.

    Raises:
        UserError: the file cannot be written.
    """
    write_package(_completed(pipeline, profile), path)


def write_custom_resources(pipeline: Component, profile: KubeflowProfile, path: Path, version: str) -> None:
    """Write a Pipeline and a PipelineVersion for `kubectl apply`.

    Raises:
        UserError: the version cannot be in the name of a resource, or the file cannot be written.
    """
    completed = _completed(pipeline, profile)
    info = completed.pipeline_spec.pipeline_info
    name = f"{info.name}-{version.replace('+', '-').lower()}"
    if not RESOURCE_NAME.fullmatch(name):
        raise UserError(
            f"{version!r} is no version for a Kubernetes resource: it takes letters, digits, '.' and '-', "
            "ends with a letter or digit, and its name has at most 253 characters"
        )
    options = KubernetesManifestOptions(
        pipeline_name=info.name,
        pipeline_display_name=info.display_name or None,
        pipeline_version_name=name,
        pipeline_version_display_name=version,
        namespace=profile.namespace,
        include_pipeline_manifest=True,
    )
    write_package(completed, path, kubernetes_manifest_format=True, kubernetes_manifest_options=options)


def _completed(pipeline: Component, profile: KubeflowProfile) -> Component:
    """The pipeline with what the profile says of every step."""
    spec = pipeline_spec_pb2.PipelineSpec()
    spec.CopyFrom(pipeline.pipeline_spec)
    platform = pipeline_spec_pb2.PlatformSpec()
    platform.CopyFrom(pipeline.platform_spec)
    configurations = platform.platforms[PLATFORM].deployment_spec.executors
    for label, container in _containers(spec):
        _complete(configurations[label], container, profile)
    documents = [json_format.MessageToDict(message) for message in (spec, platform)]
    completed = components.load_component_from_text(yaml.safe_dump_all(documents))
    completed.description = pipeline.description  # which kfp writes into the head of the file
    return completed


def _containers(spec: pipeline_spec_pb2.PipelineSpec) -> Iterator[tuple[str, Any]]:
    """What each step runs, by the label of its executor; an importer runs nothing."""
    for label, executor in spec.deployment_spec["executors"].items():
        if "container" in executor:
            yield label, executor["container"]


def _complete(configuration: struct_pb2.Struct, container: Any, profile: KubeflowProfile) -> None:
    """Add what the step lacks; what the pipeline says of a step stays."""
    config = json_format.ParseDict(json_format.MessageToDict(configuration), kubernetes_pb2.KubernetesExecutorConfig())
    for key, value in profile.node_selector.items():
        config.node_selector.labels.setdefault(key, value)
    for toleration in profile.tolerations:
        wanted = kubernetes_pb2.Toleration(**toleration.model_dump(exclude_none=True))
        if wanted not in config.tolerations:
            config.tolerations.append(wanted)
    for name in profile.pull_secrets:
        reference = kubernetes_pb2.ImagePullSecret(secret_name=name)
        reference.secret_name_parameter.runtime_value.constant.string_value = name
        if reference not in config.image_pull_secret:
            config.image_pull_secret.append(reference)
    references = image_references(profile)
    if container["image"] in references:
        container["image"] = references[container["image"]]
        if profile.security_context:
            _run_as_the_images_user(config)
    configuration.Clear()
    json_format.ParseDict(json_format.MessageToDict(config), configuration)


def _run_as_the_images_user(config: kubernetes_pb2.KubernetesExecutorConfig) -> None:
    """Foreign images may need another user, or root; those of this collection do not."""
    context = config.security_context
    if not context.HasField("run_as_user"):
        context.run_as_user = images.USER
    if not context.HasField("run_as_group"):
        context.run_as_group = images.USER
    if not context.HasField("run_as_non_root"):
        context.run_as_non_root = True
