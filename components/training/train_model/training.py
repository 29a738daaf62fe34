"""Training a model from examples, statistics and schema. TensorFlow is imported only after the input is checked."""

import logging
import math
import time
from pathlib import Path

import numpy as np

from kfp_hybrid.checkpoints import checkpoint_base
from kfp_hybrid.components.training.train_model import cluster, features
from kfp_hybrid.components.training.train_model.checkpoints import State
from kfp_hybrid.components.training.train_model.hyperparameters import Hyperparameters
from kfp_hybrid.components.training.train_model.parameters import Parameters, Trained
from kfp_hybrid.components.training.train_model.training_input import read_labels
from kfp_hybrid.components.training.train_model.user_module import UserModule
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.preprocessing import Preprocessing
from kfp_hybrid.quiet_tensorflow import quiet_tensorflow
from kfp_hybrid.step import StepError


def train(
    examples: str | Path,
    statistics: str | Path,
    schema: str | Path,
    parameters: Parameters,
    model: str | Path,
    logs: str | Path,
) -> Trained:
    """Train a model and publish it as a SavedModel.

    Args:
        examples: examples artifact.
        statistics: statistics artifact, of the same examples.
        schema: schema artifact.
        parameters: everything else.
        model: directory that the SavedModel becomes.
        logs: directory that the TensorBoard logs become.

    Returns:
        Metrics and metadata.

    Raises:
        StepError: the input, a parameter or the user's module is wrong, or the loss is not finite.
    """
    started = time.perf_counter()
    parameters.validate()
    if parameters.strategy == "multi_worker":
        cluster.tf_config()
    module = UserModule(parameters.module) if parameters.module else None
    if module is None:
        Hyperparameters.parse(parameters.hyperparameters)
    data = Examples.open(examples)
    preprocessing = features.make_preprocessing(
        features.read_statistics(statistics, parameters.train_split),
        features.read_schema(schema),
        parameters.label,
        parameters.task,
        parameters.features,
        parameters.max_vocabulary,
    )
    if absent := [name for name in preprocessing.features if name not in data.columns]:
        raise StepError(f"the examples have no column {absent[0]!r}; make statistics and schema from the same examples")
    parameters = parameters.for_rows(data.rows(parameters.train_split))
    weights = _class_weights(data, preprocessing, parameters)
    _log_task(data, preprocessing, parameters)
    with quiet_tensorflow():
        from kfp_hybrid.components.training.train_model.session import Session
    session = Session(data, preprocessing, weights, module, parameters)
    state = session.run(checkpoint_base(parameters.checkpoint_dir, Path(model)), Path(schema), Path(model), Path(logs))
    metadata: dict[str, str | int] = {
        "framework": "tensorflow",
        "task": preprocessing.task,
        "label": preprocessing.label.name,
        "features": len(preprocessing.features),
        "schema_fingerprint": data.schema_fingerprint,
    }
    if preprocessing.task == "binary":
        metadata["positive_class"] = str(preprocessing.label.classes[1])
    return Trained(_metrics(state, time.perf_counter() - started), metadata)


def _log_task(examples: Examples, preprocessing: Preprocessing, parameters: Parameters) -> None:
    logging.info(
        "training on %s rows: %s of %s by %d numeric and %d categorical features, at most %d epochs in batches of %d",
        f"{examples.rows(parameters.train_split):,}",
        preprocessing.task if preprocessing.task == "regression" else f"{preprocessing.task} classification",
        preprocessing.label.name,
        len(preprocessing.numeric),
        len(preprocessing.categorical),
        parameters.epochs,
        parameters.batch_size,
    )


def _class_weights(examples: Examples, preprocessing: Preprocessing, parameters: Parameters) -> np.ndarray | None:
    """Check the labels of both splits; return the weight of each class as float32 [K], or None for no weights."""
    counts = read_labels(examples, parameters.train_split, preprocessing)
    if parameters.eval_split:
        read_labels(examples, parameters.eval_split, preprocessing)
    classes = [str(value) for value in preprocessing.label.classes]
    if classes and np.count_nonzero(counts) < 2:
        only = classes[int(counts.argmax())]
        raise StepError(
            f"label {preprocessing.label.name!r} is {only!r} in every training row; there is nothing to learn"
        )
    if not parameters.class_weights:
        return None
    if not classes:
        raise StepError("parameter class_weights is set, but a regression has no classes; leave it empty")
    if dict(parameters.class_weights) == {"balanced": True}:
        return (counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)
    weights = np.ones(len(classes), np.float32)
    for name, weight in parameters.class_weights.items():
        if name not in classes:
            raise StepError(f'parameter class_weights names {name!r}; give {{"balanced": true}} or any of {classes}')
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise StepError(
                f"parameter class_weights gives {weight!r} to {name!r}, must be a number that is not negative"
            )
        weights[classes.index(name)] = weight
    return weights


def _metrics(state: State, seconds: float) -> dict[str, float]:
    """Metrics of the published weights: those of the best epoch if there was early stopping, otherwise of the last."""
    published = state.history[state.published_epoch]
    names = {"loss": "train_loss", **{name: name.replace("val_", "eval_") for name in published if "val_" in name}}
    return {
        **{new: published[name] for name, new in names.items()},
        "epochs": state.epochs,
        "published_epoch": state.published_epoch + 1,
        "examples_per_second": float(np.median([epoch["examples_per_second"] for epoch in state.history])),
        "seconds": seconds,
    }
