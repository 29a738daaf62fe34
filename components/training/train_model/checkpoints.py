"""Checkpoints: what training needs to go on after a kill as if nothing had happened.

One file holds the state after an epoch: weights, random number generators, optimizer, early stopping and the
history. It is replaced atomically. Its folder comes from `kfp_hybrid.checkpoints`.
"""

import dataclasses
import json
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from kfp_hybrid.step import StepError

FILE_NAME = "checkpoint.npz"


@dataclasses.dataclass
class State:
    """The state of a training after an epoch.

    Attributes:
        epochs: epochs finished.
        stopped: whether early stopping has ended the training.
        history: one mapping of metrics per finished epoch.
        weights: the model's variables, including those of its random number generators.
        optimizer: the optimizer's variables.
        best_weights: the weights of the epoch with the lowest "val_loss"; empty without early stopping.
    """

    epochs: int = 0
    stopped: bool = False
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    weights: list[np.ndarray] = dataclasses.field(default_factory=list)
    optimizer: list[np.ndarray] = dataclasses.field(default_factory=list)
    best_weights: list[np.ndarray] = dataclasses.field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The first epoch (from 0) with the lowest "val_loss"."""
        return min(range(self.epochs), key=lambda epoch: self.history[epoch]["val_loss"])

    @property
    def published_epoch(self) -> int:
        """The epoch (from 0) whose weights are the result: the best with early stopping, otherwise the last."""
        return self.best_epoch if self.best_weights else self.epochs - 1


_ARRAYS = ("weights", "optimizer", "best_weights")


def save(folder: Path, state: State) -> None:
    """Write the checkpoint of a folder; an earlier one is replaced at once or not at all.

    Raises:
        StepError: the disk is full or not writable.
    """
    plain = {f.name: getattr(state, f.name) for f in dataclasses.fields(state) if f.name not in _ARRAYS}
    arrays = {f"{kind}/{i:06d}": array for kind in _ARRAYS for i, array in enumerate(getattr(state, kind))}
    unfinished = folder / f".{FILE_NAME}.unfinished"
    try:
        with unfinished.open("wb") as file:
            np.savez(file, state=np.array(json.dumps(plain)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(folder / FILE_NAME)
    except OSError as error:
        raise StepError(f"cannot write a checkpoint to {folder}: {error.strerror or error}; check its space") from None


def load(folder: Path) -> State | None:
    """Read the checkpoint of a folder.

    Returns:
        The state, or None when there is none that can be read.
    """
    try:
        with np.load(folder / FILE_NAME, allow_pickle=False) as stored:
            names = {kind: sorted(n for n in stored.files if n.startswith(f"{kind}/")) for kind in _ARRAYS}
            arrays: dict[str, Any] = {kind: [stored[name] for name in names[kind]] for kind in _ARRAYS}
            return State(**json.loads(str(stored["state"])), **arrays)
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        logging.warning("the checkpoint in %s cannot be read (%s); training starts from the beginning", folder, error)
        return None
