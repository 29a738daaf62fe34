"""What is to be served: the folder that the server gets, and what it is compared with."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from kfp_hybrid import engines
from kfp_hybrid.components.deployment.export_tflite.request import DEFAULT_LIMITS
from kfp_hybrid.components.deployment.push_model.versions import EDGE
from kfp_hybrid.components.inference.predict_batch import predictors
from kfp_hybrid.components.inference.predict_batch.predictors import Predictor, Tally
from kfp_hybrid.components.inference.validate_serving.comparison import Array
from kfp_hybrid.edge import bundle as edge
from kfp_hybrid.engines import LITERT, TENSORFLOW
from kfp_hybrid.scoring.answer import Answer, find_answer
from kfp_hybrid.scoring.model_files import ModelFiles, model_files
from kfp_hybrid.scoring.saved_model import saved_preprocessing
from kfp_hybrid.step import StepError

ROOM = 1.5  # how much more than what the export measured an exported model may differ from its source


@dataclass(frozen=True)
class Candidate:
    """A model as it will be published.

    Attributes:
        files: The folder that the server gets, with a SavedModel, an edge bundle or both.
        engine: What computes in the server: `LITERT` or `TENSORFLOW`.
    """

    files: ModelFiles
    engine: str


@dataclass(frozen=True)
class Offline:
    """A model computed without a server, as batch prediction and evaluation do it.

    Attributes:
        predictor: Gives the scores.
        answer: What they are about; None when nobody says.
    """

    predictor: Predictor
    answer: Answer | None

    def scores(self, rows: pa.RecordBatch) -> Array:
        """Scores of raw rows, float64 [N, outputs]; NaN where there is no finite one."""
        scores = self.predictor.scores(rows, Tally()).astype("float64")
        scores[abs(scores) == float("inf")] = float("nan")
        return scores


def find_candidate(model: Path | None, bundle: Path | None, engine: str, stack: contextlib.ExitStack) -> Candidate:
    """Find the files, and lay a model and its bundle out as push_model does.

    Args:
        model: The artifact of a SavedModel, or what push_model puts out.
        bundle: The artifact of an edge bundle.
        engine: What is to compute: auto, litert or tensorflow.
        stack: Keeps what has to be fetched or laid out.

    Raises:
        StepError: there is no model, or none that the engine can compute.
    """
    if model is None and bundle is None:
        raise StepError("there is nothing to serve; give model, bundle or both")
    if model and bundle:
        parts = stack.enter_context(model_files(model)).path, stack.enter_context(model_files(bundle)).path
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="candidate-"))) / "1"
        _lay_out(*parts, folder)
        model = folder
    files = stack.enter_context(model_files(model or bundle))  # type: ignore[arg-type]
    chosen = engines.choose(engine, engines.look_in(files.path))
    if engine == TENSORFLOW and files.saved_model is None:
        raise StepError(f"engine is {engine}, but {files.path} holds no SavedModel; give model, or take engine=litert")
    if engine == LITERT and files.bundle is None:
        raise StepError(
            f"engine is {engine}, but {files.path} holds no edge bundle; give bundle, as export_tflite makes"
        )
    return Candidate(files, chosen)


def _lay_out(model: Path, bundle: Path, folder: Path) -> None:
    """Give the files of both a second name in one folder; a copy where that cannot be."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

    shutil.copytree(model, folder, copy_function=link, ignore=shutil.ignore_patterns(EDGE))
    shutil.copytree(bundle, folder / EDGE, copy_function=link)


def open_saved_model(path: Path, task: str, classes: Sequence[Any]) -> Offline:
    """A SavedModel by its `serving_default`, which is what evaluate_model has judged.

    Args:
        path: Its folder.
        task: What its scores are about if it does not say; "auto" for nothing.
        classes: The class values, likewise.

    Raises:
        StepError: it cannot be loaded.
    """
    says = saved_preprocessing(path) is not None or task != "auto"
    answer = find_answer(path, None, task, classes) if says else None
    signature, _ = predictors.open_saved_model(path, threads=1)
    return Offline(signature, answer)


def open_bundle(path: Path) -> Offline:
    """An edge bundle on LiteRT in this process.

    Raises:
        StepError: it is damaged.
    """
    return Offline(*predictors.open_bundle(path, threads=1))


def agreement_limits(bundle: Path) -> tuple[float, float]:
    """How far an edge bundle may be from the SavedModel that it was made of.

    It is what export_tflite allows for its kind of quantization, or somewhat more than what the export has measured and
    accepted.

    Returns:
        The mean difference, and the share of the rows whose decision changes.
    """
    manifest = edge.Bundle.open(bundle).manifest
    measured = manifest.get("agreement", {})
    allowed = DEFAULT_LIMITS.get(manifest.get("quantization", ""), DEFAULT_LIMITS["int8"])
    return (
        max(allowed.mean_difference, ROOM * measured.get("mean_difference", 0)),
        max(allowed.flip_fraction, ROOM * measured.get("flip_fraction", 0)),
    )
