"""Building the model to train: the built-in one or the user's, for a strategy and a precision."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfp_hybrid.components.training.train_model import wide_and_deep
from kfp_hybrid.components.training.train_model.user_module import UserModule, user_error
from kfp_hybrid.preprocessing import Preprocessing
from kfp_hybrid.step import StepError

Build = Callable[[], keras.Model]


def make_builder(preprocessing: Preprocessing, hyperparameters: Mapping[str, Any], module: UserModule | None) -> Build:
    """A function that builds a fresh model from `core_inputs` to scores each time it is called.

    Args:
        preprocessing: the features, the label and the task.
        hyperparameters: for the built-in model, or for the user's `build_model`.
        module: the user's module, which has been run; None for the built-in model.
    """
    if module is None:
        return lambda: wide_and_deep.build_model(preprocessing, hyperparameters)
    return lambda: _user_model(module, preprocessing, hyperparameters)


@contextlib.contextmanager
def precision(mixed: bool) -> Iterator[None]:
    """Build layers with mixed precision inside the context: float16 on GPUs, which have it, otherwise bfloat16."""
    previous = keras.config.dtype_policy()
    if mixed:
        keras.config.set_dtype_policy("mixed_float16" if tf.config.list_logical_devices("GPU") else "mixed_bfloat16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def make_optimizer(model: keras.Model, learning_rate: float) -> keras.optimizers.Optimizer:
    """Adam for a model, with a scaled loss where float16 would underflow; its variables exist already."""
    optimizer: keras.optimizers.Optimizer = keras.optimizers.Adam(learning_rate)
    if any(layer.compute_dtype == "float16" for layer in model.layers):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def check_scores(model: keras.Model, preprocessing: Preprocessing, inputs: Mapping[str, np.ndarray]) -> None:
    """Check before training that a classifier gives probabilities.

    Raises:
        StepError: a score is not between 0 and 1, or those of a row do not add up to 1 (multiclass).
    """
    if preprocessing.task == "regression":
        return
    scores = model({name: tf.constant(values) for name, values in inputs.items()}, training=False).numpy()
    if not (scores >= 0).all() or not (scores <= 1).all():
        raise StepError("the scores of build_model are not probabilities; end it with a sigmoid or a softmax")
    if preprocessing.task == "multiclass" and np.abs(scores.sum(axis=1) - 1).max() > 1e-2:
        raise StepError("the scores of build_model do not add up to 1 in a row; end it with a softmax")


def _user_model(module: UserModule, preprocessing: Preprocessing, hyperparameters: Mapping[str, Any]) -> keras.Model:
    model = module.build_model(preprocessing, hyperparameters)
    if not isinstance(model, keras.Model):
        raise StepError(f"module {module.name}: build_model returned {type(model).__name__}, must return a keras.Model")
    if model.compiled:
        logging.warning("build_model compiled its model; the step trains it with its own loss and optimizer instead")
    inputs = wide_and_deep.core_inputs(preprocessing)
    try:
        scores = model(_arguments(model, inputs))
    except KeyError as error:
        raise StepError(f"module {module.name}: no input {error} is known, only {', '.join(inputs)}") from None
    except Exception as error:
        raise user_error(module.name, module.file, error) from error
    wanted = (None, preprocessing.outputs)
    if tuple(getattr(scores, "shape", ())) != wanted:
        raise StepError(f"module {module.name}: the model gives {getattr(scores, 'shape', scores)}, must give {wanted}")
    return keras.Model(inputs, keras.layers.Activation("linear", dtype="float32", name="scores")(scores))


def _arguments(model: keras.Model, inputs: dict[str, keras.KerasTensor]) -> Any:
    """The inputs in the structure that the model takes: its own if it is functional, otherwise the mapping."""
    try:
        structure = model.input
    except (AttributeError, ValueError):  # a model that is a subclass of keras.Model has none before it is called
        return inputs
    return keras.tree.map_structure(lambda tensor: inputs[tensor.name], structure)
