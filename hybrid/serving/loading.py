"""From a path or URI to a model that is ready for rows."""

import contextlib
import logging
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from kfp_hybrid import engines, storage
from kfp_hybrid.edge import bundle as edge
from kfp_hybrid.scoring.difference import largest_difference
from kfp_hybrid.scoring.model_files import POINTER, ModelFiles, model_files, version_files, version_in_use
from kfp_hybrid.serving.servable import LiteRTServable, Servable
from kfp_hybrid.step import StepError

GPU_DEVICE = Path("/dev/nvidiactl")

log = logging.getLogger(__name__)


class ModelSource:
    """Where the versions of a model come from.

    Args:
        place: a path or URI: a model, a published version, a directory of versions, or the pointer of push_model.
        name: what the model is called.
        engine: auto, litert or tensorflow.
    """

    def __init__(self, place: str, name: str, engine: str = "auto") -> None:
        self.place = place
        self._name = name
        self._engine = engine

    def latest(self) -> str:
        """The version that a directory of versions is to be used in; see `version_in_use`.

        Raises:
            StorageError: the place cannot be read.
        """
        if not storage.is_uri(self.place) and (Path(self.place) / POINTER).is_file():
            return ""
        return version_in_use(self.place)

    def load(self, version: str = "") -> Servable:
        """Load a version, and try it with its samples.

        Args:
            version: a version of the directory of versions; "" for the latest, or for what the place itself is.

        Raises:
            UserError: there is no such version, it is damaged, or it does not give the scores that it once gave.
        """
        if version and not version.isalnum():
            raise StepError(f"the version is {version[:40]!r}; give the name of a version, which is a number")
        started = time.perf_counter()
        version = version or self.latest()
        with contextlib.ExitStack() as stack:
            servable = self._open(stack.enter_context(self._files(version)), version)
            difference = warm_up(servable)
        log.info(
            "loaded version %s (%s) in %.2f s; largest difference on its samples %s",
            *(servable.version, servable.engine, time.perf_counter() - started),
            "is not known" if difference is None else f"{difference:.2g}",
        )
        return servable

    def forget(self, version: str) -> None:
        """Remove what loading a version left on this machine: nothing, for it is in memory."""

    def _files(self, version: str) -> contextlib.AbstractContextManager[ModelFiles]:
        if version or storage.is_uri(self.place):
            return version_files(self.place, version)
        return model_files(Path(self.place))

    def _open(self, files: ModelFiles, version: str) -> Servable:
        """Choose the engine, and open the model with it."""
        bundle, saved = files.bundle, files.saved_model
        identity: tuple[str, str, str] = (self._name, version or files.version, files.digest)
        engine = engines.choose(self._engine, engines.look_in(files.path), gpu=_tensorflow_on_gpu())
        if engine == engines.LITERT:
            if bundle is None:
                raise StepError(f"{files.path} has no edge bundle, so LiteRT cannot run it; leave --engine at auto")
            return LiteRTServable(bundle, *identity)
        if not saved:
            edge.Bundle.open(bundle or files.path)  # what it lacks is for it to tell
            raise StepError(f"{files.path} is an edge bundle without a SavedModel; leave --engine at auto")
        if find_spec("tensorflow") is None:
            raise StepError(
                f"{files.path} needs TensorFlow, which this image does not have; "
                "serve it from the image tensorflow, or publish the model with an edge bundle"
            )
        from kfp_hybrid.serving.saved_model import SavedModelServable

        return SavedModelServable(files.path, *identity)


def _tensorflow_on_gpu() -> bool:
    return GPU_DEVICE.exists() and find_spec("tensorflow") is not None


def warm_up(servable: Servable) -> float | None:
    """Predict the samples, one and then all at once, and compare with the scores that came with them.

    Returns:
        The largest difference, as `kfp_hybrid.scoring.difference` measures it; None if no scores came with them.

    Raises:
        StepError: the scores differ by more than they may, or have another shape.
    """
    columns = servable.samples.columns
    first = servable.predict({name: values[:1] for name, values in columns.items()})
    scores = servable.predict(columns)
    if first.shape[1:] != scores.shape[1:] or scores.shape[1] != servable.outputs:
        raise StepError(f"version {servable.version} gives scores of the shape {list(scores.shape)}; it is broken")
    expected = servable.samples.scores
    if expected is None:
        return None
    if scores.shape != expected.shape:
        raise StepError(f"the samples have scores of the shape {list(expected.shape)}, the model {list(scores.shape)}")
    difference = largest_difference(np.concatenate([scores, first]), np.concatenate([expected, expected[:1]]))
    if not difference <= servable.samples.tolerance:
        raise StepError(
            f"version {servable.version} does not give the scores that came with it: they differ by {difference:.2g}, "
            f"more than {servable.samples.tolerance:g}; export and publish it again"
        )
    return difference
