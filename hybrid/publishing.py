"""Outputs that appear whole or not at all."""

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kfp_hybrid.step import StepError

# What Cloud Storage FUSE says, in newer and older versions, and other file systems over object stores.
NO_RENAME = {errno.EMFILE, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV}


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
            replace(hidden / "new", path)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def replace(unfinished: Path, path: Path, *, last: str = "") -> None:
    """Put a finished directory in the place of an older one, if there is one.

    It is a rename, before which nobody sees the new content and after which nobody sees the old one. Cloud Storage
    FUSE, through which steps on Vertex AI write, renames no directories unless told to. There the files are copied, and
    the platform starts no reader before the step has ended.

    Args:
        unfinished: The directory, beside `path`.
        path: Where it belongs.
        last: A file in it that is copied after all others: without it, what is in `path` does not count.

    Raises:
        OSError: the disk is full, or `path` cannot be written.
    """
    older = unfinished.with_name(f"{unfinished.name}.replaced")
    try:
        if path.exists():
            path.rename(older)
        unfinished.rename(path)
    except OSError as error:
        if error.errno not in NO_RENAME:
            raise
        _copy(unfinished, path, last)
    shutil.rmtree(older, ignore_errors=True)


def _copy(source: Path, target: Path, last: str) -> None:
    if target.exists():
        shutil.rmtree(target)
    try:
        shutil.copytree(
            source, target, copy_function=shutil.copyfile,
            ignore=lambda folder, names: [last] if folder == str(source) else [],
        )  # fmt: skip
        if last:
            shutil.copyfile(source / last, target / last)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
