"""The files of recorded requests: an examples artifact that grows by parts.

    <place>/<time>-<host>-<random>/manifest.json               replaced after each part
    <place>/<time>-<host>-<random>/serving/part-00000.parquet

Each server process has a folder of its own, and begins another one after a while, when it has many parts, or when a
version has other columns. At any moment a folder is a complete examples artifact with the split `serving`. Its columns
are the features, then those of `predict_batch`: score or score_<class>, predicted, model_version, predicted_at; and
request_key. Where a feature has one of these names, all of them begin with `served_`.
"""

import hashlib
import io
import logging
import math
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kfp_hybrid import storage
from kfp_hybrid.components.inference.predict_batch.columns import Columns
from kfp_hybrid.data.examples import MANIFEST, File, Split, arrow_schema, write_manifest
from kfp_hybrid.edge.model import DECISION_THRESHOLD
from kfp_hybrid.serving.recording import Entry
from kfp_hybrid.serving.servable import INTEGER_CATEGORY, NUMBER, TEXT, Feature, Servable
from kfp_hybrid.step import StepError

SPLIT = "serving"
PREFIX = "served_"
TIME, KEY = "predicted_at", "request_key"
FOLDER_SECONDS = 86400.0
FOLDER_PARTS = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A Parquet file that is not written yet.

    Attributes:
        types: column name -> type of examples.
        data: the file.
        rows: its rows.
    """

    types: dict[str, str]
    data: bytes
    rows: int


class Recorded:
    """Writes parts to a folder or an object store.

    Args:
        place: a path or URI.
        name: the name of the model, for the manifests.
        folder_seconds: after which another folder begins.
    """

    def __init__(self, place: str, name: str, folder_seconds: float = FOLDER_SECONDS) -> None:
        self._store = storage.open_store(place)
        self._name = name
        self._folder_seconds = folder_seconds
        self._folders: dict[tuple[str, ...], _Folder] = {}  # that grow, by their columns

    def encode(self, entries: Sequence[Entry]) -> tuple[list[Part], int]:
        """One part for each set of columns, and the number of rows that fit into none."""
        tables: dict[tuple[tuple[str, str], ...], list[pa.Table]] = {}
        failed = 0
        by_version: dict[Servable, list[Entry]] = {}
        for entry in entries:
            by_version.setdefault(entry.served.servable, []).append(entry)
        for servable, own in by_version.items():
            columns, features = columns_of(servable)
            table, wrong = _table(own, columns, features)
            failed += wrong
            tables.setdefault(tuple(columns.types.items()), []).append(table)
        parts = []
        for types, found in tables.items():
            table = pa.concat_tables(found)
            if table.num_rows:
                file = io.BytesIO()
                pq.write_table(table, file)
                parts.append(Part(dict(types), file.getvalue(), table.num_rows))
        return parts, failed

    def write(self, part: Part) -> None:
        """Write a part and then the manifest that names it.

        Raises:
            StorageError: the store cannot be written to; a part that no manifest names is replaced by the next one.
        """
        folder = self._folder(part)
        name = f"{SPLIT}/part-{len(folder.files):05d}.parquet"
        file = File(name, part.rows, len(part.data), hashlib.sha256(part.data).hexdigest())
        self._store.write_bytes(f"{folder.name}/{name}", part.data)
        self._store.write_bytes(f"{folder.name}/{MANIFEST}", self._manifest(part.types, [*folder.files, file]))
        folder.files.append(file)

    def _folder(self, part: Part) -> "_Folder":
        """The folder that a part goes to: another one when there is none for its columns, or it is old or full."""
        now = time.time()
        columns = (*part.types, *part.types.values())
        folder = self._folders.get(columns)
        if folder is None or now >= folder.ends or len(folder.files) >= FOLDER_PARTS:
            when = datetime.fromtimestamp(now, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
            name = f"{when}-{socket.gethostname()}-{secrets.token_hex(3)}"
            folder = self._folders[columns] = _Folder(name, now + self._folder_seconds)
            log.info("recording requests in %s", self._store.uri_of(name))
        return folder

    def _manifest(self, types: dict[str, str], files: Iterable[File]) -> bytes:
        with tempfile.TemporaryDirectory(prefix="kfp-hybrid-") as folder:
            write_manifest(Path(folder), types, {SPLIT: Split(tuple(files))}, sources=[f"serving:{self._name}"])
            return (Path(folder) / MANIFEST).read_bytes()


@dataclass
class _Folder:
    """A folder of parts, what is in it, and when another one begins."""

    name: str
    ends: float
    files: list[File] = field(default_factory=list)


def columns_of(servable: Servable) -> tuple[Columns, list[Feature]]:
    """The columns for a version, and the features among them: those whose values are plain."""
    features = [feature for feature in servable.features if not feature.shape]
    types = {feature.name: _type(feature) for feature in features}
    for prefix in ("", PREFIX):
        keys = {**types, prefix + TIME: "string", prefix + KEY: "string"}
        if len(keys) < len(types) + 2:
            continue
        try:
            constants = {"model_version": servable.version}
            return Columns(keys, servable.answer, servable.outputs, prefix, DECISION_THRESHOLD, constants), features
        except StepError:
            continue
    raise StepError(f"the features have names that begin with {PREFIX!r}, so they cannot be recorded; rename them")


def _type(feature: Feature) -> str:
    if feature.kind == TEXT:
        return "string"
    return "int64" if feature.kind == INTEGER_CATEGORY or feature.datatype.startswith("INT") else "double"


def _table(entries: Sequence[Entry], columns: Columns, features: Sequence[Feature]) -> tuple[pa.Table, int]:
    """The rows of one version, and the number of those that do not fit into the columns."""
    try:
        return _convert(entries, columns, features), 0
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        if len(entries) > 1:  # one request must not spoil the others
            halves = [_table(half, columns, features) for half in (entries[::2], entries[1::2])]
            return pa.concat_tables([table for table, _ in halves]), sum(wrong for _, wrong in halves)
        log.warning("a request cannot be recorded: its values do not fit (%s)", type(error).__name__)
        return arrow_schema(columns.types).empty_table(), entries[0].served.rows.count


def _convert(entries: Sequence[Entry], columns: Columns, features: Sequence[Feature]) -> pa.Table:
    arrays = []
    for feature in features:
        convert = _CONVERSIONS[feature.kind if feature.datatype[:3] != "INT" else INTEGER_CATEGORY]
        values = [convert(v) for entry in entries for v in _plain(entry.served.rows.columns[feature.name])]
        arrays.append(pa.array(values, arrow_schema({"": columns.types[feature.name]}).field(0).type))
    times = [_iso(entry.time) for entry in entries for _ in range(entry.served.rows.count)]
    request_keys = [entry.served.key or None for entry in entries for _ in range(entry.served.rows.count)]
    arrays += [pa.array(times, pa.string()), pa.array(request_keys, pa.string())]
    keys = pa.Table.from_arrays(arrays, names=list(columns.keys))
    scores = np.concatenate([entry.served.scores for entry in entries])
    return columns.table(keys, scores).cast(arrow_schema(columns.types))


def _plain(values: Any) -> Iterable[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _number(value: Any) -> float | None:
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else None


def _integer(value: Any) -> int | None:
    """A whole number; what is none cannot stand in a column of integers, so it counts as missing."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {NUMBER: _number, INTEGER_CATEGORY: _integer, TEXT: _text}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
