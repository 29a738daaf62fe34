"""What a version consists of: regular files, their checksums, and one digest over all of them."""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from kfp_hybrid.step import StepError

CHUNK_BYTES = 1 << 20


class Checksum(NamedTuple):
    """The checksum and the size of one file."""

    sha256: str
    bytes: int


def regular_files(folder: Path) -> Iterator[Path]:
    """Yield every file below `folder`, in no promised order.

    Args:
        folder: An existing folder.

    Yields:
        The path of each file, starting with `folder`.

    Raises:
        StepError: for anything that is neither a regular file nor a folder. A symbolic link would publish whatever
            it happens to point to later, and a device or pipe has no content to publish.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from regular_files(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path)
            else:
                kind = "a symbolic link" if entry.is_symlink() else "neither a file nor a folder"
                raise StepError(f"{entry.path} is {kind}; a model to publish has plain files only, replace it")


def checksum(path: Path) -> Checksum:
    """Read the file at `path` and return its checksum."""
    sha256, size = hashlib.sha256(), 0
    for chunk in _chunks(path):
        sha256.update(chunk)
        size += len(chunk)
    return Checksum(sha256.hexdigest(), size)


def checksums(folder: Path) -> dict[str, Checksum]:
    """Read every file below `folder`.

    Args:
        folder: An existing folder.

    Returns:
        The checksum of each file by its path in the folder, with forward slashes.

    Raises:
        StepError: for anything that is neither a regular file nor a folder.
    """
    return {path.relative_to(folder).as_posix(): checksum(path) for path in regular_files(folder)}


def copy(source: Path, target: Path) -> Checksum:
    """Copy one file down to the disk and return the checksum of what was read.

    Args:
        source: The file to copy.
        target: Where to; must not exist. Missing parent folders are made.

    Returns:
        The checksum of the bytes that were written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sha256, size = hashlib.sha256(), 0
    with target.open("xb") as file:
        for chunk in _chunks(source):
            file.write(chunk)
            sha256.update(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return Checksum(sha256.hexdigest(), size)


def write_text(path: Path, text: str) -> None:
    """Write `text` to a new file at `path`, down to the disk."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_folders(folder: Path) -> None:
    """Bring the names in `folder` and in every folder below it down to the disk."""
    for path, _, _ in os.walk(folder):
        sync_folder(Path(path))


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` down to the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOSYS,
            errno.ENOTSUP,
        ):  # not every file system can
            raise
    finally:
        os.close(descriptor)


def digest(files: Mapping[str, Checksum]) -> str:
    """The digest of a whole content: the same names with the same bytes always give the same digest.

    Args:
        files: Checksum by path, in any order.

    Returns:
        A SHA-256 in hexadecimal digits.
    """
    lines = [[name, *files[name]] for name in sorted(files)]
    return hashlib.sha256(json.dumps(lines, separators=(",", ":")).encode("ascii")).hexdigest()


def difference(expected: Mapping[str, Checksum], found: Mapping[str, Checksum]) -> str:
    """Say how `found` differs from `expected`: one clause that names a file, or "" when they are equal."""
    return (
        _first("is missing", expected.keys() - found.keys())
        or _first("was added", found.keys() - expected.keys())
        or _first("has other bytes", [name for name in expected if expected[name] != found[name]])
    )


def _first(what: str, names: Iterable[str]) -> str:
    name = min(names, default="")
    return f"{name} {what}" if name else ""


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
