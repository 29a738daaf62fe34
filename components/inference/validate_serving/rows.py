"""The rows that are sent, and the scores that come back."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from kfp_hybrid.components.deployment.export_tflite.sampling import sample_positions, sample_rows
from kfp_hybrid.components.inference.validate_serving.client import Client, RefusedError
from kfp_hybrid.components.inference.validate_serving.comparison import Array, Comparison
from kfp_hybrid.components.inference.validate_serving.server_process import DEATH_SECONDS, Server, ServingFailure
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.reports.text import elide

LONGEST_ROW = 400  # characters in a sentence


@dataclass(frozen=True)
class Sample:
    """Rows spread over a split.

    Attributes:
        split: Its name.
        positions: int64 [N], where in the split they are.
        batch: Their features.
        rows: The same as JSON values.
    """

    split: str
    positions: Array
    batch: pa.RecordBatch
    rows: list[dict[str, Any]]

    def describe(self, row: int) -> str:
        """Where a row is and what it holds."""
        values = json.dumps(self.rows[row], ensure_ascii=False)
        return f"row {self.positions[row]} of {self.split} {elide(values, LONGEST_ROW)}"

    def describe_worst(self, comparison: Comparison, other: str) -> str:
        """The row with the largest difference, and both of its scores."""
        row = comparison.worst_row
        served, reference = (_shown(scores[row]) for scores in (comparison.scores, comparison.reference))
        return f"{self.describe(row)} is served {served}, {other} {reference}"


def read_sample(examples: Examples, split: str, rows: int, features: Sequence[str]) -> Sample:
    """Read rows of a split, the same ones every time."""
    batch = sample_rows(examples, split, rows, features)
    return Sample(split, sample_positions(examples.rows(split), rows), batch, json_rows(batch))


def json_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as JSON values: a missing value, NaN and infinity are null, which JSON has instead."""
    return [{name: _json(value) for name, value in row.items()} for row in batch.to_pylist()]


def served_scores(server: Server, sample: Sample, batch_rows: int) -> Array:
    """Send all rows, some at a time.

    Args:
        server: The server.
        sample: The rows.
        batch_rows: Rows of one request.

    Returns:
        float64 [N, outputs].

    Raises:
        ServingFailure: the server ended, or rows were not answered; names the first of them.
    """
    parts = []
    for start in range(0, len(sample.rows), batch_rows):
        rows = sample.rows[start : start + batch_rows]
        try:
            parts.append(server.client.predict(rows))
        except RefusedError as error:
            server.require_alive(DEATH_SECONDS)
            raise ServingFailure(_name_refused(server.client, sample, start, len(rows), str(error))) from None
    return np.concatenate(parts)


def _name_refused(client: Client, sample: Sample, start: int, count: int, said: str) -> str:
    """Ask again about the rows of a request that failed, one by one, to name the row that is to blame."""
    for row in range(start, start + count):
        try:
            client.predict([sample.rows[row]])
        except RefusedError as error:
            return f"{sample.describe(row)} got {error}"
    return f"a request of {count} rows got {said}, though each of its rows alone is answered"


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(scores: Array) -> str:
    texts = ["no score" if math.isnan(score) else f"{score:.6g}" for score in scores]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
