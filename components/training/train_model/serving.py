"""The trained model as a SavedModel: raw rows in, scores out, the preprocessing inside.

`serving_default` takes raw features, `core` takes what `Preprocessing.transform` makes. Training fed the model
through the numpy code and serving goes through TensorFlow operations, so before a model is published both
signatures of the very files are compared on real rows.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from kfp_hybrid.preprocessing import FILE_NAME, MISSING_ID, OUT_OF_VOCABULARY_ID, RESERVED_IDS, Preprocessing
from kfp_hybrid.scoring.difference import largest_difference
from kfp_hybrid.step import StepError

ASSETS = "assets.extra"
TOLERANCE = 1e-5


def export(model: keras.Model, preprocessing: Preprocessing, schema: Path, folder: Path) -> None:
    """Write the SavedModel with its two signatures.

    Args:
        model: maps the groups of `Preprocessing.transform` to scores.
        preprocessing: the constants; they become part of the graph and `assets.extra/preprocessing.json`.
        schema: text proto, copied to `assets.extra/schema.pbtxt`.
        folder: where to write; must not exist.
    """
    module = ServedModel(model, preprocessing)
    signatures = {"serving_default": module.serving_default(), "core": module.core()}
    tf.saved_model.save(module, str(folder), signatures)
    (folder / ASSETS).mkdir()
    preprocessing.save(folder / ASSETS / FILE_NAME)
    shutil.copyfile(schema, folder / ASSETS / "schema.pbtxt")


def check_no_skew(folder: Path, preprocessing: Preprocessing, rows: pa.RecordBatch) -> float:
    """Compare `serving_default` on raw rows with `core` on the same rows preprocessed outside TensorFlow.

    Args:
        folder: a SavedModel that `export` wrote.
        preprocessing: its constants.
        rows: real rows.

    Returns:
        The largest difference of a score.

    Raises:
        StepError: the difference is greater than `TOLERANCE`, or a score is not a finite number.
    """
    signatures = tf.saved_model.load(str(folder)).signatures
    raw = {name: tf.constant(values) for name, values in preprocessing.serving_inputs(rows).items()}
    core = {name: tf.constant(values) for name, values in preprocessing.transform(rows).items()}
    served = signatures["serving_default"](**raw)["scores"].numpy()
    expected = signatures["core"](**core)["scores"].numpy()
    if not (np.isfinite(served).all() and np.isfinite(expected).all()):
        raise StepError("the exported model gives scores that are not finite; lower learning_rate or check the label")
    difference = largest_difference(served, expected)
    if difference > TOLERANCE:
        raise StepError(
            f"the exported model disagrees with itself: raw rows and preprocessed rows score {difference:.2g} apart "
            f"(allowed {TOLERANCE:g}); if build_model depends on anything but its inputs, take that out"
        )
    return difference


class ServedModel(tf.Module):
    """The model and the lookup tables of its preprocessing, as something TensorFlow can save."""

    def __init__(self, model: keras.Model, preprocessing: Preprocessing):
        super().__init__()
        self._model = model
        self._preprocessing = preprocessing
        self.model_variables = [variable.value for variable in model.variables]
        self.vocabularies = [_lookup_table(feature.vocabulary) for feature in preprocessing.categorical]

    def serving_default(self) -> Callable[..., Any]:
        """The signature over raw features: each by its name, float32 or string [N]."""
        names = self._preprocessing.serving_names
        types = {names[feature.name]: tf.float32 for feature in self._preprocessing.numeric}
        types |= {names[feature.name]: tf.string for feature in self._preprocessing.categorical}

        @tf.function(autograph=False)
        def serve(**raw: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"scores": self._scores(self.preprocess(raw))}

        return serve.get_concrete_function(**{n: tf.TensorSpec([None], type_, n) for n, type_ in types.items()})

    def core(self) -> Callable[..., Any]:
        """The signature over the groups of `Preprocessing.transform`."""
        specs = {tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name) for tensor in self._model.inputs}

        @tf.function(autograph=False)
        def core(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"scores": self._scores(inputs)}

        return core.get_concrete_function(**specs)

    def _scores(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.identity(self._model(inputs, training=False), "scores")

    def preprocess(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """`Preprocessing.transform` as TensorFlow operations."""
        names, numeric = self._preprocessing.serving_names, self._preprocessing.numeric
        inputs = {}
        if numeric:
            values = tf.stack([raw[names[feature.name]] for feature in numeric], axis=1)
            present = tf.math.is_finite(values)
            values = tf.where(present, values, np.array([f.missing for f in numeric], np.float32))
            mean, std = np.array([(f.mean, f.std) for f in numeric], np.float32).T
            inputs["numeric"] = (values - mean) / std
            below = tf.cast(values[:, :, tf.newaxis] >= _padded_boundaries(self._preprocessing), tf.int32)
            inputs["bucket"] = tf.where(present, 1 + tf.reduce_sum(below, axis=2), MISSING_ID)
        if self.vocabularies:
            features = zip(self._preprocessing.categorical, self.vocabularies, strict=True)
            inputs["categorical"] = tf.stack([table.lookup(raw[names[f.name]]) for f, table in features], axis=1)
        return inputs


def _lookup_table(vocabulary: tuple[str, ...]) -> tf.lookup.StaticHashTable:
    keys = tf.constant(["", *vocabulary])
    ids = tf.constant([MISSING_ID, *range(RESERVED_IDS, RESERVED_IDS + len(vocabulary))], tf.int32)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, ids), OUT_OF_VOCABULARY_ID)


def _padded_boundaries(preprocessing: Preprocessing) -> np.ndarray:
    """Boundaries of all features as float32 [features, most boundaries]; no finite value reaches the padding."""
    width = max(len(feature.boundaries) for feature in preprocessing.numeric)
    padded = np.full((len(preprocessing.numeric), width), np.inf, np.float32)
    for row, feature in zip(padded, preprocessing.numeric, strict=True):
        row[: len(feature.boundaries)] = feature.boundaries
    return padded
