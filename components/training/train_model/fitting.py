"""The training loop: the same for one device, several devices and several machines.

It is a plain loop over `tf.distribute.Strategy.run` rather than `Model.fit`, because Keras 3's `fit` does not work
with several machines, cannot say in which batch a loss became NaN when it runs several steps at once, and keeps the
state of early stopping where a checkpoint does not reach it.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kfp_hybrid.components.training.train_model.checkpoints import State
from kfp_hybrid.components.training.train_model.cluster import WorkerLost
from kfp_hybrid.components.training.train_model.training_input import LABEL, ROWS, WEIGHT, TrainingInput
from kfp_hybrid.preprocessing import Preprocessing
from kfp_hybrid.step import StepError

PROGRESS_SECONDS = 10.0

Evaluate = Callable[[keras.Model], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long to train.

    Attributes:
        epochs: most epochs.
        patience: epochs without a lower "val_loss" before training stops; 0 to train all epochs.
    """

    epochs: int
    patience: int


def row_losses(preprocessing: Preprocessing) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The loss of the task: a function of labels [N] and scores [N, K] that gives one loss per row [N]."""
    if preprocessing.task == "binary":
        return lambda labels, scores: keras.losses.binary_crossentropy(labels[:, tf.newaxis], scores)
    if preprocessing.task == "multiclass":
        return keras.losses.sparse_categorical_crossentropy
    return lambda labels, scores: tf.square(scores[:, 0] - labels)


class Trainer:
    """Trains a model and keeps what a checkpoint needs.

    Args:
        model: the model; its variables were made in the scope of `strategy`.
        optimizer: likewise.
        strategy: where to train.
        preprocessing: gives the task and the label.
        rows: the training rows.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        strategy: tf.distribute.Strategy,
        preprocessing: Preprocessing,
        rows: TrainingInput,
    ):
        self.model = model
        self._optimizer = optimizer
        self._strategy = strategy
        self._rows = rows
        self._row_losses = row_losses(preprocessing)
        # Gradients do not depend on the unit of the label, so neither does a good learning rate.
        self._loss_unit = preprocessing.label.std**2
        self._epoch = 0
        self._chunks = strategy.distribute_datasets_from_function(self._dataset)
        self._train_chunk = tf.function(self._train_on_chunk)

    def fit(self, state: State, schedule: Schedule, evaluate: Evaluate | None, save: Callable[[State], None]) -> State:
        """Train from a state on, to the end.

        Args:
            state: `State()`, or that of an interrupted training.
            schedule: when to stop.
            evaluate: gives "val_..." metrics after each epoch; None to go without, and without early stopping.
            save: called with the state after each epoch.

        Returns:
            The final state. The model has the weights of the best epoch with early stopping, otherwise the last.

        Raises:
            StepError: the loss is not a finite number; or what reading the rows raised.
        """
        self._restore(state)
        while state.epochs < schedule.epochs and not state.stopped:
            metrics = self._train_epoch(state.epochs)
            metrics |= evaluate(self.model) if evaluate else {}
            _refuse_nan(metrics, state.epochs)
            state = self._next_state(state, schedule, metrics)
            save(state)
            _log_epoch(state, schedule)
        if state.best_weights:
            self._assign(self._weights(), state.best_weights)
        return state

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch; return the mean loss of its rows, and rows per second."""
        started = time.perf_counter()
        self._epoch = epoch
        iterator = iter(self._chunks)
        total, rows, done, reported = 0.0, 0.0, 0, time.monotonic()
        while done < self._rows.steps:
            try:
                chunk_losses, chunk_rows = (tensor.numpy() for tensor in self._train_chunk(iterator))
            except tf.errors.OpError as error:
                raise self._explain(error, epoch, done) from error
            if not np.isfinite(chunk_losses).all():
                batch = done + int(np.argmin(np.isfinite(chunk_losses))) + 1
                raise _nan_error(epoch, f", batch {batch} of {self._rows.steps}")
            total += float(chunk_losses.sum(dtype=np.float64))
            rows += float(chunk_rows.sum(dtype=np.float64))
            done += len(chunk_losses)
            if time.monotonic() - reported > PROGRESS_SECONDS:
                reported = time.monotonic()
                logging.info("epoch %d: batch %d of %d, loss %.4g", epoch + 1, done, self._rows.steps, total / rows)
        return {"loss": total / rows, "examples_per_second": rows / (time.perf_counter() - started)}

    def _train_on_chunk(self, iterator: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Train on the batches of the next chunk; return the sum of row losses and the number of rows of each batch."""
        chunk = next(iterator)
        rows = self._strategy.experimental_local_results(chunk[ROWS])[0]
        losses = tf.TensorArray(tf.float32, tf.size(rows))
        for i in tf.range(tf.size(rows)):
            replica_losses = self._strategy.run(self._step, args=(chunk, i))
            losses = losses.write(i, self._strategy.reduce(tf.distribute.ReduceOp.SUM, replica_losses, axis=None))
        return losses.stack(), rows

    @tf.autograph.experimental.do_not_convert
    def _step(self, chunk: dict[str, tf.Tensor], i: tf.Tensor) -> tf.Tensor:
        """Train on batch `i` of a chunk, on one replica; return the sum of its row losses."""
        batch = {name: tensor[i] for name, tensor in chunk.items()}
        inputs = {name: tensor for name, tensor in batch.items() if name not in (LABEL, WEIGHT, ROWS)}
        with tf.GradientTape() as tape:
            scores = self.model(inputs, training=True)
            losses = self._row_losses(batch[LABEL], scores)
            weighted = losses * batch[WEIGHT] if WEIGHT in batch else losses
            loss = tf.reduce_sum(weighted) / (batch[ROWS] * self._loss_unit)
            if self.model.losses:
                loss += tf.add_n(self.model.losses) / self._strategy.num_replicas_in_sync
            scaled = self._optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        self._optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        return tf.reduce_sum(losses)

    def _dataset(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        replicas = self._strategy.num_replicas_in_sync
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local
        return self._rows.dataset(lambda: self._epoch, range(first, first + local), replicas)

    def _next_state(self, state: State, schedule: Schedule, metrics: Mapping[str, float]) -> State:
        weights = [v.value.numpy() for v in self._weights()]
        following = State(
            epochs=state.epochs + 1,
            history=[*state.history, {**metrics, "time": time.time()}],
            weights=weights,
            optimizer=[v.value.numpy() for v in self._optimizer.variables],
        )
        if schedule.patience and "val_loss" in metrics:
            following.best_weights = weights if following.best_epoch == state.epochs else state.best_weights
            following.stopped = state.epochs - following.best_epoch >= schedule.patience
        return following

    def _restore(self, state: State) -> None:
        if state.epochs:
            logging.info("going on after epoch %d from a checkpoint", state.epochs)
            try:
                self._assign(self._weights(), state.weights)
                self._assign(self._optimizer.variables, state.optimizer)
            except ValueError as error:
                raise StepError(
                    f"the checkpoint does not fit the model ({error}); build_model must build the same model each time"
                ) from None

    def _assign(self, variables: list[keras.Variable], arrays: list[np.ndarray]) -> None:
        with self._strategy.scope():
            for variable, array in zip(variables, arrays, strict=True):
                variable.assign(array)

    def _weights(self) -> list[keras.Variable]:
        """All variables of the model: weights and the state of random number generators."""
        return self.model.variables

    def _explain(self, error: tf.errors.OpError, epoch: int, step: int) -> StepError:
        if self._rows.error:
            return self._rows.error
        what = " ".join((error.message or type(error).__name__).split())[:300]
        where = f"epoch {epoch + 1}, batches {step + 1} and following"
        if isinstance(error, tf.errors.UnavailableError | tf.errors.AbortedError | tf.errors.CancelledError):
            return WorkerLost(f"training stopped in {where}: another worker has gone ({what}); start all workers again")
        return StepError(f"training failed in {where}: {what}")


def _refuse_nan(metrics: Mapping[str, float], epoch: int) -> None:
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise _nan_error(epoch, f" ({name} is {value})")


def _nan_error(epoch: int, where: str) -> StepError:
    return StepError(
        f"the loss is not a finite number in epoch {epoch + 1}{where}; lower learning_rate, or look for extreme values "
        "in the features (see the report of validate_statistics)"
    )


def _log_epoch(state: State, schedule: Schedule) -> None:
    metrics = state.history[-1]
    shown = [f"{name} {value:.4g}" for name, value in metrics.items() if name not in ("time", "examples_per_second")]
    rate = metrics["examples_per_second"]
    logging.info("epoch %d/%d: %s, %s examples/s", state.epochs, schedule.epochs, ", ".join(shown), f"{rate:,.0f}")
    if state.stopped:
        logging.info("stopped early: val_loss has not become lower for %d epochs", schedule.patience)
