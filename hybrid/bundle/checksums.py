"""SHA256SUMS, in the form that `sha256sum --check` reads too."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from kfp_hybrid.errors import UserError
from kfp_hybrid.storage.streams import pieces

NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def sha256(file: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        for piece in pieces(stream):  # type: ignore[arg-type]
            digest.update(piece)
    return digest.hexdigest()


def render(checksums: Mapping[str, str]) -> str:
    """The text of a SHA256SUMS file.

    Args:
        checksums: Path -> sha256; paths are relative, with `/`.

    Raises:
        UserError: a path that such a file cannot hold, or that leads out of the folder.
    """
    return "".join(f"{checksums[path]}  {_checked(path, NAME)}\n" for path in sorted(checksums))


def parse(text: str, origin: str) -> dict[str, str]:
    """Read the text of a SHA256SUMS file: path -> sha256.

    Args:
        text: The text.
        origin: What to call the file in an error.

    Raises:
        UserError: a line is not of the form, a path leads out of the folder or is there twice, or there is no line.
    """
    checksums: dict[str, str] = {}
    if not text.endswith("\n"):
        raise UserError(f"{origin} is truncated: its last line has no end; copy it again")
    for number, line in enumerate(text[:-1].split("\n"), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError(f"{origin}, line {number}: is not a sha256, two spaces and a path; copy the file again")
        path = _checked(match[2], f"{origin}, line {number}")
        if path in checksums:
            raise UserError(f"{origin}, line {number}: {path} is there twice; make the bundle again")
        checksums[path] = match[1]
    return checksums


def files_below(folder: Path) -> list[str]:
    """The paths of all files below `folder`, relative to it, with `/`.

    Raises:
        UserError: there is a link or another thing that is no file.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise UserError(f"{path} is a link or a device; a bundle holds only files and folders, so remove it")
        if path.is_file():
            found.append(path.relative_to(folder).as_posix())
    return found


def _checked(path: str, where: str) -> str:
    """`path`, if it is a plain relative path that means the same everywhere."""
    parts = path.split("/")
    if PurePosixPath(path).is_absolute() or ".." in parts:
        raise UserError(f"{where}: {path!r} leads out of the folder; this bundle is not to be trusted")
    if not path.isprintable() or "\\" in path or "" in parts or "." in parts:
        raise UserError(f"{where}: {path!r} is not a plain relative path; give the file another name")
    return path
