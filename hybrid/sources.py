"""Where pipelines come from: this collection, or a file of the user's own."""

import importlib
import importlib.util
import pkgutil
import types
from pathlib import Path

from kfp_hybrid import pipelines
from kfp_hybrid.errors import UserError
from kfp_hybrid.targets import Target
from kfp_hybrid.targets.interface import Component


def pipeline_names() -> list[str]:
    """The pipelines of this collection."""
    return sorted(module.name for module in pkgutil.iter_modules(pipelines.__path__))


def compile_pipeline(source: str, target: Target, package: Path) -> None:
    """Compile a pipeline for `target` into the file `package`; `source` is what `build` takes.

    Raises:
        UserError: there is no such pipeline, or the package cannot be written.
    """
    target.compile(build(source, target), package)


def build(source: str, target: Target) -> Component:
    """The pipeline for `target`.

    Args:
        source: A pipeline of this collection by name, or the path of a Python file that has a function of the same
            name, which takes the target and returns the pipeline.
        target: Where it will run.

    Raises:
        UserError: there is no such pipeline, or the file is not one.
    """
    module = _load(Path(source)) if source.endswith(".py") else _find(source)
    name = module.__name__.rpartition(".")[2]
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"{module.__file__} has no function {name}(target) that returns a pipeline")
    return function(target)


def _find(name: str) -> types.ModuleType:
    if name not in pipeline_names():
        raise UserError(
            f"there is no pipeline {name}; this collection has: {', '.join(pipeline_names())}; "
            "a file of your own must end in .py, a compiled package in .yaml or .json"
        )
    return importlib.import_module(f"kfp_hybrid.pipelines.{name}")


def _load(file: Path) -> types.ModuleType:
    if not file.is_file():
        raise UserError(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        raise UserError(f"cannot import {file}: {error}") from None
    return module
