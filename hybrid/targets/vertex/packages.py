"""Packages for Vertex AI: written as one document, and looked at before anything is asked of Google Cloud."""

import json
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp import components

from kfp_hybrid.errors import UserError
from kfp_hybrid.lint.rules.values import LIMIT
from kfp_hybrid.package import Package, write_package
from kfp_hybrid.profiles import VertexProfile, image_references
from kfp_hybrid.targets.interface import Component

LONGEST_ID = 128


def write(pipeline: Component, profile: VertexProfile, path: Path) -> None:
    """Write the package of a pipeline: one document, in which each step has the image of the profile.

    Raises:
        UserError: the pipeline asks for what only Kubernetes has, or the file cannot be written.
    """
    if pipeline.platform_spec.platforms:
        raise UserError(
            f"the pipeline {pipeline.name} calls kfp.kubernetes or has a PipelineConfig, and Vertex AI refuses a "
            "package with such settings; leave them to target.configure"
        )
    write_package(_with_images(pipeline, profile), path)


def _with_images(pipeline: Component, profile: VertexProfile) -> Component:
    """The pipeline with the images of the profile in place of those of this collection; others are left alone.

    All references are exchanged here, when the pipeline is written, so that none can be forgotten: also those that
    stand inside of an argument, as in a custom job.
    """
    references = image_references(profile)
    ours = re.compile(rf"(?<![-\w./])(?:{'|'.join(map(re.escape, references))})(?![-\w.@])")
    text = ours.sub(lambda found: references[found[0]], json_format.MessageToJson(pipeline.pipeline_spec))
    changed = components.load_component_from_text(yaml.safe_dump(json.loads(text)))
    changed.description = pipeline.description  # which kfp writes into the head of the file
    return changed


def check_arguments(package: Package, arguments: Mapping[str, Any]) -> None:
    """Refuse values that no step could be started with; their names and types are `Package.arguments`' business.

    Raises:
        UserError: a required one is missing, or one is too large.
    """
    package.arguments(dict(arguments))
    for name, value in arguments.items():
        size = len(json.dumps(value).encode())
        if size >= LIMIT:
            raise UserError(
                f"the value of parameter {name} has {size / 1024:,.0f} KiB, and a step cannot start with 128 KiB or "
                "more; write it to a file in the bucket and pass the file's address"
            )


def job_id(package: Package) -> str:
    """A new id for a run: the pipeline's name, the time, and something that no other command makes at that time."""
    suffix = f"-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    return package.name[: LONGEST_ID - len(suffix)].lower() + suffix
