"""The rows of a request: read from JSON values, checked against the features of the model, joined into a batch."""

import base64
import contextlib
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from kfp_hybrid.serving.servable import INTEGER_CATEGORY, NUMBER, TEXT, Array, Columns, Feature, Servable

KNOWN_TYPES = 4096  # combinations of types that are remembered as right
FEW_ROWS = 64  # columns of so many rows are turned into rows, which can be joined with those of other requests


class InvalidRows(ValueError):
    """Rows that the model cannot take; the message names the feature and the row."""


class Rows:
    """N rows in the order of the model's features.

    Attributes:
        count: N.
        scores: float32 [N, outputs], where they are known without the model; else None.
        columns: feature name -> N values; those of the keys by which the scores were known.
    """

    __slots__ = ("_columns", "_names", "_tuples", "count", "scores")

    def __init__(
        self, names: Sequence[str], tuples: list[tuple[Any, ...]] | None = None, columns: Columns | None = None
    ) -> None:
        self._names = names
        self._tuples = tuples
        self._columns = columns
        self.scores: Array | None = None
        self.count = len(tuples) if tuples is not None else len(next(iter((columns or {}).values())))

    @property
    def columns(self) -> Columns:
        """Feature name -> N values."""
        if self._columns is None:
            assert self._tuples is not None
            self._columns = dict(zip(self._names, zip(*self._tuples, strict=True), strict=True))
        return self._columns

    @property
    def tuples(self) -> list[tuple[Any, ...]]:
        """The rows, one after the other."""
        if self._tuples is None:
            assert self._columns is not None
            values = [
                column.tolist() if isinstance(column, np.ndarray) else column for column in self._columns.values()
            ]
            self._tuples = list(zip(*values, strict=True))
        return self._tuples

    @staticmethod
    def together(parts: Sequence["Rows"]) -> "Rows":
        """The rows of several requests as one."""
        if len(parts) == 1:
            return parts[0]
        return Rows(parts[0]._names, [row for part in parts for row in part.tuples])


def sample_rows(servable: Servable) -> Rows:
    """The rows that came with a model."""
    names = [feature.name for feature in servable.features]
    return Rows(names, columns={name: servable.samples.columns[name] for name in names})


class Reader:
    """Reads and checks rows for one model.

    Args:
        features: the columns that the model wants.
        ignore_unknown: whether columns that the model does not know are dropped; otherwise they are an error.
    """

    def __init__(self, features: Sequence[Feature], ignore_unknown: bool = False) -> None:
        self.features = features
        self.names = [feature.name for feature in features]
        self.ignore_unknown = ignore_unknown
        self._by_name = {feature.name: feature for feature in features}
        self._plain = all(not feature.shape for feature in features)
        self._known_types: set[tuple[type, ...]] = set()

    @cached_property
    def _pick(self) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
        if len(self.names) == 1:
            only = self.names[0]
            return lambda row: (row[only],)
        return operator.itemgetter(*self.names)

    def rows(self, instances: Sequence[Any]) -> Rows:
        """Rows one after the other: an object each, or the plain value where the model has a single feature.

        Raises:
            InvalidRows: there is none, or one of them is wrong.
        """
        if not isinstance(instances, list) or not instances:
            raise InvalidRows("there are no rows; give at least one")
        if len(self.names) == 1 and not isinstance(instances[0], dict):
            instances = [{self.names[0]: value} for value in instances]
        pick, width = self._pick, len(self.names)
        tuples = []
        for position, row in enumerate(instances):
            try:
                tuples.append(pick(row))
                if len(row) != width and not self.ignore_unknown:
                    raise KeyError
            except (KeyError, TypeError, IndexError):
                raise self._wrong_names(row, position) from None
        return self._checked_rows(tuples)

    def columns(self, columns: Mapping[str, Any]) -> Rows:
        """Rows as columns: a list of N values or an array for each feature.

        Raises:
            InvalidRows: a column is missing or unknown, they differ in length, or a value is wrong.
        """
        if missing := [name for name in self.names if name not in columns]:
            raise InvalidRows(f"feature {missing[0]!r} is missing; the model wants {_listed(self.names)}")
        if not self.ignore_unknown and len(columns) != len(self.names):
            unknown = next(name for name in columns if name not in self._by_name)
            raise InvalidRows(f"feature {unknown!r} is not one of the model; it wants {_listed(self.names)}")
        ordered = [columns[name] for name in self.names]
        count = self._length(ordered)
        if self._plain and all(type(values) is list for values in ordered):
            return self._checked_rows(list(zip(*ordered, strict=True)))
        checked = {f.name: _checked_column(f, values) for f, values in zip(self.features, ordered, strict=True)}
        rows = Rows(self.names, columns=checked)
        return Rows(self.names, rows.tuples) if count <= FEW_ROWS else rows

    def _length(self, ordered: Sequence[Any]) -> int:
        """The number of rows in columns, which all have as many."""
        for name, values in zip(self.names, ordered, strict=True):
            if not isinstance(values, list | np.ndarray):
                raise InvalidRows(f"feature {name!r} is {_shown(values)}; give a list with a value for each row")
            if len(values) != len(ordered[0]):
                raise InvalidRows(
                    f"feature {name!r} has {len(values)} values and feature {self.names[0]!r} has {len(ordered[0])}; "
                    "give as many of each as there are rows"
                )
        if not len(ordered[0]):
            raise InvalidRows("there are no rows; give at least one")
        return len(ordered[0])

    def _checked_rows(self, tuples: list[tuple[Any, ...]]) -> Rows:
        """Rows whose values have been looked at; where the types are known to be right, that is all there is to it."""
        known = self._known_types
        for position, values in enumerate(tuples):
            types = tuple(map(type, values))
            if types not in known:
                if list in types or dict in types:
                    values = tuples[position] = tuple(map(_unwrapped, self.features, values))
                for feature, value in zip(self.features, values, strict=True):
                    _check_value(feature, value, position)
                if len(known) < KNOWN_TYPES and not any(map(_depends_on_value, self.features, types)):
                    known.add(types)
        return Rows(self.names, tuples)

    def _wrong_names(self, row: Any, position: int) -> InvalidRows:
        if not isinstance(row, dict):
            return InvalidRows(f"row {position} is {_shown(row)}; give an object with {_listed(self.names)}")
        if missing := [name for name in self.names if name not in row]:
            return InvalidRows(f"row {position}: feature {missing[0]!r} is missing; a value may be null, if unknown")
        unknown = next(name for name in row if name not in self._by_name)
        return InvalidRows(
            f"row {position}: feature {unknown!r} is not one of the model; it wants {_listed(self.names)}"
        )


