"""Packages for Vertex AI: written as one document, and looked at before anything is asked of Google Cloud."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import compiler

from kfp_hybrid.errors import UserError
from kfp_hybrid.lint import ERROR, Finding
from kfp_hybrid.lint.rules.values import LIMIT
from kfp_hybrid.package import Package, writing
from kfp_hybrid.profiles import VertexProfile
from kfp_hybrid.targets.interface import Component
from kfp_hybrid.targets.packages import use_images

LONGEST_ID = 128


def write(pipeline: Component, profile: VertexProfile, path: Path) -> None:
    """Write the package of a pipeline: one document, in which each step has the image of the profile.

    Raises:
        UserError: the pipeline asks for what only Kubernetes has, or the file cannot be written.
    """
    if pipeline.platform_spec.platforms:
        raise UserError(
            f"the pipeline {pipeline.name} calls kfp.kubernetes or has a PipelineConfig, and Vertex AI refuses a package "
            "with such settings; leave them to target.configure"
        )
    use_images(pipeline, profile)
    with writing(path):
        compiler.Compiler().compile(pipeline, str(path))


def check(package: Package, findings: Sequence[Finding]) -> None:
    """Refuse a package that would fail.

    Args:
        package: A compiled pipeline.
        findings: What the linter has found for Vertex AI.

    Raises:
        UserError: the first of its errors, and how to see them all.
    """
    errors = [finding for finding in findings if finding.level == ERROR]
    if errors:
        first = errors[0]
        place = f"step {first.task}: " if first.task else ""
        others = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise UserError(
            f"{package.name} would fail on Vertex AI: {place}{first.message} ({first.rule.id}){others}; "
            f"{first.rule.mend} See `kfp-hybrid lint PACKAGE --target vertex`"
        )


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
