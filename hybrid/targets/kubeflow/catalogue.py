"""The pipelines that the console of Kubeflow Pipelines lists."""

from collections.abc import Iterator, Mapping
from typing import Any

import kfp_server_api
import yaml
from google.protobuf import json_format
from google.protobuf.message import Message
from kfp.pipeline_spec import pipeline_spec_pb2

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package
from kfp_hybrid.targets.kubeflow.client import Client, paged
from kfp_hybrid.targets.kubeflow.runs import PAGE_SIZE, as_file, named
from kfp_hybrid.targets.runs import Registration


def register(client: Client, package: Package, version: str) -> Registration:
    """Upload a package as a version of its pipeline, which is made when it is not there; see `Target.register`."""
    pipeline_id = _pipeline(client, package)
    there = client.call(f"list the versions of {package.name}", lambda: list(_versions(client, pipeline_id)))
    for found in there:
        if _is_same(found, package):
            return _registration(client, package, found, new=False)
    if any(found.display_name == version for found in there):
        raise UserError(
            f"pipeline {package.name} has a version {version} with other content; give this one another with --version"
        )
    with as_file(package, caching=True) as file:
        uploaded = client.call(
            f"upload version {version} of {package.name}",
            lambda: client.kfp.upload_pipeline_version(str(file), version, pipeline_id=pipeline_id),
            made=lambda: next((v for v in _versions(client, pipeline_id) if v.display_name == version), None),
        )
    return _registration(client, package, uploaded, new=True)


def _pipeline(client: Client, package: Package) -> str:
    """The id of the pipeline.

    A first upload would make the pipeline too, but it would call its first version like the pipeline itself.
    """
    namespace = client.profile.namespace
    info = package.spec.pipeline_info
    new = kfp_server_api.V2beta1Pipeline(
        name=package.name, display_name=package.name, description=info.description or None, namespace=namespace
    )

    def find() -> kfp_server_api.V2beta1Pipeline | None:
        found = client.kfp.list_pipelines(page_size=1, filter=named(package.name), namespace=namespace)
        return next(iter(found.pipelines or []), None)

    pipeline = client.call(f"look for the pipeline {package.name}", find) or client.call(
        f"make the pipeline {package.name}",
        lambda: client.kfp.pipelines.pipeline_service_create_pipeline(pipeline=new),
        made=find,
    )
    return pipeline.pipeline_id


def _versions(client: Client, pipeline_id: str) -> Iterator[kfp_server_api.V2beta1PipelineVersion]:
    return paged(
        lambda token: client.kfp.list_pipeline_versions(
            pipeline_id, page_token=token, page_size=PAGE_SIZE, sort_by="created_at desc"
        ),
        "pipeline_versions",
    )


def _is_same(found: kfp_server_api.V2beta1PipelineVersion, package: Package) -> bool:
    """Whether a version has the content of a package; the server writes it in another way."""
    theirs = found.pipeline_spec or {}
    ours = [*yaml.safe_load_all(package.text), {}]
    return _content(theirs.get("pipeline_spec", theirs), theirs.get("platform_spec", {})) == _content(*ours[:2])


def _content(pipeline: Mapping[str, Any], platform: Mapping[str, Any]) -> tuple[Message, Message]:
    return (
        json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=True),
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec(), ignore_unknown_fields=True),
    )


def _registration(
    client: Client, package: Package, version: kfp_server_api.V2beta1PipelineVersion, *, new: bool
) -> Registration:
    return Registration(
        name=package.name,
        version=version.display_name,
        url=client.page(f"pipelines/details/{version.pipeline_id}/version/{version.pipeline_version_id}"),
        new=new,
    )
