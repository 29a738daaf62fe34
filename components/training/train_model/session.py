"""One training from a built model to published files. Imports TensorFlow."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from kfp_hybrid.checkpoints import checkpoint_folder, fingerprint
from kfp_hybrid.components.training.train_model import building, checkpoints, cluster, serving, strategies
from kfp_hybrid.components.training.train_model.checkpoints import State
from kfp_hybrid.components.training.train_model.evaluation import Evaluator
from kfp_hybrid.components.training.train_model.event_log import write_event_log
from kfp_hybrid.components.training.train_model.features import SCHEMA_FILE
from kfp_hybrid.components.training.train_model.fitting import Schedule, Trainer
from kfp_hybrid.components.training.train_model.parameters import Parameters
from kfp_hybrid.components.training.train_model.training_input import TrainingInput
from kfp_hybrid.components.training.train_model.user_module import UserModule, user_error
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.preprocessing import Preprocessing
from kfp_hybrid.publishing import publishing
from kfp_hybrid.step import StepError

CHECKED_ROWS = 1024


class Session:
    """Everything a training needs, checked.

    Args:
        examples: the examples.
        preprocessing: features, label and task.
        class_weights: float32 [K], or None.
        module: the user's module, not run yet; None for the built-in model.
        parameters: the parameters of the step.
    """

    def __init__(
        self,
        examples: Examples,
        preprocessing: Preprocessing,
        class_weights: np.ndarray | None,
        module: UserModule | None,
        parameters: Parameters,
    ):
        self._examples = examples
        self._preprocessing = preprocessing
        self._class_weights = class_weights
        self._module = module
        self._parameters = parameters

    def run(self, checkpoint_base: Path, schema: Path, model: Path, logs: Path) -> State:
        """Train, check and publish.

        Args:
            checkpoint_base: folder for checkpoints of all trainings.
            schema: schema artifact.
            model: directory that the SavedModel becomes.
            logs: directory that the TensorBoard logs become.

        Returns:
            The final state of the training.

        Raises:
            StepError: see `training.train`.
        """
        # First of all: a cluster can only be joined, and determinism only be had, before TensorFlow does anything else.
        strategy = strategies.make_strategy(self._parameters.strategy)
        tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(self._parameters.seed)
        if self._module:
            self._module.run()
        build = building.make_builder(self._preprocessing, self._parameters.hyperparameters, self._module)
        with (
            checkpoint_folder(checkpoint_base, self._fingerprint(strategy)) as folder,
            publishing(model) as new_model,
            publishing(logs) as new_logs,
        ):
            with _errors_of(self._module):
                trained, state = self._train(strategy, build, folder)
            if cluster.is_chief(self._parameters.strategy):
                with _errors_of(self._module), _write_errors(model):
                    self._export(trained, build, schema / SCHEMA_FILE, new_model)
                    write_event_log(new_logs, state.history)
        with contextlib.suppress(OSError):
            checkpoint_base.rmdir()  # if nobody else has checkpoints there
        return state

    def _train(
        self, strategy: tf.distribute.Strategy, build: building.Build, folder: Path
    ) -> tuple[keras.Model, State]:
        p = self._parameters
        with strategy.scope(), building.precision(p.mixed_precision):
            model = build()
            optimizer = building.make_optimizer(model, p.learning_rate)
        building.check_scores(model, self._preprocessing, self._preprocessing.transform(self._real_rows()))
        rows = TrainingInput(
            self._examples,
            p.train_split,
            self._preprocessing,
            p.batch_size,
            p.steps_per_execution,
            p.seed,
            p.memory_mb << 20,
            self._class_weights,
            static_shapes=p.strategy == "tpu",
        )
        evaluate = Evaluator(self._examples, p.eval_split, self._preprocessing) if p.eval_split else None
        state = checkpoints.load(folder) or State()
        if p.strategy == "multi_worker" and not strategies.agree(strategy, state.epochs):
            state = State()  # a worker was stopped between the checkpoints of two epochs
        trainer = Trainer(model, optimizer, strategy, self._preprocessing, rows)
        schedule = Schedule(p.epochs, p.early_stopping_patience)
        return model, trainer.fit(state, schedule, evaluate, lambda following: checkpoints.save(folder, following))

    def _export(self, trained: keras.Model, build: building.Build, schema: Path, folder: Path) -> None:
        # Built anew, because what is served is neither distributed nor of mixed precision.
        served = build()
        try:
            served.set_weights(trained.get_weights())
        except ValueError as error:
            what = " ".join(str(error).split())[:200]
            raise StepError(f"build_model must build the same model each time, but did not: {what}") from None
        serving.export(served, self._preprocessing, schema, folder)
        serving.check_no_skew(folder, self._preprocessing, self._real_rows())

    def _real_rows(self) -> pa.RecordBatch:
        split = self._parameters.eval_split or self._parameters.train_split
        return next(self._examples.batches(split, self._preprocessing.features, CHECKED_ROWS))

    def _fingerprint(self, strategy: tf.distribute.Strategy) -> str:
        p = self._parameters
        splits = [name for name in (p.train_split, p.eval_split) if name]
        return fingerprint(
            {
                "columns": self._examples.schema_fingerprint,
                "files": {name: [file.sha256 for file in self._examples.split(name).files] for name in splits},
                "preprocessing": self._preprocessing.to_dict(),
                "module": self._module.source if self._module else "",
                "parameters": {**dataclasses.asdict(p), "checkpoint_dir": ""},
                "replicas": strategy.num_replicas_in_sync,
                "worker": cluster.worker_name(p.strategy),
                "versions": [tf.__version__, keras.__version__],
            }
        )


@contextlib.contextmanager
def _errors_of(module: UserModule | None) -> Iterator[None]:
    """Report what a user's model raises while it is trained or traced as an error of the user's module."""
    try:
        yield
    except (StepError, OSError, tf.errors.OpError):
        raise
    except Exception as error:
        if module is None:
            raise
        raise user_error(module.name, module.file, error) from error


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        what = " ".join(str(error).split())[:300]
        raise StepError(f"cannot write {path}: {what}; check its permissions and space") from None
