"""Outputs that appear whole or not at all."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kfp_hybrid.step import StepError


@contextlib.contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Prepare an output directory out of sight and put it in place at the end, replacing an earlier one.

    Args:
        path: where the output belongs.

    Yields:
        Where to write instead; does not exist yet. If the body writes nothing, nothing is published.

    Raises:
        StepError: the folder of the output cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".unfinished", dir=path.parent))
    except OSError as error:
        raise StepError(f"cannot write to {path.parent}: {error.strerror}; give a writable output folder") from None
    try:
        yield hidden / "new"
        if (hidden / "new").exists():
            if path.exists():
                path.rename(hidden / "old")
            (hidden / "new").rename(path)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
