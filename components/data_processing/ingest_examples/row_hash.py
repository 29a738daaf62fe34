"""A hash of rows that is the same everywhere: on every machine, with every version of Arrow, for every block size.

The hash of a row depends on nothing but the texts of its key columns:

* A value is its text: the field of a text file as it is written there; an integer in decimal; a floating-point
  number without fraction and below 2**53 like that integer, any other one as its eight bytes (IEEE 754, little
  endian); a missing value is the empty text.
* The text, in UTF-8, is cut into words of eight bytes (little endian, the last one filled up with zeros). With mix
  the finalizer of splitmix64, its hash is mix(length) + the sum over its words of mix(word + (index + 1) * GOLDEN).
* The hashes of the columns, in the order of the columns' names, are chained: h = mix(h + column + GOLDEN).

All sums are modulo 2**64.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes = npt.NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
WORD = 8
# WORD_MASKS[n] keeps the first n bytes of a little-endian word.
WORD_MASKS = np.array([(1 << 8 * count) - 1 for count in range(WORD + 1)], np.uint64)
EXACT_INTEGERS = float(2**53)


def hash_rows(keys: Mapping[str, pa.Array]) -> Hashes:
    """Hash every row.

    Args:
        keys: column -> values (string, int64, double or null arrays of N rows); at least one column.

    Returns:
        uint64 [N], evenly spread.
    """
    (_, first), *_ = keys.items()
    hashes = np.zeros(len(first), np.uint64)
    for name in sorted(keys):
        hashes = _mix(hashes + _hash_column(keys[name]) + GOLDEN)
    return hashes


def _hash_column(values: pa.Array) -> Hashes:
    if pa.types.is_floating(values.type):
        return _hash_numbers(values)
    return _hash_texts(pc.fill_null(values.cast(pa.string()), ""))


def _hash_numbers(values: pa.Array) -> Hashes:
    numbers = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False)
    whole = (np.abs(numbers) < EXACT_INTEGERS) & (numbers == np.trunc(numbers))
    missing = values.is_null().to_numpy(zero_copy_only=False)
    integers = pa.array(np.where(whole, numbers, 0).astype(np.int64), mask=missing)
    bits = np.where(np.isnan(numbers), np.nan, numbers).astype("<f8").view("<u8")  # one kind of NaN
    return np.where(whole, _hash_column(integers), _mix(np.array([WORD], np.uint64)) + _mix(bits + GOLDEN))


def _hash_texts(texts: pa.StringArray) -> Hashes:
    offsets = np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, texts.offset * 4).astype(np.int64)
    lengths = np.diff(offsets)
    words = _words(texts.buffers()[2], offsets[0], offsets[-1])
    starts = offsets[:-1] - offsets[0]
    hashes = _mix(lengths.astype(np.uint64))
    if lengths.max(initial=0) <= WORD:
        return hashes + np.where(lengths, _mix((words[starts] & WORD_MASKS[lengths]) + GOLDEN), np.uint64(0))
    counts = -(-lengths // WORD)
    ends = np.cumsum(counts)
    index = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
    remaining = np.repeat(lengths, counts) - index * WORD
    values = words[np.repeat(starts, counts) + index * WORD] & WORD_MASKS[np.minimum(remaining, WORD)]
    sums = np.cumsum(np.append(np.uint64(0), _mix(values + (index + 1).astype(np.uint64) * GOLDEN)), dtype=np.uint64)
    return hashes + sums[ends] - sums[ends - counts]


def _words(data: pa.Buffer | None, start: int, end: int) -> Hashes:
    """The eight bytes from every position of the data on, as numbers; beyond the end there are zeros."""
    padded = np.zeros(end - start + WORD, np.uint8)
    if data is not None:
        padded[: end - start] = np.frombuffer(data, np.uint8)[start:end]
    return np.ndarray((end - start + 1,), "<u8", padded, strides=(1,))


def _mix(values: Hashes) -> Hashes:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