def _depends_on_value(feature: Feature, kind: type) -> bool:
    """Whether a value of that type may be right or wrong: a list, an object, or a number that may be whole."""
    return kind in (list, dict) or (kind is float and feature.datatype.startswith("INT"))


def _unwrapped(feature: Feature, value: Any) -> Any:
    """A value in the other ways in which TensorFlow Serving takes it: [value], and texts as {"b64": bytes}."""
    if feature.shape:
        return value
    if type(value) is list and len(value) == 1:
        value = value[0]
    if feature.kind == TEXT and type(value) is dict and value.keys() == {"b64"}:
        with contextlib.suppress(TypeError, ValueError):  # that it is an object is told then
            value = base64.b64decode(value["b64"], validate=True).decode("utf-8")
    return value


def _checked_column(feature: Feature, values: Any) -> Any:
    if isinstance(values, np.ndarray):
        return _checked_array(feature, values)
    for position, value in enumerate(values):
        _check_value(feature, value, position)
    return values


def _check_value(feature: Feature, value: Any, position: int) -> None:
    """Check a value.

    Raises:
        InvalidRows: it is of a wrong type or shape.
    """
    if feature.shape:
        _check_tensor(feature, value, position)
        return
    if value is None:
        if feature.optional:
            return
        raise InvalidRows(
            f"row {position}: feature {feature.name!r} is null, and the model takes no missing value there"
        )
    kind = type(value)
    if feature.kind == NUMBER:
        right = kind is float or kind is int
        if right and feature.datatype.startswith("INT") and kind is float:
            right = value.is_integer()
    elif feature.kind == TEXT:
        right = kind is str
    else:
        right = kind is int or kind is str or (kind is float and (value.is_integer() or value != value))
    if right:
        return
    whole = feature.kind == INTEGER_CATEGORY or feature.datatype.startswith("INT")
    wanted = "a text" if feature.kind == TEXT else "a whole number" if whole else "a number"
    raise InvalidRows(f"row {position}: feature {feature.name!r} is {_shown(value)}; it must be {wanted}")


def _check_tensor(feature: Feature, value: Any, position: int) -> None:
    try:
        array = np.asarray(value)
    except ValueError:
        raise InvalidRows(f"row {position}: feature {feature.name!r} is no regular array") from None
    if array.dtype.kind not in ("iuf" if feature.kind == NUMBER else "U"):
        raise InvalidRows(f"row {position}: feature {feature.name!r} holds a value that is not a {feature.kind}")
    if not _fits(array.shape, feature.shape):
        raise InvalidRows(
            f"row {position}: feature {feature.name!r} has the shape {list(array.shape)}; "
            f"the model takes {list(feature.shape)}"
        )


def _checked_array(feature: Feature, values: Array) -> Array:
    shape = values.shape[1:]
    if shape != feature.shape and shape == (1,) and not feature.shape:
        values, shape = values[:, 0], ()
    if not _fits(shape, feature.shape):
        raise InvalidRows(
            f"feature {feature.name!r} has the shape {[len(values), *shape]}; the model takes {[-1, *feature.shape]}"
        )
    right = {NUMBER: "iuf", TEXT: "OU", INTEGER_CATEGORY: "iuOU"}[feature.kind]
    if values.dtype.kind not in right:
        raise InvalidRows(f"feature {feature.name!r} comes as {values.dtype}; it must be a {feature.kind}")
    if values.dtype.kind == "f" and not feature.optional and not np.isfinite(values).all():
        position = int(np.argmin(np.isfinite(values).reshape(len(values), -1).all(axis=1)))
        raise InvalidRows(f"row {position}: feature {feature.name!r} is not a finite number")
    return values


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(w in (-1, s) for s, w in zip(shape, wanted, strict=True))


def _shown(value: Any) -> str:
    """What a value is, in a few words: never all of it, which may be long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"the number {value!r:.40}"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return "a list" if isinstance(value, list) else "an object"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown
