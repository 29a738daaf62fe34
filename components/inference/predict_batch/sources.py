"""What predicts in a job: opened, checked against the examples, and compared with its reference."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from kfp_hybrid.components.inference.predict_batch import predictors
from kfp_hybrid.components.inference.predict_batch.predictors import Predictor, Tally
from kfp_hybrid.scoring.answer import Answer, find_answer
from kfp_hybrid.scoring.model_files import ModelFiles, model_files
from kfp_hybrid.scoring.saved_model import saved_preprocessing
from kfp_hybrid.step import StepError


@dataclass(frozen=True)
class Source:
    """Which files predict.

    Attributes:
        files: the model that predicts.
        bundle: the folder of its edge bundle; None if a SavedModel predicts.
        reference: a SavedModel that an edge bundle is compared with.
    """

    files: ModelFiles
    bundle: Path | None = None
    reference: ModelFiles | None = None


@dataclass(frozen=True)
class Opened:
    """What predicts, ready for use.

    Attributes:
        predictor: gives the scores.
        answer: what they are about; None when nobody says.
        outputs: scores per row.
        difference: from `serving_default` of the SavedModel on a sample; None if nothing was compared.
    """

    predictor: Predictor
    answer: Answer | None
    outputs: int
    difference: float | None = None


def find_source(model: Path | None, bundle: Path | None, stack: contextlib.ExitStack) -> Source:
    """Find out what predicts: the bundle if there is one, otherwise the model.

    Args:
        model: the artifact of a SavedModel, or a pointer to a published version.
        bundle: the artifact of an edge bundle, or a pointer to a published version.
        stack: keeps files that had to be fetched.

    Raises:
        StepError: there is nothing, or it is no model.
    """
    files = stack.enter_context(model_files(model)) if model else None
    if bundle:
        edge_files = stack.enter_context(model_files(bundle))
        return Source(edge_files, edge_files.bundle or edge_files.path, files)
    if files is None:
        raise StepError("there is nothing to predict with; give model, bundle or both")
    return Source(files) if files.saved_model else Source(files, files.bundle or files.path)


def open_source(
    source: Source,
    columns: Mapping[str, str],
    sample: pa.RecordBatch | None,
    task: str,
    classes: Sequence[Any],
    threads: int,
) -> Opened:
    """Load what predicts, and try it on a sample.

    Args:
        source: which files.
        columns: column name -> type of the examples.
        sample: a few rows of the examples; None if they have none.
        task: the task for a model that does not name its own; "auto" for none.
        classes: the same for the class values.
        threads: threads of one call.

    Raises:
        StepError: it cannot be loaded, or wants a column that the examples lack.
    """
    if source.bundle:
        predictor, answer = predictors.open_bundle(source.bundle, threads)
        predictor.require(columns)
        difference = None
        if source.reference and sample:
            reference, _ = predictors.open_saved_model(source.reference.path, threads)
            reference.require(columns)
            difference = predictors.difference_from(reference, predictor, sample)
        return Opened(predictor, answer, _outputs(predictor, answer, sample), difference)
    path = source.files.path
    says = saved_preprocessing(path) is not None or task != "auto"
    own = find_answer(path, None, task, classes) if says else None
    signature, core = predictors.open_saved_model(path, threads)
    signature.require(columns)
    if sample is None:
        return Opened(signature, own, _outputs(signature, own, sample))
    faster, difference = predictors.faster_if_equal(signature, core, sample)
    return Opened(faster, own, _outputs(faster, own, sample), difference)


def _outputs(predictor: Predictor, answer: Answer | None, sample: pa.RecordBatch | None) -> int:
    if sample is not None:
        return predictor.scores(sample.slice(0, 1), Tally()).shape[1]
    return len(answer.classes) if answer and answer.task == "multiclass" else 1
