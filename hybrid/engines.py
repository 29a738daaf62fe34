"""What computes a model in the model server, by what the model holds.

One rule for whoever tries a model (validate_serving), deploys it (deploy_model, Vertex AI) or runs it (the server), so
that what was tried is what runs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from kfp_hybrid.scoring.model_files import BUNDLES, SAVED_MODEL

AUTO, LITERT, TENSORFLOW = "auto", "litert", "tensorflow"
ENGINES = (AUTO, LITERT, TENSORFLOW)

SERVERS = {"auto": AUTO, "kfp-hybrid": LITERT, "kfp-hybrid-tensorflow": TENSORFLOW}
"""The engine of this collection's model server, by what a profile or a deployment calls the server."""


class Contents(NamedTuple):
    """What the folder of a model holds."""

    saved_model: bool
    edge_bundle: bool


def look(exists: Callable[[str], bool]) -> Contents:
    """Find out what a folder holds.

    Args:
        exists: Whether there is a file of that name in it.
    """
    return Contents(saved_model=exists(SAVED_MODEL), edge_bundle=any(map(exists, BUNDLES)))


def look_in(folder: Path) -> Contents:
    """Find out what a folder of this machine holds."""
    return look(lambda name: (folder / name).is_file())


def choose(engine: str, contents: Contents, *, gpu: bool = False) -> str:
    """The engine that is to compute a model.

    Args:
        engine: One of `ENGINES`; `AUTO` takes LiteRT for a model with an edge bundle, otherwise TensorFlow.
        contents: What the model holds.
        gpu: Whether there is a GPU for it, which only TensorFlow uses.

    Returns:
        `LITERT` or `TENSORFLOW`.
    """
    if engine != AUTO:
        return engine
    return LITERT if contents.edge_bundle and not (gpu and contents.saved_model) else TENSORFLOW


def missing(engine: str, contents: Contents) -> str:
    """What a model lacks for `LITERT` or `TENSORFLOW`, in words; "" when it has it."""
    if engine == LITERT:
        return "" if contents.edge_bundle else "edge bundle"
    return "" if contents.saved_model else "SavedModel"
