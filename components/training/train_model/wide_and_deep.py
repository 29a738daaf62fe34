"""The built-in model: wide and deep, a linear model over ids beside a network over numbers and embeddings.

The wide part gives every bucket of a number and every known value of a category its own weight, so it
learns thresholds and what a missing value means. The deep part learns how features act together.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kfp_hybrid.components.training.train_model.hyperparameters import Hyperparameters
from kfp_hybrid.preprocessing import Preprocessing


def core_inputs(preprocessing: Preprocessing) -> dict[str, keras.KerasTensor]:
    """The symbolic inputs of a model over preprocessed rows.

    Args:
        preprocessing: says which features there are.

    Returns:
        "numeric" float32 [N, F] and "bucket" int32 [N, F] if there are F > 0 numeric features, and "categorical" int32
        [N, C] if there are C > 0 categorical ones.
    """
    numbers, categories = len(preprocessing.numeric), len(preprocessing.categorical)
    widths = {"numeric": numbers, "bucket": numbers, "categorical": categories}
    dtypes = {"numeric": "float32", "bucket": "int32", "categorical": "int32"}
    return {name: keras.Input((width,), dtype=dtypes[name], name=name) for name, width in widths.items() if width}


def build_model(preprocessing: Preprocessing, hyperparameters: Mapping[str, Any]) -> keras.Model:
    """Build the wide-and-deep classifier or regressor.

    Args:
        preprocessing: the features, the label and the task.
        hyperparameters: see `Hyperparameters`.

    Returns:
        An uncompiled model from `core_inputs` to scores: probabilities [N, 1] (binary) or [N, K] (multiclass), or
        values [N, 1] in the unit of the label (regression).

    Raises:
        StepError: a hyperparameter is unknown or out of range.
    """
    chosen = Hyperparameters.parse(hyperparameters)
    inputs = core_inputs(preprocessing)
    logits = _deep(preprocessing, inputs, chosen)
    if chosen.wide:
        wide = _wide(preprocessing, inputs, chosen)
        logits = keras.layers.Add(dtype="float32", name="logits")([logits, wide])
    return keras.Model(inputs, _scores(preprocessing, logits), name="wide_and_deep")


def _deep(
    preprocessing: Preprocessing, inputs: Mapping[str, keras.KerasTensor], chosen: Hyperparameters
) -> keras.KerasTensor:
    parts = [inputs["numeric"]] if preprocessing.numeric else []
    if preprocessing.categorical:
        sizes = [feature.ids for feature in preprocessing.categorical]
        embedding = keras.layers.Embedding(
            sum(sizes), chosen.embedding_dim, embeddings_regularizer=_l2(chosen), name="embedding"
        )
        parts.append(keras.layers.Flatten(name="embedded")(embedding(_rows(inputs["categorical"], sizes))))
    hidden = keras.layers.Concatenate(name="deep_input")(parts) if len(parts) > 1 else parts[0]
    for i, units in enumerate(chosen.hidden_units):
        layer = keras.layers.Dense(units, chosen.activation, kernel_regularizer=_l2(chosen), name=f"hidden_{i}")
        hidden = layer(hidden)
        if chosen.dropout:
            hidden = keras.layers.Dropout(chosen.dropout, name=f"dropout_{i}")(hidden)
    # The head is computed in float32 whatever the policy: probabilities near 0 and 1 need the precision.
    return keras.layers.Dense(preprocessing.outputs, dtype="float32", name="deep_logits")(hidden)


def _wide(
    preprocessing: Preprocessing, inputs: Mapping[str, keras.KerasTensor], chosen: Hyperparameters
) -> keras.KerasTensor:
    """One weight for each id, summed: a linear model over one-hot ids, without making the one-hot."""
    groups = {"bucket": [feature.buckets for feature in preprocessing.numeric],
              "categorical": [feature.ids for feature in preprocessing.categorical]}  # fmt: skip
    ids = [inputs[name] for name, sizes in groups.items() if sizes]
    sizes = [size for group in groups.values() for size in group]
    joined = keras.layers.Concatenate(name="wide_input")(ids) if len(ids) > 1 else ids[0]
    weights = keras.layers.Embedding(
        sum(sizes),
        preprocessing.outputs,
        embeddings_initializer="zeros",
        embeddings_regularizer=_l2(chosen),
        dtype="float32",
        name="wide_weights",
    )(_rows(joined, sizes))
    return keras.ops.sum(weights, axis=1)


def _rows(ids: keras.KerasTensor, sizes: list[int]) -> keras.KerasTensor:
    """Ids of several features as rows of one table, which holds `sizes[i]` rows for feature i."""
    return ids + np.cumsum([0, *sizes[:-1]], dtype=np.int32)


def _scores(preprocessing: Preprocessing, logits: keras.KerasTensor) -> keras.KerasTensor:
    if preprocessing.task == "regression":
        label = preprocessing.label
        return keras.layers.Rescaling(label.std, label.mean, dtype="float32", name="scores")(logits)
    activation = "sigmoid" if preprocessing.task == "binary" else "softmax"
    return keras.layers.Activation(activation, dtype="float32", name="scores")(logits)


def _l2(chosen: Hyperparameters) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L2(chosen.l2) if chosen.l2 else None
