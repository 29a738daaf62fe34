"""A SavedModel on TensorFlow.

A model of train_model is run by its `core` signature where that gives the scores of `serving_default`: on the rows of
the edge bundle beside it, if there is one, and on rows that are made up of the constants of its preprocessing. This is
found out when it is loaded. Any other SavedModel is run by `serving_default`.
"""

import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfp_hybrid.components.deployment.push_model.versions import EDGE
from kfp_hybrid.cores import available_cores
from kfp_hybrid.edge import bundle as edge
from kfp_hybrid.quiet_tensorflow import quiet_tensorflow

with quiet_tensorflow():
    import tensorflow as tf

from kfp_hybrid.scoring.answer import find_answer
from kfp_hybrid.scoring.core import TOLERANCE, find_core, made_up_rows
from kfp_hybrid.scoring.saved_model import SIGNATURE, ServingModel, saved_preprocessing
from kfp_hybrid.serving.servable import NUMBER, TEXT, Array, Columns, Feature, Samples, Servable, preprocessed
from kfp_hybrid.step import StepError

DATATYPES = {tf.float16: "FP16", tf.float32: "FP32", tf.float64: "FP64", tf.string: "BYTES", tf.bool: "BOOL",
             **{getattr(tf, f"{sign}int{bits}"): f"{sign}int{bits}".upper() for sign in ("", "u")
                for bits in (8, 16, 32, 64)}}  # fmt: skip
FILE_OPERATIONS = {"ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "EagerPyFunc", "PyFuncStateless"}

log = logging.getLogger(__name__)


class SavedModelServable(Servable):
    """A SavedModel on TensorFlow.

    Args:
        path: its folder; an edge bundle in the folder `edge` gives sample rows.
        name: the name it is served under.
        version: its version.
        sha256: the digest of its files.

    Raises:
        StepError: it cannot be loaded, its signature cannot be served, or it would read or write files.
    """

    engine = "tensorflow"

    def __init__(self, path: Path, name: str, version: str, sha256: str) -> None:
        super().__init__(name, version, sha256)
        with contextlib.suppress(RuntimeError):  # it has computed something in this process
            tf.config.threading.set_intra_op_parallelism_threads(available_cores())
            tf.config.threading.set_inter_op_parallelism_threads(available_cores())
        self._model = ServingModel(path, "model")
        self._signature: Any = self._model.signature(SIGNATURE)
        _refuse_file_operations(self._signature)
        self._specs: Mapping[str, tf.TensorSpec] = self._signature.structured_input_signature[1]
        self._preprocessing = saved_preprocessing(path)
        self._core = find_core(self._model, self._preprocessing)
        self.answer = find_answer(path, None, "auto", ()) if self._preprocessing else None
        if self._preprocessing is not None:
            self.features = preprocessed(self._preprocessing)
        else:
            self.features = tuple(_feature(name, spec) for name, spec in sorted(self._specs.items()))
        columns = _bundle_rows(path, [feature.name for feature in self.features]) or self._blank_rows()
        scores = self._run_signature(columns)
        self.outputs = scores.shape[1]
        self.samples = Samples(columns, scores, 10 * TOLERANCE)
        if self._core is not None and not self._core_agrees():
            self._core = None

    def predict(self, columns: Columns) -> Array:
        """See `Servable`."""
        if self._core is None:
            return self._run_signature(columns)
        inputs = self._core.preprocessing.transform(columns)
        if self.on_inputs is not None:
            self.on_inputs(inputs)
        return self._core.scores(inputs)

    def close(self) -> None:
        """See `Servable`."""
        del self._model, self._signature, self._core

    def _run_signature(self, columns: Columns) -> Array:
        if self._preprocessing is not None:
            inputs: Mapping[str, Any] = self._preprocessing.serving_inputs(columns)
        else:
            inputs = {feature.name: _array(feature, columns[feature.name]) for feature in self.features}
        tensors = {}
        for name, spec in self._specs.items():
            tensor = tf.constant(inputs[name], spec.dtype)
            tensors[name] = tensor[:, tf.newaxis] if tensor.shape.rank == 1 and spec.shape.rank == 2 else tensor
        try:
            return _scores(self._signature(**tensors)[self._model.output])
        except tf.errors.InvalidArgumentError as error:
            raise StepError(f"the model cannot take these rows: {str(error).splitlines()[0]}") from None

    def _core_agrees(self) -> bool:
        """Whether `core` gives the scores of `serving_default`."""
        assert self._core is not None
        for rows in (self.samples.columns, made_up_rows(self._core.preprocessing)):
            try:
                expected = self._run_signature(rows)
            except StepError as error:
                log.warning("serving_default fails on rows that were made up, so core is not used: %s", error)
                return False
            if self._core.difference(rows, expected) is None:
                return False
        return True

    def _blank_rows(self) -> Columns:
        """A row of missing values, or of zeros where they may not be missing."""
        blank: dict[str, Any] = {}
        for feature in self.features:
            shape = (1, *(max(size, 1) for size in feature.shape))
            if self._preprocessing is not None:
                blank[feature.name] = [None]
            else:
                blank[feature.name] = np.full(shape, "", object) if feature.kind == TEXT else np.zeros(shape)
        return blank


def _scores(tensor: "tf.Tensor") -> Array:
    scores = tensor.numpy().astype(np.float32, copy=False)
    if scores.ndim not in (1, 2):
        raise StepError(f"the model gives scores of the shape {list(scores.shape)}; expected [N], [N, 1] or [N, K]")
    return scores.reshape(len(scores), -1)


def _feature(name: str, spec: "tf.TensorSpec") -> Feature:
    """An input of a signature as a feature: [N] and [N, 1] are plain values."""
    if spec.shape.rank in (None, 0):
        raise StepError(f"the model's input {name!r} has the shape {spec.shape}; the first dimension must be the rows")
    if spec.dtype not in DATATYPES or spec.dtype == tf.bool:
        raise StepError(f"the model's input {name!r} has the type {spec.dtype.name}, which cannot be served")
    shape = tuple(-1 if size is None else size for size in spec.shape[1:])
    kind = TEXT if spec.dtype == tf.string else NUMBER
    return Feature(name, kind, DATATYPES[spec.dtype], not spec.dtype.is_integer, None, () if shape == (1,) else shape)


def _array(feature: Feature, values: Any) -> Any:
    """A column as an array; a missing number is NaN, a missing text is empty."""
    if feature.kind == TEXT:
        return values.tolist() if isinstance(values, np.ndarray) else ["" if v is None else v for v in values]
    return np.asarray(values, np.float64 if feature.optional else None)


def _bundle_rows(path: Path, names: Sequence[str]) -> Columns | None:
    """The rows of the edge bundle beside a SavedModel; its scores are those of another model file."""
    samples = path / EDGE / edge.SAMPLES
    if not samples.is_file():
        return None
    rows = json.loads(samples.read_text(encoding="utf-8"))["rows"]
    return {name: rows[name] for name in names} if rows.keys() >= set(names) else None


def _refuse_file_operations(signature: Any) -> None:
    """A SavedModel is a program: one that touches files or calls Python is not run."""
    functions = [signature.graph.as_graph_def()]
    names = {node.op for graph in functions for node in graph.node}
    names |= {node.op for graph in functions for function in graph.library.function for node in function.node_def}
    if found := names & FILE_OPERATIONS:
        raise StepError(f"the model has the operation {min(found)}, which could reach outside of it; it is not served")
