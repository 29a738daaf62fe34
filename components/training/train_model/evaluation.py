"""Metrics of a model on a split while it is being trained."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfp_hybrid.components.training.train_model.fitting import row_losses
from kfp_hybrid.components.training.train_model.training_input import LABEL, preprocess
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.preprocessing import Preprocessing

BATCH_ROWS = 8192
AUC_THRESHOLDS = 2000


class Evaluator:
    """Evaluates a model on one split; call it with the model.

    Args:
        examples: the examples.
        split: name of the split; not empty.
        preprocessing: gives features, label and task.
    """

    def __init__(self, examples: Examples, split: str, preprocessing: Preprocessing):
        self._examples = examples
        self._split = split
        self._preprocessing = preprocessing
        self._predict: Any = None

    def __call__(self, model: keras.Model) -> dict[str, float]:
        """The metrics "val_loss" and, by task, "val_auc", "val_accuracy", "val_mae"."""
        if self._predict is None:
            self._predict = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)
        scores, labels = [], []
        for inputs, batch_labels in self._batches():
            scores.append(self._predict(inputs).numpy())
            labels.append(batch_labels)
        return self._metrics(np.concatenate(labels), np.concatenate(scores))

    def _batches(self) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        columns = [*self._preprocessing.features, self._preprocessing.label.name]
        for batch in self._examples.batches(self._split, columns, BATCH_ROWS):
            arrays = preprocess(batch, self._preprocessing)
            labels = arrays.pop(LABEL)
            yield arrays, labels

    def _metrics(self, labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
        losses = row_losses(self._preprocessing)(tf.constant(labels), tf.constant(scores))
        metrics = {"val_loss": float(tf.reduce_mean(losses))}
        if self._preprocessing.task == "binary":
            metrics["val_auc"] = float(keras.metrics.AUC(AUC_THRESHOLDS)(labels, scores[:, 0]))
            metrics["val_accuracy"] = float(np.mean((scores[:, 0] >= 0.5) == labels))
        elif self._preprocessing.task == "multiclass":
            metrics["val_accuracy"] = float(np.mean(scores.argmax(axis=1) == labels))
        else:
            metrics["val_mae"] = float(np.mean(np.abs(scores[:, 0] - labels)))
        return metrics
