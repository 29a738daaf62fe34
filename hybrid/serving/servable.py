"""A model that is loaded and ready for rows, whatever runs it."""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kfp_hybrid.edge.bundle import SAMPLES
from kfp_hybrid.edge.model import EdgeModel, decisions
from kfp_hybrid.preprocessing import Preprocessing
from kfp_hybrid.scoring.answer import Answer

NUMBER = "number"
TEXT = "text"
INTEGER_CATEGORY = "integer category"

Array = np.ndarray[Any, Any]
Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Feature:
    """One column that a model wants.

    Attributes:
        name: the column.
        kind: "number", "text" or "integer category" (whole numbers that stand for categories).
        datatype: how the Open Inference Protocol calls its type: FP32, INT64, BYTES, ...
        optional: whether a value may be missing.
        vocabulary: the known values of a category as text; None where there is no such list.
        shape: the shape of one value, () for a plain one; -1 is any length.
    """

    name: str
    kind: str
    datatype: str
    optional: bool
    vocabulary: tuple[str, ...] | None = None
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Samples:
    """A few raw rows that come with a model.

    Attributes:
        columns: column name -> N values.
        scores: float32 [N, outputs] that the model gave for them when it was exported; None if nobody noted them.
        tolerance: how far the scores may be from those.
    """

    columns: Columns
    scores: Array | None
    tolerance: float


class Servable(abc.ABC):
    """One version of a model.

    Attributes:
        name: the name it is served under.
        version: its version.
        sha256: the digest of its files.
        engine: "litert" or "tensorflow".
        answer: what its scores are about; None when nobody says.
        features: the columns it wants.
        outputs: scores per row.
        samples: rows to try it with.
        on_inputs: told what the preprocessing made of each batch, in the thread that predicts; None tells nobody.
    """

    engine: str
    answer: Answer | None
    features: tuple[Feature, ...]
    outputs: int
    samples: Samples

    def __init__(self, name: str, version: str, sha256: str) -> None:
        self.name = name
        self.version = version
        self.sha256 = sha256
        self.on_inputs: Callable[[Columns], None] | None = None

    @abc.abstractmethod
    def predict(self, columns: Columns) -> Array:
        """Scores of N >= 1 raw rows. Several threads may call it at once.

        Args:
            columns: feature name -> N values: a list or tuple of Python values, None where one is missing, or an
                array. Each feature must be there.

        Returns:
            float32 [N, outputs]. Binary: the probability of the positive class; regression: the value.

        Raises:
            StepError: the rows cannot be fed to the model.
        """

    def decide(self, scores: Array) -> list[Any] | None:
        """The class of each row of scores [N, outputs]; None where classes are not known."""
        if self.answer is None or not self.answer.classes:
            return None
        return [self.answer.classes[position] for position in decisions(scores)]

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Let go of memory; nothing may be predicted afterwards."""


class LiteRTServable(Servable):
    """An edge bundle on LiteRT, with one interpreter for each thread that predicts.

    Args:
        path: the folder of the bundle.
        name: the name it is served under.
        version: its version.
        sha256: the digest of its files; "" for the bundle's own.

    Raises:
        StepError: there is no bundle, or it is damaged.
    """

    engine = "litert"

    def __init__(self, path: Path, name: str, version: str, sha256: str = "") -> None:
        self._model = model = EdgeModel.open(path)
        bundle = model.bundle
        super().__init__(name, version, sha256 or bundle.sha256)
        self.answer = Answer(model.task, model.label, tuple(model.classes))
        self.outputs = len(self.answer.classes) if self.answer.task == "multiclass" else 1
        self.features = preprocessed(model.preprocessing) if model.preprocessing else _plain(model.inputs)
        samples = bundle.json(SAMPLES)
        scores = np.asarray(samples["scores"], np.float32).reshape(-1, self.outputs)
        self.samples = Samples(samples["rows"], scores, 1e-4 if bundle.quantization == "float32" else 0.02)

    def predict(self, columns: Columns) -> Array:
        """See `Servable`."""
        inputs = self._model.inputs_of(columns)
        if self.on_inputs is not None:
            self.on_inputs(inputs)
        return self._model.scores(inputs)


def preprocessed(preprocessing: Preprocessing) -> tuple[Feature, ...]:
    """The columns that a model behind the preprocessing of this library wants; each value may be missing."""
    numbers = [Feature(f.name, NUMBER, "FP32", True) for f in preprocessing.numeric]
    kinds = {"int": (INTEGER_CATEGORY, "INT64"), "string": (TEXT, "BYTES")}
    categories = [Feature(f.name, *kinds[f.type], True, f.vocabulary) for f in preprocessing.categorical]
    return (*numbers, *categories)


def _plain(inputs: Mapping[str, tuple[np.dtype, int]]) -> tuple[Feature, ...]:
    """The columns of a model that takes them as they are: a missing number is NaN, which integers do not have."""
    return tuple(
        Feature(name, NUMBER, "FP32" if dtype.kind == "f" else "INT64", optional=dtype.kind == "f")
        for name, (dtype, _) in inputs.items()
    )
