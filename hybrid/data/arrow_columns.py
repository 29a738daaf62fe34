"""Turns columns of any Arrow type into the four types of the examples artifact; for Parquet and TFRecord files.

Integers and booleans become `int64`; floating-point numbers and decimals `double`; text, dates and times
(ISO 8601, times with a zone in UTC) `string`. A list holds at most one value per row, as tf.Example stores
a plain feature; an empty one is missing.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kfp_hybrid.data.column_types import INT64_LIMIT, wider
from kfp_hybrid.data.examples import TYPES, arrow_schema
from kfp_hybrid.data.reading import BadRow, Chunk

ROW_TEXT_CHARACTERS = 1 << 20


def column_type(type_: pa.DataType) -> str | None:
    """The type of the examples artifact for an Arrow type, None when there is none."""
    types = pa.types
    if types.is_list(type_) or types.is_large_list(type_):
        return None if types.is_nested(type_.value_type) else column_type(type_.value_type)
    if types.is_dictionary(type_):
        return column_type(type_.value_type)
    if types.is_null(type_):
        return "null"
    if types.is_integer(type_) or types.is_boolean(type_):
        return "int64"
    if types.is_float32(type_) or types.is_float64(type_) or types.is_decimal(type_):
        return "double"
    texts = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary, types.is_fixed_size_binary)
    times = (types.is_date, types.is_time, types.is_timestamp)
    return "string" if any(is_kind(type_) for is_kind in (*texts, *times)) else None


@dataclass(frozen=True)
class Converted:
    """Columns with the types that the file gives them, and what is wrong with some rows.

    Attributes:
        arrays: column -> int64, double, string or null array.
        reasons: index of a row -> why it cannot be used.
    """

    arrays: dict[str, pa.Array]
    reasons: dict[int, str]


def _natural_type(array: pa.Array) -> str:
    return next(name for name, type_ in TYPES.items() if type_.equals(array.type))


def convert(batch: pa.RecordBatch) -> Converted:
    """Convert every column of a batch; all of them have a `column_type`."""
    arrays = {}
    reasons: dict[int, str] = {}
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        values, too_many = _single_values(array)
        arrays[name], unusable, why = _convert(values)
        for index in np.flatnonzero(too_many).tolist():
            reasons.setdefault(index, f"column {name} holds more than one value")
        for index in np.flatnonzero(unusable).tolist():
            reasons.setdefault(index, f"column {name} {why}")
    return Converted(arrays, reasons)


def _single_values(array: pa.Array) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """The value of each list, and which lists hold more than one."""
    none = np.zeros(len(array), bool)
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        return array, none
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    starts = array.offsets.to_numpy()[:-1]
    positions = pa.array(starts, pa.int64(), mask=lengths == 0)
    return array.values.take(positions), lengths > 1


def _convert(array: pa.Array) -> tuple[pa.Array, npt.NDArray[np.bool_], str]:
    """The array with a type of the artifact, which values are unusable (null in it), and why."""
    type_ = array.type
    if pa.types.is_dictionary(type_):
        array = array.dictionary_decode()
        type_ = array.type
    if pa.types.is_uint64(type_):
        unusable = pc.greater_equal(array, pa.scalar(INT64_LIMIT, pa.uint64()))
        return *_null_where(array, unusable, pa.int64()), "does not fit into 64 bits with a sign"
    if pa.types.is_timestamp(type_) and type_.tz:
        array = array.cast(pa.timestamp(type_.unit, "UTC"))
    target = TYPES[column_type(type_) or "null"]
    try:
        converted = array.cast(target)
        converted.validate(full=True)
    except pa.ArrowInvalid:
        raw = array.cast(pa.binary())
        unusable = pa.array([value is not None and not _is_unicode(value) for value in raw.to_pylist()])
        return *_null_where(raw, unusable, target), "is not valid UTF-8"
    return converted, np.zeros(len(array), bool), ""


def _null_where(array: pa.Array, mask: pa.BooleanArray, target: pa.DataType) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    mask = pc.fill_null(mask, False)
    return pc.if_else(mask, pa.scalar(None, array.type), array).cast(target), mask.to_numpy(zero_copy_only=False)


def _is_unicode(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def widen_array(array: pa.Array, type_: str) -> pa.Array:
    """Convert an int64, double, string or null array to a type at least as wide.

    Args:
        array: the values.
        type_: `double` from integers rounds those beyond 2**53; `string` writes numbers as Python does.
    """
    if array.type.equals(TYPES[type_]):
        return array
    if type_ == "string" and pa.types.is_floating(array.type):
        distinct = array.dictionary_encode()
        texts = pa.array([repr(value) for value in distinct.dictionary.to_pylist()], pa.string())
        return texts.take(distinct.indices)
    return array.cast(TYPES[type_], safe=False)


def to_chunk(
    source: str, numbers: Sequence[int], batch: pa.RecordBatch, columns: Mapping[str, str], keys: Collection[str]
) -> tuple[Chunk | None, dict[str, str]]:
    """Make a chunk of a batch as it comes from a file.

    Args:
        source: name of the file.
        numbers: number of each row in the file.
        batch: the rows; it may lack columns, whose values are missing then.
        columns: column -> type to convert to.
        keys: columns for `Chunk.keys`.

    Returns:
        The chunk, or None when the rows do not fit `columns`; and the types that the usable rows need.
    """
    converted = convert(batch)
    bad = [
        BadRow(source, numbers[index], reason, _row_text(batch, index))
        for index, reason in sorted(converted.reasons.items())
    ]
    good = np.ones(len(numbers), bool)
    good[list(converted.reasons)] = False
    arrays = dict.fromkeys(columns, pa.nulls(len(numbers))) | converted.arrays
    if bad:
        arrays = {name: array.filter(pa.array(good)) for name, array in arrays.items()}
    needed = {name: _natural_type(array) for name, array in arrays.items()}
    if any(name not in columns or wider(columns[name], type_) != columns[name] for name, type_ in needed.items()):
        return None, needed
    widened = [widen_array(arrays[name], type_) for name, type_ in columns.items()]
    rows = pa.RecordBatch.from_arrays(widened, schema=arrow_schema(columns))
    return Chunk(rows, {name: arrays[name] for name in keys}, bad), needed


def _row_text(batch: pa.RecordBatch, index: int) -> str:
    (row,) = batch.slice(index, 1).to_pylist()
    return json.dumps(row, ensure_ascii=False, default=_as_text)[:ROW_TEXT_CHARACTERS]


def _as_text(value: object) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
