"""A sample of rows spread over a split, the same one every time."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from kfp_hybrid.data.examples import Examples


def sample_positions(rows: int, size: int) -> np.ndarray:
    """Positions of a stratified sample: one row, at random, from each of `size` equal stretches of the split.

    Every k-th row would be simpler, but resonates with rows that come in a period, such as the hours of a day.

    Args:
        rows: rows of the split.
        size: rows of the sample; all rows when there are fewer.

    Returns:
        int64 [min(rows, size)], strictly increasing.
    """
    size = min(rows, size)
    limits = np.arange(size + 1, dtype=np.int64) * rows // max(size, 1)
    return np.random.default_rng(seed=0).integers(limits[:-1], limits[1:])


def sample_rows(examples: Examples, split: str, size: int, columns: Sequence[str]) -> pa.RecordBatch:
    """Read a sample of a split, one batch in memory at a time.

    Args:
        examples: the examples artifact.
        split: name of the split; it has at least one row.
        size: rows of the sample.
        columns: the columns to read.
    """
    positions = sample_positions(examples.rows(split), size)
    parts, start = [], 0
    for batch in examples.batches(split, columns):
        first, last = np.searchsorted(positions, [start, start + batch.num_rows])
        parts.append(batch.take(pa.array(positions[first:last] - start)))
        start += batch.num_rows
    return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]
