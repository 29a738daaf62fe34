"""The reference predictor of an edge bundle: raw rows in, scores out, with numpy and LiteRT only.

`EdgeModel.open("/opt/models/late").predict({"carrier": ["UA"], "distance": [1400]})`
"""

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kfp_hybrid.edge.bundle import LABELS, MODEL, PREPROCESSING, SAMPLES, Bundle
from kfp_hybrid.edge.litert import LiteRTModel
from kfp_hybrid.preprocessing import Preprocessing
from kfp_hybrid.step import StepError

DECISION_THRESHOLD = 0.5


class EdgeModel:
    """A model of an edge bundle; several threads may predict at once.

    Attributes:
        bundle: the bundle, verified when it was opened.
        task: "binary", "multiclass" or "regression".
        label: the label column.
        classes: class values in the order of the scores (binary: the second is the positive class); [] for regression.
        preprocessing: what makes the model's inputs of raw rows; None where they are the columns as they are.
        inputs: the model's inputs by name: their type and their rank, rows included.
    """

    def __init__(self, bundle: Bundle, threads: int = 1):
        labels = bundle.json(LABELS)
        constants = bundle.file(PREPROCESSING)
        self.bundle = bundle
        self.task: str = labels["task"]
        self.label: str = labels["label"]
        self.classes: list[Any] = labels["classes"]
        self.preprocessing = Preprocessing.load(constants) if constants else None
        self._content = (bundle.path / MODEL).read_bytes()
        self._threads = threads
        self._of_thread = threading.local()  # an interpreter belongs to one thread
        self.inputs = self._interpreter().inputs

    @classmethod
    def open(cls, path: str | os.PathLike[str], threads: int = 1) -> "EdgeModel":
        """Open a bundle after checking every file against its manifest.

        Args:
            path: the directory of the bundle.
            threads: threads of one prediction; more than one rarely helps a small model.

        Raises:
            StepError: there is no bundle, or a file of it is missing or damaged.
        """
        return cls(Bundle.open(path), threads)

    def predict(self, rows: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Scores of raw rows.

        Args:
            rows: column name -> N values; None is missing. Columns that the model does not use are ignored.

        Returns:
            float32 [N, 1] (binary: probability of the positive class; regression: the value) or [N, classes].

        Raises:
            StepError: a column is missing, holds values of a wrong type, or columns differ in length.
        """
        if len(lengths := {len(values) for values in rows.values()}) > 1:
            raise StepError(f"the columns have different numbers of rows: {', '.join(map(str, sorted(lengths)))}")
        inputs = self.inputs_of(rows)
        if not len(next(iter(inputs.values()))):
            return np.empty((0, len(self.classes) if self.task == "multiclass" else 1), np.float32)
        return self.scores(inputs)

    def inputs_of(self, rows: Any) -> dict[str, np.ndarray]:
        """The model's inputs, one array [N, ...] for each, of raw rows as for `predict` or in an Arrow record batch.

        Raises:
            StepError: a column is missing, or holds values of a wrong type.
        """
        return self.preprocessing.transform(rows) if self.preprocessing else plain_inputs(rows, self.inputs)

    def scores(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Scores, as `predict` gives them, of the inputs of N >= 1 rows."""
        return self._interpreter().predict(inputs)

    def _interpreter(self) -> LiteRTModel:
        if not hasattr(self._of_thread, "model"):
            self._of_thread.model = LiteRTModel(self._content, self._threads)
        return self._of_thread.model

    def decide(self, rows: Mapping[str, Sequence[Any]]) -> list[Any]:
        """The class of each raw row: probability of at least 0.5, or the most probable of several.

        Args:
            rows: as for `predict`.

        Raises:
            StepError: the model is a regressor, or the rows are wrong as for `predict`.
        """
        if not self.classes:
            raise StepError(f"{self.bundle.path} has no classes (its task is {self.task}); use predict")
        return [self.classes[index] for index in decisions(self.predict(rows))]

    def self_test(self) -> float:
        """Predict the samples of the bundle and return the largest absolute difference from the scores beside them.

        Kernels differ between processors: expect 0 on the kind of machine that made the bundle, about 1e-6 for floats
        and one step of quantization (1/256 of the range) for int8 elsewhere.
        """
        samples = self.bundle.json(SAMPLES)
        return float(np.max(np.abs(self.predict(samples["rows"]) - np.asarray(samples["scores"], np.float32))))


def decisions(scores: np.ndarray) -> np.ndarray:
    """The index of the class that scores [N, 1] or [N, classes] decide for, int64 [N]."""
    if scores.shape[1] == 1:
        return (scores[:, 0] >= DECISION_THRESHOLD).astype(np.int64)
    return np.argmax(scores, axis=1)


def plain_inputs(rows: Any, inputs: Mapping[str, tuple[np.dtype, int]]) -> dict[str, np.ndarray]:
    """Inputs of a model that takes the columns as they are: one array [N] or [N, 1] for each column.

    Args:
        rows: column name -> N values.
        inputs: the model's inputs, which are named after the columns: type and rank.

    Raises:
        StepError: a column is missing, or a value is not a number or is missing where the model takes integers.
    """
    arrays = {}
    for name, (dtype, rank) in inputs.items():
        try:
            values = np.asarray(rows[name], np.float64)
        except KeyError:
            raise StepError(f"column {name!r} is missing in the rows; the model needs it") from None
        except (TypeError, ValueError) as error:
            raise StepError(f"column {name!r} holds a value that is not a number: {error}") from None
        if np.issubdtype(dtype, np.integer) and not np.isfinite(values).all():
            raise StepError(f"column {name!r} has missing values, but the model takes integers there; fill them in")
        arrays[name] = values.astype(dtype).reshape(-1, *[1] * (rank - 1))
    return arrays
