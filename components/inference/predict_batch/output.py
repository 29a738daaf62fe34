"""Puts finished shards together as predictions: an examples artifact whose manifest says which model made them."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kfp_hybrid.data.examples import MANIFEST, Split, write_manifest
from kfp_hybrid.step import StepError


def require_free(output: Path) -> None:
    """Check that an output replaces nothing but predictions and other examples artifacts.

    Raises:
        StepError: something else is there.
    """
    if output.exists() and not (output / MANIFEST).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise StepError(f"{output} exists and holds no predictions; it is not overwritten: move it away")


def write_predictions(
    new: Path,
    columns: Mapping[str, str],
    splits: Mapping[str, Split],
    files: Mapping[str, Path],
    sources: Iterable[str],
    facts: Mapping[str, Any],
) -> None:
    """Write an artifact of files that exist.

    Args:
        new: its directory, made by this.
        columns: column name -> type.
        splits: split name -> its files.
        files: path of a file in the artifact -> where it is now; it stays there.
        sources: where the rows come from.
        facts: about the model and the job, JSON values.

    Raises:
        StepError: the disk is full, or not writable.
    """
    try:
        new.mkdir()
        for path, file in files.items():
            (new / path).parent.mkdir(exist_ok=True)
            _place(file, new / path)
        write_manifest(new, columns, splits, sources=sources, predictions=facts)
    except OSError as error:
        raise StepError(
            f"cannot write {new.parent}: {error.strerror or error}; check its permissions and space"
        ) from error


def _place(file: Path, target: Path) -> None:
    """Give a file a second name; a copy where that cannot be."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
