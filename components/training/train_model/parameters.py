"""What a training is asked for and what it tells about itself.

Standard library only: `train_distributed` uses it in an image that has neither numpy nor TensorFlow.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from kfp_hybrid.step import StepError

# What 0 for epochs and batch_size stands for: few rows need small batches and many epochs to become as many steps.
EPOCHS = 10
STEPS = 1000
STEPS_OF_AN_EPOCH = 100
BATCH_SIZES = (16, 1024)

STRATEGIES = ("none", "mirrored", "multi_worker", "tpu")


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The parameters of the component `train_model`, which describes them."""

    label: str
    task: str = "auto"
    features: Sequence[str] = ()
    max_vocabulary: int = 1000
    module: str = ""
    hyperparameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    train_split: str = "train"
    eval_split: str = "eval"
    epochs: int = 0
    batch_size: int = 0
    learning_rate: float = 0.001
    seed: int = 1
    early_stopping_patience: int = 3
    class_weights: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mixed_precision: bool = False
    strategy: str = "none"
    steps_per_execution: int = 16
    memory_mb: int = 1024
    checkpoint_dir: str = ""

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "Parameters":
        """The parameters among the arguments of a component's function, which has others besides."""
        return cls(**{field.name: arguments[field.name] for field in dataclasses.fields(cls)})

    def validate(self) -> None:
        """Check what can be checked without the data and the machine.

        Raises:
            StepError: a parameter is out of range.
        """
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 0:
                raise StepError(
                    f"parameter {name} is {getattr(self, name)}, must be at least 1, or 0 to go by the number of rows"
                )
        for name in ("max_vocabulary", "steps_per_execution", "memory_mb"):
            if getattr(self, name) < 1:
                raise StepError(f"parameter {name} is {getattr(self, name)}, must be at least 1")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise StepError(f"parameter learning_rate is {self.learning_rate}, must be greater than 0")
        if not 0 <= self.seed < 2**32:
            raise StepError(f"parameter seed is {self.seed}, must be between 0 and {2**32 - 1}")
        if self.early_stopping_patience < 0:
            raise StepError(
                f"parameter early_stopping_patience is {self.early_stopping_patience}, must not be negative"
            )
        if self.strategy not in STRATEGIES:
            raise StepError(f"parameter strategy is {self.strategy!r}, must be one of {', '.join(STRATEGIES)}")
        if not self.train_split or self.train_split == self.eval_split:
            raise StepError(f"parameters train_split and eval_split are both {self.eval_split!r}, must name two splits")

    def for_rows(self, rows: int) -> "Parameters":
        """The same with `epochs` and `batch_size` chosen where they are 0.

        Args:
            rows: rows of the training split.
        """
        smallest, largest = BATCH_SIZES
        wanted = 1 << max(rows // STEPS_OF_AN_EPOCH, 1).bit_length() - 1  # a power of two
        batch_size = self.batch_size or min(max(wanted, smallest), largest)
        steps = math.ceil(max(rows, 1) / batch_size)
        epochs = self.epochs or max(EPOCHS, math.ceil(STEPS / steps))
        return dataclasses.replace(self, epochs=epochs, batch_size=batch_size)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training tells about itself.

    Attributes:
        metrics: losses and metrics of the published model, epochs, examples per second, seconds.
        metadata: facts about the model, for its artifact.
    """

    metrics: dict[str, float]
    metadata: dict[str, str | int]
