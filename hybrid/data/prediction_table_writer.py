"""Writes a prediction table; `kfp_hybrid.data.prediction_table` describes and reads it.

Rows come in any order and leave in the order of their hashes: they first go into buckets on the disk, each for a range
of hashes, and the buckets are then sorted one after another.
"""

import contextlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kfp_hybrid.data.prediction_table import (
    DTYPES,
    ESCAPE,
    FORMAT,
    HASHES,
    KEY_TYPES,
    KEYS,
    MANIFEST,
    OFFSETS,
    PREDICTED,
    SCORES,
    SEPARATOR,
    VERSION,
    hashes_of,
    sha256,
)
from kfp_hybrid.step import StepError

BUCKET_ROWS = 1 << 20
BUCKETS = ".buckets"
ERROR, LAST = "error", "last"

Array = np.ndarray[Any, Any]


class TableWriter:
    """Writes one table; `finish` makes it complete. The caller moves the directory to where it is read.

    Args:
        path: the directory; made by this.
        keys: key column -> type, "int64" or "string".
        rows: how many rows will come, at least roughly.
        classes: class values; () where nothing but scores is written.
        duplicates: what happens when a key comes twice: "error", or the "last" one counts.

    Raises:
        StepError: a key column is of a type that can be no key.
    """

    def __init__(
        self, path: Path, keys: Mapping[str, str], rows: int, classes: Sequence[Any] = (), duplicates: str = ERROR
    ):
        require_keys(keys)
        self._path = path
        self._keys = dict(keys)
        self._classes = list(classes)
        self._duplicates = duplicates
        self._buckets = _Buckets(path / BUCKETS, max(1, math.ceil(rows / BUCKET_ROWS)))
        self._outputs = 1

    def add(self, keys: pa.Table, scores: Array, predicted: Array | None) -> None:
        """Add N rows.

        Args:
            keys: their key columns.
            scores: float32 [N, outputs].
            predicted: positions in the classes, [N]; None where there are no classes.

        Raises:
            StepError: a row has no key.
        """
        for name in self._keys:
            if keys[name].null_count:
                raise StepError(f"a row has no value in the key column {name!r}; a prediction table needs one in each")
        self._outputs = scores.shape[1]
        texts = _keys(keys, self._keys)
        positions = np.zeros(len(texts), np.int32) if predicted is None else predicted.astype(np.int32)
        self._buckets.add(hashes_of(texts.to_pylist()), texts, np.ascontiguousarray(scores, np.float32), positions)

    def finish(self, **facts: Any) -> int:
        """Write the table.

        Args:
            facts: further entries of the manifest, JSON values: task, label, model_version, model_digest, predicted_at.

        Returns:
            The number of keys.

        Raises:
            StepError: a key comes twice, which is an error unless the last one counts.
        """
        names = [HASHES, OFFSETS, KEYS, SCORES, *([PREDICTED] if self._classes else [])]
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context((self._path / name).open("wb")) for name in names}
            _append(files, OFFSETS, np.zeros(1, np.int64))
            rows = end = 0
            for table in self._buckets.sorted():
                unique = self._without_duplicates(table)
                end = self._append(files, unique, end)
                rows += unique.num_rows
        self._buckets.remove()
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "keys": self._keys,
            "rows": rows,
            "outputs": self._outputs,
            "classes": self._classes,
            **facts,
            "files": {n: {"bytes": (self._path / n).stat().st_size, "sha256": sha256(self._path / n)} for n in names},
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        (self._path / MANIFEST).write_text(text + "\n", encoding="utf-8")
        return rows

    def _without_duplicates(self, table: pa.Table) -> pa.Table:
        """The rows of a bucket, sorted by hash, without those whose key comes again."""
        hashes = table["hash"].to_numpy()
        equal = np.flatnonzero(hashes[1:] == hashes[:-1])
        if not len(equal):
            return table
        keep = np.ones(len(hashes), bool)
        rows = np.union1d(equal, equal + 1)
        latest: dict[bytes, int] = {}
        for row, key in zip(rows.tolist(), table["key"].take(pa.array(rows)).to_pylist(), strict=True):
            if key in latest:
                if self._duplicates == ERROR:
                    raise StepError(self._duplicate(key))
                keep[latest[key]] = False
            latest[key] = row
        return table.filter(pa.array(keep))

    def _duplicate(self, key: bytes) -> str:
        columns = ", ".join(self._keys)
        shown = key.decode().replace(SEPARATOR, ", ")
        return (
            f"the key {shown!r} ({columns}) comes twice, so a prediction table could answer only one of them; "
            f"give key columns that identify a row, or let the last one count (table_duplicates={LAST!r})"
        )

    def _append(self, files: Mapping[str, BinaryIO], table: pa.Table, end: int) -> int:
        texts = table["key"].combine_chunks() if table.num_rows else pa.array([], pa.binary())
        ends = end + np.cumsum(pc.binary_length(texts).to_numpy(), dtype=np.int64)
        _append(files, HASHES, table["hash"].to_numpy())
        _append(files, OFFSETS, ends)
        files[KEYS].write(b"".join(texts.to_pylist()))
        scores = [table[f"score_{i}"].to_numpy() for i in range(self._outputs)]
        _append(files, SCORES, np.stack(scores, axis=1))
        if PREDICTED in files:
            _append(files, PREDICTED, table["predicted"].to_numpy())
        return int(ends[-1]) if len(ends) else end


