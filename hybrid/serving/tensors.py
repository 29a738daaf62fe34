"""Tensors of the Open Inference Protocol: from and to JSON lists, and from and to bytes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kfp_hybrid.serving.rows import InvalidRows
from kfp_hybrid.serving.servable import Array

DTYPES = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
BYTES = "BYTES"


def check(name: str, datatype: Any, shape: Any) -> None:
    """Check what a request says about a tensor.

    Raises:
        InvalidRows: the type is unknown, or the shape is none.
    """
    if datatype != BYTES and datatype not in DTYPES:
        raise InvalidRows(f"input {name!r} has the datatype {datatype!r:.40}; known are {BYTES}, {', '.join(DTYPES)}")
    if type(shape) is not list or not shape or not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidRows(f"input {name!r} must have a shape: a list of sizes, the first of which is the rows")


def from_json(name: str, datatype: str, shape: list[int], data: Any) -> list[Any] | Array:
    """The values of a tensor whose data came as JSON: a list of N values, or an array [N, ...] where they have a shape.

    Raises:
        InvalidRows: there are more or less than the shape says.
    """
    if not isinstance(data, list):
        raise InvalidRows(f"input {name!r} must have data: a list of values")
    if [len(data)] == shape and not (data and isinstance(data[0], list)):
        return data
    while data and isinstance(data[0], list):
        if not all(isinstance(part, list) for part in data):
            raise InvalidRows(f"input {name!r} has data that is no regular array")
        data = [value for part in data for value in part]
    if len(data) != math.prod(shape):
        raise InvalidRows(f"input {name!r} has {len(data)} values; its shape {shape} is of {math.prod(shape)}")
    if len(shape) == 1 or math.prod(shape[1:]) == 1 == len(shape) - 1:
        return data
    try:
        values = np.array(data, object if datatype == BYTES else DTYPES[datatype])
    except (TypeError, ValueError, OverflowError):
        raise InvalidRows(f"input {name!r} has a value that is no {datatype}") from None
    return values.reshape(shape)


def from_bytes(name: str, datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> Array:
    """A tensor whose data came as bytes, little-endian, in row-major order; texts each after its length.

    Raises:
        InvalidRows: there are more or less bytes than the shape says, or a text is not UTF-8.
    """
    count = math.prod(shape)
    if datatype == BYTES:
        return np.array(_texts(name, count, bytes(raw)), object).reshape(tuple(shape))
    dtype = DTYPES[datatype]
    if len(raw) != count * dtype.itemsize:
        raise InvalidRows(
            f"input {name!r} has {len(raw)} bytes; {count} values of {datatype} are {count * dtype.itemsize}"
        )
    return np.frombuffer(raw, dtype).reshape(tuple(shape))


def _texts(name: str, count: int, raw: bytes) -> list[str]:
    texts: list[str] = []
    position = 0
    while position < len(raw) and len(texts) < count:
        end = position + 4 + int.from_bytes(raw[position : position + 4], "little")
        if position + 4 > len(raw) or end > len(raw):
            raise InvalidRows(f"input {name!r}: row {len(texts)} ends after its bytes do")
        try:
            texts.append(raw[position + 4 : end].decode("utf-8"))
        except UnicodeDecodeError:
            raise InvalidRows(f"row {len(texts)}: feature {name!r} is not UTF-8") from None
        position = end
    if len(texts) != count or position != len(raw):
        raise InvalidRows(f"input {name!r} has bytes of {len(texts)} texts or more; its shape is of {count}")
    return texts


def to_bytes(values: Array | list[Any], datatype: str) -> bytes:
    """The bytes of a tensor of an answer."""
    if datatype == BYTES:
        encoded = [str(value).encode() for value in values]
        return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)
    return np.ascontiguousarray(values, DTYPES[datatype]).tobytes()
