"""Types of columns that arrive as text: null < int64 < double < string, as TFDV's CSV decoder decides them.

An empty field says nothing about the type. A field is an integer when Python's `int()` takes it and it fits
into 64 bits, otherwise a floating-point number when `float()` takes it, otherwise a string; an integer of more
than 64 bits makes the column a string. The type of a column is the widest type among all of its fields. There
are no dates, no booleans, and no words that mean "missing".
"""

import pyarrow as pa
import pyarrow.compute as pc

from kfp_hybrid.data.examples import TYPES

ORDER = ("null", "int64", "double", "string")
INT64_LIMIT = 2**63
# What Arrow's and Python's parsers read alike; everything else is left to Python. 18 digits always fit into 64 bits.
PLAIN_INTEGER = r"^-?[0-9]{1,18}$"
PLAIN_FRACTION = r"^-?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,2})?|[0-9]+[eE][-+]?[0-9]{1,2})$"


def wider(one: str, other: str) -> str:
    """The wider of two types."""
    return max(one, other, key=ORDER.index)


def text_type(text: bytes) -> str:
    """The type of one field.

    Args:
        text: the field as bytes: `int()` takes digits of every alphabet in a `str`, but only 0-9 in bytes.
    """
    if not text:
        return "null"
    try:
        return "int64" if -INT64_LIMIT <= int(text) < INT64_LIMIT else "string"
    except ValueError:
        pass
    try:
        float(text)
    except ValueError:
        return "string"
    return "double"


def narrowest(texts: pa.StringArray) -> str:
    """The narrowest type that holds all fields of a column.

    Args:
        texts: the fields; null where a field is empty.
    """
    present = texts.drop_null().unique()
    if not len(present):
        return "null"
    rest = present.filter(pc.invert(pc.match_substring_regex(present, PLAIN_INTEGER)))
    fraction = pc.match_substring_regex(rest, PLAIN_FRACTION)
    found = "double" if pc.any(fraction).as_py() else "int64"
    for text in rest.filter(pc.invert(fraction)):
        found = wider(found, text_type(text.as_py().encode()))
        if found == "string":
            break
    return found


def parse(texts: pa.StringArray, type_: str) -> pa.Array:
    """Convert the fields of a column.

    Args:
        texts: the fields; null where a field is empty.
        type_: a type at least as wide as `narrowest(texts)`.
    """
    if type_ == "null":
        return pa.nulls(len(texts))
    if type_ == "string":
        return texts
    distinct = texts.dictionary_encode()
    return _parse(distinct.dictionary, type_).take(distinct.indices)


def _parse(texts: pa.StringArray, type_: str) -> pa.Array:
    plain = pc.match_substring_regex(texts, PLAIN_INTEGER)
    if type_ == "double":
        plain = pc.or_(plain, pc.match_substring_regex(texts, PLAIN_FRACTION))
    parsed = pc.cast(pc.if_else(plain, texts, pa.scalar(None, pa.string())), TYPES[type_])
    odd = pc.invert(plain)
    python_type = int if type_ == "int64" else float
    values = [python_type(text.as_py().encode()) for text in texts.filter(odd)]
    return pc.replace_with_mask(parsed, odd, pa.array(values, TYPES[type_])) if values else parsed