def require_keys(keys: Mapping[str, str]) -> None:
    """Check that columns can be a key.

    Args:
        keys: key column -> type.

    Raises:
        StepError: there is none, or one is neither whole numbers nor text.
    """
    if not keys:
        raise StepError("a prediction table needs key columns: give the columns that identify a row (key_columns)")
    for name, type_ in keys.items():
        if type_ not in KEY_TYPES:
            raise StepError(f"the key column {name!r} has the type {type_}; a key is whole numbers (int64) or string")


def _append(files: Mapping[str, BinaryIO], name: str, values: Array) -> None:
    files[name].write(np.ascontiguousarray(values, DTYPES[name]).tobytes())


def _keys(table: pa.Table, keys: Mapping[str, str]) -> pa.Array:
    """The keys of rows, binary [N]; the same as `prediction_table.key_of` gives row by row."""
    texts = []
    for name, type_ in keys.items():
        column = table[name].cast(pa.string())
        if type_ == "string":
            column = pc.replace_substring(column, ESCAPE, ESCAPE * 2)
            column = pc.replace_substring(column, SEPARATOR, ESCAPE + SEPARATOR)
        texts.append(column)
    joined = pc.binary_join_element_wise(*texts, SEPARATOR) if len(texts) > 1 else texts[0]
    chunks = joined.cast(pa.binary())
    return chunks.combine_chunks() if isinstance(chunks, pa.ChunkedArray) else chunks


class _Buckets:
    """Rows on the disk, those of one range of hashes together."""

    def __init__(self, folder: Path, count: int):
        folder.mkdir(parents=True)
        self._folder = folder
        self._count = count
        self._writers: dict[int, pa.RecordBatchFileWriter] = {}

    def add(self, hashes: Array, keys: pa.Array, scores: Array, predicted: Array) -> None:
        columns = {f"score_{i}": pa.array(column) for i, column in enumerate(scores.T)}
        rows = pa.table({"hash": hashes, "key": keys, "predicted": predicted, **columns})
        bucket = ((hashes >> np.uint64(32)) * np.uint64(self._count)) >> np.uint64(32)
        for number in np.unique(bucket).tolist():
            chosen = rows if self._count == 1 else rows.filter(pa.array(bucket == number))
            if number not in self._writers:
                self._writers[number] = pa.ipc.new_file(str(self._folder / str(number)), rows.schema)
            self._writers[number].write_table(chosen)

    def sorted(self) -> Any:
        """The buckets in the order of their hashes, each sorted; equal ones stay in the order in which they came."""
        for writer in self._writers.values():
            writer.close()
        for number in sorted(self._writers):
            with pa.ipc.open_file(str(self._folder / str(number))) as reader:
                table = reader.read_all()
            yield table.take(pa.array(np.argsort(table["hash"].to_numpy(), kind="stable")))

    def remove(self) -> None:
        shutil.rmtree(self._folder)
