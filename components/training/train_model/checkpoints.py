"""Checkpoints: what training needs to go on after a kill as if nothing had happened.

One file holds the state after an epoch: weights, random number generators, optimizer, early stopping and the
history. It is replaced atomically. Its folder is named by a fingerprint of the data and all parameters, so a
changed run never goes on from a foreign checkpoint, and is locked, so two equal runs never share one.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kfp_hybrid.step import StepError

FILE_NAME = "checkpoint.npz"
LOCK_NAME = "lock"


def fingerprint(description: Mapping[str, Any]) -> str:
    """A name for everything that a training's result depends on: sha256 (hex, shortened) of its canonical JSON."""
    canonical = json.dumps(description, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@contextlib.contextmanager
def checkpoint_folder(base: Path, name: str) -> Iterator[Path]:
    """A folder that belongs to this process alone, removed when the training succeeds.

    If another process holds the folder `name`, this one gets an empty folder of its own, which never outlives it.

    Args:
        base: where checkpoints are kept; made if need be.
        name: the fingerprint of the training.

    Yields:
        The folder; it holds a checkpoint if an equal training was interrupted before.

    Raises:
        StepError: the folder cannot be made.
    """
    try:
        lock = _lock(base / name)
        private = None if lock else Path(tempfile.mkdtemp(prefix=f"{name}.", dir=base))
    except OSError as error:
        raise StepError(f"checkpoint_dir {base} cannot be used: {error.strerror}; give a writable folder") from None
    if private:
        logging.info("another run trains the same model right now; this one starts from the beginning")
        try:
            yield private
        finally:
            shutil.rmtree(private, ignore_errors=True)
        return
    with contextlib.closing(lock):  # closing the file gives the lock back
        yield base / name
        shutil.rmtree(base / name, ignore_errors=True)


def _lock(folder: Path) -> Any:
    """The open and locked lock file of a folder, or None when another process has locked it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = (folder / LOCK_NAME).open("w")
        except FileNotFoundError:  # its owner finished and removed the folder in between
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(folder / LOCK_NAME)):
                return file
        file.close()  # the lock of a file that has been removed means nothing


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
