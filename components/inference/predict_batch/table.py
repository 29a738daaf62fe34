"""A prediction table of predictions: a key gives its scores without the model."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kfp_hybrid.data.examples import MANIFEST, Examples
from kfp_hybrid.data.prediction_table_writer import TableWriter

TABLE = "table"
FACTS = ("task", "label", "model_version", "model_digest", "predicted_at", "engine")

Array = np.ndarray[Any, Any]


def made_by(predictions: Path) -> dict[str, Any]:
    """What the manifest of predictions says about the job that made them; {} where it says nothing."""
    found: dict[str, Any] = json.loads((predictions / MANIFEST).read_text(encoding="utf-8")).get("predictions", {})
    return found


def write_table(predictions: Path, duplicates: str) -> int:
    """Write the table of predictions into their folder, as `table`. Rows without a score are left out.

    Args:
        predictions: an examples artifact that predict_batch or merge_predictions wrote.
        duplicates: what happens when a key comes twice: "error", or the "last" row counts.

    Returns:
        The number of keys.

    Raises:
        StepError: a row has no key, or a key comes twice.
    """
    artifact, facts = Examples.open(predictions), made_by(predictions)
    keys = {name: artifact.columns[name] for name in facts["key_columns"]}
    rows = sum(artifact.rows(split) for split in artifact.splits)
    writer = TableWriter(predictions / TABLE, keys, rows, facts["classes"], duplicates)
    for batch in _batches(artifact, [*keys, *facts["scores"]], facts):
        scores = np.stack([batch[name].to_numpy().astype(np.float32) for name in facts["scores"]], axis=1)
        writer.add(batch.select(list(keys)), scores, _positions(batch, facts))
    return writer.finish(**{name: facts[name] for name in FACTS})


def _batches(artifact: Examples, columns: list[str], facts: Mapping[str, Any]) -> Iterator[pa.Table]:
    """The rows that have a score."""
    names = list(dict.fromkeys([*columns, *([facts["predicted"]] if facts["classes"] else [])]))
    for split in artifact.splits:
        for batch in artifact.batches(split, names):
            rows = pa.Table.from_batches([batch])
            yield rows.filter(pc.is_valid(rows[facts["scores"][0]]))


def _positions(rows: pa.Table, facts: Mapping[str, Any]) -> Array | None:
    if not facts["classes"]:
        return None
    predicted = rows[facts["predicted"]]
    return pc.index_in(predicted, pa.array(map(_plain(predicted.type), facts["classes"]))).to_numpy()


def _plain(type_: pa.DataType) -> type:
    return int if pa.types.is_integer(type_) else str
