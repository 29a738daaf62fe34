"""The state of what a step's arguments name: files of this machine, and objects in stores."""

import glob
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kfp import dsl

from kfp_hybrid import storage
from kfp_hybrid.storage.retries import at_most

STORE_SCHEMES = ("s3", "minio", "gs")
PATIENCE_SECONDS = 10.0  # with a store that does not answer: the step itself has more

State = list[tuple[str, str, str]]


def state_of(arguments: Mapping[str, Any]) -> State:
    """(name, size, tag) of every file or object that an argument names: directly, as a folder or by a pattern.

    Files have the time of change for a tag, objects what their store says: an ETag, or a generation.

    Args:
        arguments: of a step, by name; text and artifacts are looked at.

    Raises:
        StorageError: a store does not tell what is there.
    """
    state: State = []
    for _, value in sorted(arguments.items()):  # kfp hands them over in another order each time
        name = value.uri if isinstance(value, dsl.Artifact) else value
        if isinstance(name, str) and 0 < len(name) < os.pathconf("/", "PC_PATH_MAX") and "\n" not in name:
            state += _state_behind(name)
    return state


def _state_behind(name: str) -> Iterator[tuple[str, str, str]]:
    scheme = name.partition("://")[0].lower() if storage.is_uri(name) else ""
    if scheme in STORE_SCHEMES:
        with at_most(PATIENCE_SECONDS):
            for entry in _objects(name):
                yield f"{name} {entry.key}", str(entry.size), entry.tag
        return
    path = storage.parse(name).prefix if scheme == "file" else name
    for found in sorted(glob.glob(path)) if glob.has_magic(path) else [path]:
        for file in _files_below(Path(found)):
            status = file.stat()
            yield str(file.resolve()), str(status.st_size), str(status.st_mtime_ns)


def _objects(uri: str) -> Iterator[storage.Entry]:
    store = storage.open_store(uri)
    if glob.has_magic(store.location.prefix):  # more than the pattern matches: a step that runs again does no harm
        folder, _, beginning = re.split(r"[*?[]", store.location.prefix)[0].rpartition("/")
        yield from store.at(folder).entries(beginning)
    else:
        single = store.stat("")
        yield from [single] if single else []
        yield from store.entries()


def _files_below(path: Path) -> list[Path]:
    if not path.exists():
        return []
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
