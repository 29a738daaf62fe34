"""Static inference: answers that were predicted before, by the key of a row.

A table is what `predict_batch` writes, an examples artifact with the columns of the keys and of the scores, and one
more entry in its manifest:

    "table": {"keys": ["id"], "scores": ["score"], "task": "binary", "label": "late", "classes": [0, 1]}

`keys` are int64 or string columns; a combination of their values occurs once. `scores` are the columns of the scores in
the order of the model's outputs. Rows without a score are as good as absent: the model answers them.

In memory are the sorted keys and the scores as arrays, about 12 bytes for a row with an integer key. Nothing else of
the table is kept.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfp_hybrid.step import StepError

if TYPE_CHECKING:
    import pyarrow as pa

    from kfp_hybrid.data.examples import Examples

ENTRY = "table"
SEPARATOR = "\x1f"  # between the texts of several key columns
KEY_BYTES = 128  # of the longest key; all keys take the room of the longest

log = logging.getLogger(__name__)


@dataclass
class PredictionTable:
    """Scores by key.

    Attributes:
        keys: names of the key columns.
        model_version: the version that predicted the scores.
        model_digest: the digest of its files.
        hits: rows that were answered from here.
        misses: rows of requests with keys that were not.
    """

    keys: tuple[str, ...]
    model_version: str
    model_digest: str
    _sorted: np.ndarray = field(repr=False)
    _scores: np.ndarray = field(repr=False)
    hits: int = 0
    misses: int = 0

    @property
    def rows(self) -> int:
        """How many keys have scores."""
        return len(self._sorted)

    @classmethod
    def open(cls, folder: Path) -> "PredictionTable":
        """Read a table after comparing its files with their sha256.

        Raises:
            StepError: it is no table, damaged, or its keys cannot be used.
        """
        from kfp_hybrid.data.examples import MANIFEST, Examples

        examples = Examples.open(folder)
        examples.verify()
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        try:
            keys, scores = tuple(manifest[ENTRY]["keys"]), list(manifest[ENTRY]["scores"])
            version, digest = manifest["predictions"]["model_version"], manifest["predictions"]["model_digest"]
        except (KeyError, TypeError):
            raise StepError(
                f"{folder} is not a prediction table: its {MANIFEST} has no entry {ENTRY!r} with keys and scores; "
                "write one with predict_batch and its option for tables"
            ) from None
        sorted_keys, sorted_scores = _read(examples, keys, scores)
        return cls(keys, version, digest, sorted_keys, sorted_scores)

    def lookup(self, columns: Mapping[str, Sequence[Any]]) -> np.ndarray | None:
        """The scores of all rows of a request.

        A request is answered from the table as a whole or not at all, so that an answer comes from one version.

        Args:
            columns: column name -> N values; columns that are no keys are ignored.

        Returns:
            float32 [N, outputs]; None when a key column or a key is not there.
        """
        try:
            values = [columns[name] for name in self.keys]
        except KeyError:
            return None
        wanted = _request_keys(values, self._sorted.dtype)
        if wanted is None or not len(self._sorted):
            self.misses += len(values[0])
            return None
        places = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        if not (self._sorted[places] == wanted).all():
            self.misses += len(wanted)
            return None
        self.hits += len(wanted)
        return self._scores[places]


def _read(examples: "Examples", keys: Sequence[str], scores: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The sorted keys [N] and their scores [N, outputs]."""
    if wrong := [name for name in keys if examples.columns.get(name) not in ("int64", "string")]:
        raise StepError(
            f"{examples.path}: key {wrong[0]!r} is no column of type int64 or string; write the table again"
        )
    if not keys or not scores:
        raise StepError(f"{examples.path}: the table names no keys or no scores; write it again")
    all_keys, all_scores = [], []
    for split in examples.splits:
        for batch in examples.batches(split, [*keys, *scores]):
            whole = _with_scores(batch, scores)
            all_keys.append(_table_keys(examples.path, [whole.column(name) for name in keys]))
            columns = [whole.column(name).to_numpy(zero_copy_only=False) for name in scores]
            all_scores.append(np.stack(columns, axis=1).astype(np.float32))
    if not all_keys:
        return np.empty(0, np.int64), np.empty((0, len(scores)), np.float32)
    joined = np.concatenate(all_keys)
    order = np.argsort(joined, kind="stable")
    joined = joined[order]
    repeated = np.flatnonzero(joined[1:] == joined[:-1])
    if len(repeated):
        raise StepError(f"{examples.path}: {len(repeated)} keys occur more than once; make keys unique, write it again")
    return joined, np.concatenate(all_scores)[order]


def _with_scores(batch: "pa.RecordBatch", scores: Sequence[str]) -> "pa.RecordBatch":
    if not any(batch.column(name).null_count for name in scores):
        return batch
    import pyarrow.compute as pc

    keep = batch.column(scores[0]).is_valid()
    for name in scores[1:]:
        keep = pc.and_(keep, batch.column(name).is_valid())
    return batch.filter(keep)


def _table_keys(path: Path, columns: Sequence["pa.Array"]) -> np.ndarray:
    """One array of keys: int64 for a single column of integers, otherwise UTF-8 text as fixed-width bytes."""
    if any(column.null_count for column in columns):
        raise StepError(f"{path}: a key is missing in some rows; every row of a table needs its key")
    if len(columns) == 1 and str(columns[0].type) == "int64":
        return columns[0].to_numpy()
    import pyarrow.compute as pc

    texts = [column.cast("string") for column in columns]
    joined = texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, SEPARATOR)
    longest = pc.max(pc.binary_length(joined)).as_py() or 0
    if longest > KEY_BYTES:
        raise StepError(f"{path}: a key has {longest} bytes, at most {KEY_BYTES} are possible; use a shorter id as key")
    if any(pc.any(pc.match_substring(text, mark)).as_py() for text in texts for mark in ("\0", SEPARATOR)):
        raise StepError(f"{path}: a key contains a control character (0 or 31); use another id as key")
    return np.array([text.encode() for text in joined.to_pylist()], dtype=f"S{max(longest, 1)}")


def _request_keys(columns: Sequence[Sequence[Any]], dtype: np.dtype) -> np.ndarray | None:
    """The keys of a request like those of the table; None when one of them cannot be in it."""
    if dtype == np.int64:
        numbers = [_whole(value) for value in columns[0]]
        return None if None in numbers else np.array(numbers, np.int64)
    keys = []
    for row in zip(*columns, strict=True):
        texts = [_text(value) for value in row]
        if None in texts:
            return None
        keys.append(SEPARATOR.join(texts).encode("utf-8", "surrogatepass"))  # type: ignore[arg-type]
    if not keys or max(map(len, keys)) > dtype.itemsize or any(key.endswith(b"\0") for key in keys):
        return None
    return np.array(keys, dtype)


def _whole(value: Any) -> int | None:
    """An integer of 64 bits, also as a float or as text; None for anything else."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    exact = str(number) == value if isinstance(value, str) else number == value and not isinstance(value, bool)
    return number if exact and -(2**63) <= number < 2**63 else None


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, str):
        return None if SEPARATOR in value or "\0" in value else value
    number = _whole(value)
    return None if number is None else str(number)
