"""Writes a bundle part by part, so that a run that was stopped is gone on with."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from kfp_hybrid.bundle import checksums, index
from kfp_hybrid.bundle.index import Index, Part
from kfp_hybrid.errors import UserError

LOCK = ".lock"
UNFINISHED = ".unfinished"
OWN = {LOCK, *(name for own in (index.NAME, checksums.NAME) for name in (own, index.unfinished(own)))}


class Writer:
    """A bundle while it is written. A part is there whole and in the index, or it is made again."""

    def __init__(self, folder: Path, content: Index, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._index = content
        self._say = say
        self._wanted: set[str] = set()

    def add(self, path: str, source: str, make: Callable[[Path], None]) -> None:
        """Make a part, unless it is there already.

        Args:
            path: Where in the bundle: a file or a folder.
            source: What it is made from; a part that is there from the same source is kept. Empty: never kept.
            make: Writes the file, or the folder and its files, to the path that it is given.
        """
        self._wanted.add(path)
        there = self._index.parts.get(path)
        if there and source and there.source == source and self._is_whole(path, there):
            self._say(f"kept  {path}")
            return
        unfinished = self._folder / UNFINISHED
        _remove(unfinished)
        make(unfinished)
        files = {f"{path}{name}": digest for name, digest in _digests(unfinished).items()}
        place = self._folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove(place)
        unfinished.replace(place)
        self._index.parts[path] = Part(source=source, files=files)
        self._index.write(self._folder)
        self._say(f"wrote {path}")

    def finish(self) -> None:
        """Remove what an earlier run wrote and this one does not want, and write the checksums.

        Raises:
            UserError: there are files that no run wrote.
        """
        for path in sorted(set(self._index.parts) - self._wanted):
            del self._index.parts[path]
            self._index.write(self._folder)
            _remove(self._folder / path)
        _remove(self._folder / UNFINISHED)
        sums = {name: digest for part in self._index.parts.values() for name, digest in part.files.items()}
        surplus = [name for name in checksums.files_below(self._folder) if name not in sums and name not in OWN]
        if surplus:
            raise UserError(f"{self._folder / surplus[0]} is not of the bundle; move it away and run this again")
        self._index.write(self._folder)
        sums[index.NAME] = checksums.sha256(self._folder / index.NAME)
        index.write_whole(self._folder / checksums.NAME, checksums.render(sums))

    def _is_whole(self, path: str, part: Part) -> bool:
        place = self._folder / path
        return place.exists() and {f"{path}{name}": digest for name, digest in _digests(place).items()} == part.files


@contextmanager
def writing(folder: Path, content: Index, say: Callable[[str], None]) -> Iterator[Writer]:
    """A writer for the bundle in `folder`, which goes on with what is there. One process at a time has it.

    Raises:
        UserError: the folder holds something else, another process is writing, or writing fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / LOCK, timeout=0):
            if (folder / index.NAME).exists():
                content.parts = Index.read(folder).parts
            elif others := [path for path in folder.iterdir() if path.name != LOCK]:
                raise UserError(
                    f"{folder} is no bundle and has other files, such as {others[0].name}; give a new folder"
                )
            (folder / checksums.NAME).unlink(missing_ok=True)
            content.write(folder)
            writer = Writer(folder, content, say)
            yield writer
            writer.finish()
    except filelock.Timeout:
        raise UserError(
            f"another process is writing the bundle {folder}; wait for it, or give another folder"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or folder}: {error.strerror}; run this again: it goes on where it stopped"
        ) from None


def _digests(place: Path) -> dict[str, str]:
    """Suffix to the path of `place` -> sha256, of the file or of all files below the folder. All are on the disk."""
    if place.is_file():
        return {"": _synced(place)}
    return {f"/{name}": _synced(place / name) for name in checksums.files_below(place)}


def _synced(file: Path) -> str:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    return checksums.sha256(file)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
