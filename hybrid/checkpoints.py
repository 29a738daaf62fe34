"""Folders in which work that was interrupted is found again.

A folder is named by a fingerprint of everything that the result depends on, so a changed run never goes on from foreign
work, and is locked, so two equal runs never share one.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kfp_hybrid.step import StepError

VARIABLE = "KFP_HYBRID_CHECKPOINTS"
LOCK_NAME = "lock"


def checkpoint_base(given: str, output: Path) -> Path:
    """Where checkpoints are kept: what the user gives, or what the runner offers, or a folder beside the output."""
    return Path(given or os.environ.get(VARIABLE) or output.parent / ".checkpoints")


def fingerprint(description: Mapping[str, Any]) -> str:
    """A name for everything that a result depends on: sha256 (hex, shortened) of its canonical JSON."""
    canonical = json.dumps(description, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@contextlib.contextmanager
def checkpoint_folder(base: Path, name: str) -> Iterator[Path]:
    """A folder that belongs to this process alone, removed when the work succeeds.

    If another process holds the folder `name`, this one gets an empty folder of its own, which never outlives it.

    Args:
        base: where checkpoints are kept; made if need be.
        name: the fingerprint of the work.

    Yields:
        The folder; it holds what an equal run left that was interrupted before.

    Raises:
        StepError: the folder cannot be made.
    """
    try:
        lock = _lock(base / name)
        private = None if lock else Path(tempfile.mkdtemp(prefix=f"{name}.", dir=base))
    except OSError as error:
        raise StepError(f"checkpoint_dir {base} cannot be used: {error.strerror}; give a writable folder") from None
    if private:
        logging.info("another run does the same work right now; this one starts from the beginning")
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
