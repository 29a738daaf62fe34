"""The pipelines of this collection, and how one becomes a package."""

import importlib
import pkgutil
from pathlib import Path

from kfp import compiler

from kfp_hybrid import pipelines
from kfp_hybrid.errors import UserError
from kfp_hybrid.targets import Target


def pipeline_names() -> list[str]:
    """The pipelines that `compile_pipeline` knows."""
    return sorted(module.name for module in pkgutil.iter_modules(pipelines.__path__))


def compile_pipeline(name: str, target: Target, package: Path) -> None:
    """Compile the pipeline `name` for `target` into the file `package`.

    Raises:
        UserError: there is no such pipeline.
    """
    if name not in pipeline_names():
        raise UserError(f"there is no pipeline {name}; this collection has: {', '.join(pipeline_names())}")
    module = importlib.import_module(f"kfp_hybrid.pipelines.{name}")
    package.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(getattr(module, name)(target), str(package))
