"""What turns raw rows into scores: a SavedModel, or an edge bundle on LiteRT.

A SavedModel of train_model is run by its `core` signature where that gives the scores of `serving_default` on rows of
the job. Any other SavedModel is run by `serving_default`.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kfp_hybrid.preprocessing import MISSING_ID, OUT_OF_VOCABULARY_ID, Preprocessing
from kfp_hybrid.quiet_tensorflow import quiet_tensorflow
from kfp_hybrid.scoring.answer import Answer
from kfp_hybrid.scoring.core import Core, find_core
from kfp_hybrid.scoring.difference import largest_difference
from kfp_hybrid.scoring.saved_model import ServingModel, require_columns, saved_preprocessing
from kfp_hybrid.step import StepError

Array = np.ndarray[Any, Any]

_NOTHING = np.empty((0, 0))  # ids of no feature


@dataclass
class Tally:
    """Values that a model does not know, by feature.

    Attributes:
        missing: rows without a value.
        unknown: rows with a value that is not in the vocabulary.
    """

    missing: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Add the counts of other rows."""
        self.missing.update(other.missing)
        self.unknown.update(other.unknown)

    def count_preprocessed(self, preprocessing: Preprocessing, inputs: Mapping[str, Array]) -> None:
        """Count in what `Preprocessing.transform` has made."""
        for numeric, ids in zip(preprocessing.numeric, inputs.get("bucket", _NOTHING).T, strict=True):
            self.missing[numeric.name] += int(np.count_nonzero(ids == MISSING_ID))
        for category, ids in zip(preprocessing.categorical, inputs.get("categorical", _NOTHING).T, strict=True):
            self.missing[category.name] += int(np.count_nonzero(ids == MISSING_ID))
            self.unknown[category.name] += int(np.count_nonzero(ids == OUT_OF_VOCABULARY_ID))

    def count_raw(self, batch: pa.RecordBatch, columns: list[str]) -> None:
        """Count missing values in raw rows."""
        for name in columns:
            self.missing[name] += pc.sum(pc.is_null(batch.column(name), nan_is_null=True)).as_py() or 0


class Predictor(Protocol):
    """Scores of raw rows.

    Attributes:
        columns: the columns it wants.
        texts: those of them whose distinct values are all that it looks at, so that they may come as dictionaries.
    """

    columns: list[str]
    texts: list[str]

    def require(self, available: Mapping[str, str]) -> None:
        """Raise a StepError that names a column which `available` lacks."""

    def scores(self, batch: pa.RecordBatch, tally: Tally) -> Array:
        """Scores of N >= 1 rows, float32 [N, K]; several threads may call it at once."""


class SignaturePredictor:
    """`serving_default` of a SavedModel."""

    def __init__(self, model: ServingModel):
        self._model = model
        self.columns = model.columns
        self.texts = model.text_columns

    def require(self, available: Mapping[str, str]) -> None:
        """See `Predictor`."""
        self._model.require(available)

    def scores(self, batch: pa.RecordBatch, tally: Tally) -> Array:
        """See `Predictor`."""
        tally.count_raw(batch, self.columns)
        return self._model.raw_scores(batch)


class PreprocessedPredictor:
    """A model behind the preprocessing of this library, or behind none.

    Args:
        columns: the columns it wants.
        preprocessing: None for a model that takes the columns as they are.
        run: from the inputs, one array [N, ...] each, to scores float32 [N, K].
        plain_inputs: makes the inputs if there is no preprocessing.
    """

    def __init__(
        self,
        columns: list[str],
        preprocessing: Preprocessing | None,
        run: Callable[[Mapping[str, Array]], Array],
        plain_inputs: Callable[[pa.RecordBatch], Mapping[str, Array]] = dict,
    ):
        self.columns = columns
        self.texts = [feature.name for feature in preprocessing.categorical] if preprocessing else []
        self._preprocessing = preprocessing
        self._run = run
        self._plain_inputs = plain_inputs

    def require(self, available: Mapping[str, str]) -> None:
        """See `Predictor`."""
        require_columns("model", self.columns, available)

    def scores(self, batch: pa.RecordBatch, tally: Tally) -> Array:
        """See `Predictor`."""
        if self._preprocessing is None:
            tally.count_raw(batch, self.columns)
            return self._run(self._plain_inputs(batch))
        inputs = self._preprocessing.transform(batch)
        tally.count_preprocessed(self._preprocessing, inputs)
        return self._run(inputs)


def open_saved_model(path: Path, threads: int) -> tuple[SignaturePredictor, Core | None]:
    """Load a SavedModel.

    Args:
        path: SavedModel directory.
        threads: threads of one operation. TensorFlow takes the number once in a process, before it computes anything.

    Returns:
        What runs `serving_default`, and `core` where the model has that and its preprocessing.

    Raises:
        StepError: it cannot be loaded, or its signature cannot be used.
    """
    with quiet_tensorflow():
        import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # it has computed something in this process
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    model = ServingModel(path, "model")
    return SignaturePredictor(model), find_core(model, saved_preprocessing(path))


def open_bundle(path: Path, threads: int) -> tuple[PreprocessedPredictor, Answer]:
    """Open an edge bundle, and say what its scores are about; TensorFlow is not imported.

    Args:
        path: directory of the bundle.
        threads: threads of one call.

    Raises:
        StepError: there is no bundle, or it is damaged.
    """
    from kfp_hybrid.edge.model import EdgeModel

    model = EdgeModel.open(path, threads)
    columns = model.preprocessing.features if model.preprocessing else list(model.inputs)
    predictor = PreprocessedPredictor(columns, model.preprocessing, model.scores, model.inputs_of)
    return predictor, Answer(model.task, model.label, tuple(model.classes))


def difference_from(reference: Predictor, predictor: Predictor, rows: pa.RecordBatch) -> float:
    """The largest difference of a score of two predictors, as `kfp_hybrid.scoring.difference` measures it."""
    found, expected = (p.scores(rows, Tally()) for p in (predictor, reference))
    if found.shape != expected.shape:
        raise StepError(f"the bundle gives {found.shape[1]} scores per row, the model {expected.shape[1]}; they differ")
    return largest_difference(found, expected)


def faster_if_equal(
    signature: SignaturePredictor, core: Core | None, rows: pa.RecordBatch
) -> tuple[Predictor, float | None]:
    """`core` where it gives the scores of `serving_default` on these rows, and otherwise `serving_default`.

    Returns:
        The predictor and its largest difference from `serving_default`; None if there is nothing to compare.
    """
    if core is None:
        return signature, None
    difference = core.difference(rows, signature.scores(rows, Tally()))
    if difference is None:
        return signature, 0.0
    return PreprocessedPredictor(core.preprocessing.features, core.preprocessing, core.scores), difference
