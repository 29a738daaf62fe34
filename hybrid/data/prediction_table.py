"""The prediction table: a directory that answers "what was predicted for this key?" without the model.

    manifest.json    key columns, rows, classes, which model predicted when, size and sha256 of the files below
    hashes.bin       uint64 [rows], ascending: the hash of each key; the rows of all files are in this order
    offsets.bin      int64 [rows + 1]: the key of row i is the bytes offsets[i] to offsets[i + 1] of keys.bin
    keys.bin         the keys, one after another
    scores.bin       float32 [rows, outputs]
    predicted.bin    int32 [rows]: positions in the classes; absent where there are no classes

Numbers are little-endian. The key of a row is the text of its key columns in their order, whole numbers in decimal,
with U+001F between two columns and a backslash before U+001F and before each backslash of a text; as UTF-8. Its hash
is BLAKE2b of 8 bytes, read as a little-endian number. No key comes twice.

A reader needs numpy only. It maps the files into memory, so that opening costs no memory per row and processes share
the pages. Writing needs pyarrow, and holds about a million rows in memory however many there are.
"""

import bisect
import hashlib
import json
import math
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kfp_hybrid.step import StepError

FORMAT = "kfp-hybrid/prediction-table"
VERSION = 1
MANIFEST = "manifest.json"
HASHES, OFFSETS, KEYS, SCORES, PREDICTED = (f"{n}.bin" for n in ("hashes", "offsets", "keys", "scores", "predicted"))
DTYPES = {HASHES: "<u8", OFFSETS: "<i8", KEYS: "u1", SCORES: "<f4", PREDICTED: "<i4"}
KEY_TYPES = ("int64", "string")
SEPARATOR, ESCAPE = "\x1f", "\\"
MISS = -1

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PredictionTable:
    """A prediction table on this machine.

    Attributes:
        path: the directory.
        keys: key column -> type, "int64" or "string".
        rows: number of keys.
        outputs: scores per row.
        classes: class values; () where `predicted` says nothing (a regression, whose score is what is predicted).
        manifest: the content of manifest.json; also has task, label, model_version, model_digest and predicted_at.
    """

    path: Path
    keys: Mapping[str, str]
    rows: int
    outputs: int
    classes: tuple[Any, ...]
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: bool = True) -> "PredictionTable":
        """Open a table.

        Args:
            path: the directory.
            verify: compare the sha256 of every file with the manifest, about a second per GB; sizes always are.

        Raises:
            StepError: there is no table, or it is damaged or of a newer version.
        """
        directory = Path(path)
        manifest = _read_manifest(directory)
        for name, entry in manifest["files"].items():
            _verify(directory / name, entry, verify)
        return cls(
            directory, manifest["keys"], manifest["rows"], manifest["outputs"], tuple(manifest["classes"]), manifest
        )

    @property
    def model_version(self) -> str:
        """The version of the model that predicted."""
        return str(self.manifest["model_version"])

    @cached_property
    def scores(self) -> Array:
        """float32 [rows, outputs], read-only."""
        return self._map(SCORES).reshape(self.rows, self.outputs)

    @cached_property
    def predicted(self) -> Array | None:
        """int32 [rows], positions in `classes`; None where there are no classes."""
        return self._map(PREDICTED) if self.classes else None

    def find(self, keys: Mapping[str, Sequence[Any]]) -> Array:
        """The rows of keys.

        Args:
            keys: key column -> N values; other columns are ignored.

        Returns:
            int64 [N]: the row in `scores` and `predicted`; MISS (-1) for a key that is not there, or no key at all.

        Raises:
            StepError: a key column is missing.
        """
        if missing := [name for name in self.keys if name not in keys]:
            raise StepError(f"the prediction table wants the key column {missing[0]!r}, which is missing")
        wanted = zip(*(keys[name] for name in self.keys), strict=True)
        return np.array([self._row(key_of(self.keys, values)) for values in wanted], np.int64)

    def decisions(self, rows: Array) -> list[Any]:
        """The class values of rows that were found."""
        return [] if self.predicted is None else [self.classes[position] for position in self.predicted[rows].tolist()]

    def _row(self, key: bytes | None) -> int:
        if key is None:
            return MISS
        # Views give Python's own numbers, which for one key is several times as fast as NumPy's search.
        hashes, offsets, keys = self._views
        wanted = int.from_bytes(hash_of(key), "little")
        row = bisect.bisect_left(hashes, wanted)
        while row < self.rows and hashes[row] == wanted:
            if keys[offsets[row] : offsets[row + 1]] == key:
                return row
            row += 1
        return MISS

    @cached_property
    def _views(self) -> tuple[memoryview, memoryview, memoryview]:
        """The hashes, the offsets and the keys."""
        hashes, offsets, keys = (self._map(name).data for name in (HASHES, OFFSETS, KEYS))
        return hashes, offsets, keys

    def _map(self, name: str) -> Array:
        file, dtype = self.path / name, np.dtype(DTYPES[name])
        if not file.stat().st_size:  # nothing to map
            return np.empty(0, dtype)
        return np.asarray(np.memmap(file, dtype, "r"))


def key_of(keys: Mapping[str, str], values: Iterable[Any]) -> bytes | None:
    """The key of a row; None when a value is missing or can be no key.

    Args:
        keys: key column -> type.
        values: one value for each; 7.0 is the whole number 7.
    """
    texts = [_text(type_, value) for type_, value in zip(keys.values(), values, strict=True)]
    return None if None in texts else SEPARATOR.join(text for text in texts if text is not None).encode()


def hash_of(key: bytes) -> bytes:
    """The hash of a key, 8 bytes."""
    return hashlib.blake2b(key, digest_size=8).digest()


def hashes_of(keys: Iterable[bytes]) -> Array:
    """The hashes of keys, uint64 [N]."""
    return np.frombuffer(b"".join(map(hash_of, keys)), DTYPES[HASHES])


def _text(type_: str, value: Any) -> str | None:
    if type_ == "string":
        if not isinstance(value, str):
            return None
        return value.replace(ESCAPE, ESCAPE * 2).replace(SEPARATOR, ESCAPE + SEPARATOR)
    if isinstance(value, bool):
        return None
    if isinstance(value, float | np.floating):
        return str(int(value)) if math.isfinite(value) and float(value).is_integer() else None
    try:
        return str(operator.index(value))
    except TypeError:
        return None


def _read_manifest(directory: Path) -> dict[str, Any]:
    file = directory / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StepError(f"{directory} is not a prediction table: cannot read {MANIFEST} ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StepError(f"{directory} is not a prediction table: the format in {MANIFEST} is not {FORMAT}")
    if manifest.get("version") != VERSION:
        raise StepError(
            f"{file} has version {manifest.get('version')}, this code reads version {VERSION}; "
            "use the same release of kfp-hybrid where tables are written and where they are read"
        )
    expected = {HASHES, OFFSETS, KEYS, SCORES} | ({PREDICTED} if manifest.get("classes") else set())
    if set(manifest.get("files", ())) != expected:
        raise StepError(f"{file} does not name the files of a prediction table; write the table again")
    return manifest


def _verify(file: Path, entry: Mapping[str, Any], content: bool) -> None:
    try:
        damaged = file.stat().st_size != entry["bytes"] or (content and sha256(file) != entry["sha256"])
    except OSError as error:
        raise StepError(f"cannot read {file}: {error.strerror}; write the prediction table again") from None
    if damaged:
        raise StepError(f"{file} is damaged: its size or sha256 is not that in {MANIFEST}; copy the table again")


def sha256(file: Path) -> str:
    """Sha256 (hex) of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
