"""Makes the data of the statistics benchmarks: 20 columns of numbers and strings, with missing values."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from kfp_hybrid.data.examples import TYPES, ExamplesWriter

BATCH_ROWS = 65_536
MISSING = (0, 0.05, 0.1, 0.2, 0.4)
INTEGERS_BELOW = (2, 12, 31, 1_000, 100_000, 2**40)
DISTINCT_WORDS = (3, 16, 100, 2_500, 60_000)


def batches(rows: int) -> Iterator[pa.RecordBatch]:
    """7 columns of fractions, 6 of integers, 5 of words and 2 of nearly unique texts."""
    random = np.random.default_rng(7)
    for start in range(0, rows, BATCH_ROWS):
        yield _batch(random, min(BATCH_ROWS, rows - start))


def _batch(random: np.random.Generator, rows: int) -> pa.RecordBatch:
    columns: dict[str, np.ndarray] = {}
    for i in range(7):
        columns[f"fraction{i}"] = np.round(random.gamma(2 + i, 3, rows), 4)
    for i, below in enumerate(INTEGERS_BELOW):
        columns[f"integer{i}"] = random.integers(0, below, rows)
    for i, distinct in enumerate(DISTINCT_WORDS):
        columns[f"word{i}"] = _texts("word-", random.zipf(1.5, rows) % distinct)
    columns["identifier"] = _texts("id-", random.integers(0, 2**60, rows))
    columns["name"] = _texts("Person ", random.integers(0, 2**30, rows))
    arrays = [
        pa.array(values, mask=random.random(rows) < MISSING[i % len(MISSING)])
        for i, values in enumerate(columns.values())
    ]
    return pa.RecordBatch.from_arrays(arrays, list(columns))


def _texts(prefix: str, numbers: np.ndarray) -> np.ndarray:
    return np.char.add(prefix, numbers.astype(str))


def write_csv(path: Path, rows: int) -> Path:
    """Write the data as a CSV file."""
    for i, batch in enumerate(batches(rows)):
        # Nullable integers, or pandas would write 3 as 3.0 in a column with missing values.
        frame = batch.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        frame.to_csv(path, mode="a", header=i == 0, index=False)
    return path


def write_examples(path: Path, rows: int) -> Path:
    """Write the data as an examples artifact with one split, train."""
    names = {type_: name for name, type_ in TYPES.items()}
    columns = {field.name: names[field.type] for field in next(batches(1)).schema}
    with ExamplesWriter(path, columns) as writer:
        for batch in batches(rows):
            writer.write("train", batch)
    return path
