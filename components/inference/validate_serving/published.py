"""The model that is in use where push_model publishes."""

import contextlib
import json
import tempfile
from pathlib import Path

from kfp_hybrid import storage
from kfp_hybrid.components.deployment.push_model.versions import LATEST
from kfp_hybrid.scoring.model_files import POINTER


def running_version(destination: str, stack: contextlib.ExitStack) -> Path | None:
    """The artifact that stands for the version in use; None as long as nothing is published.

    Args:
        destination: The directory or URI of push_model.
        stack: Keeps what has to be fetched.

    Raises:
        StorageError: the store cannot be read.
    """
    if not storage.is_uri(destination):
        folder = Path(destination)
        return folder if (folder / LATEST).is_file() else None
    store = storage.open_store(destination)
    if store.stat(LATEST) is None:
        return None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="running-")))
    pointer = {"destination": destination, "version": int(store.read(LATEST))}
    (folder / POINTER).write_text(json.dumps(pointer), encoding="utf-8")
    return folder
