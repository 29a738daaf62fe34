"""Preprocessing of tabular examples: its constants, and the code that applies them outside TensorFlow.

A model carries this preprocessing twice: as TensorFlow operations in `serving_default`, and as the
constants in `assets.extra/preprocessing.json`, which `Preprocessing.transform` applies with numpy (and
Arrow where rows come as Arrow). Training, the TFLite check and a device all use the numpy code below, so
that there is one reference; training checks that `serving_default` agrees with it before it publishes.

Everything is computed in float32, because that is what `serving_default` is given.
"""

import dataclasses
import functools
import json
import keyword
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from kfp_hybrid.step import StepError

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "kfp-hybrid/preprocessing"
VERSION = 1
FILE_NAME = "preprocessing.json"

TASKS = ("binary", "multiclass", "regression")
CATEGORICAL_TYPES = ("string", "int")

MISSING_ID = 0
OUT_OF_VOCABULARY_ID = 1
RESERVED_IDS = 2

FEW_ROWS = 256  # up to so many, a call of numpy costs more than what it computes

# What TensorFlow accepts as the name of a function's argument and of the node that it becomes.
_ARGUMENT_NAME = re.compile(r"(?!self$)[A-Za-z][A-Za-z0-9_]*")

Rows = Union["pa.RecordBatch", Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Numeric:
    """A numeric feature.

    Attributes:
        name: column name.
        mean: subtracted from a value.
        std: a value is divided by it; greater than 0.
        missing: what stands in for a missing value, before mean and std are applied.
        boundaries: inner limits of the buckets (deciles), strictly increasing as float32.
    """

    name: str
    mean: float
    std: float
    missing: float
    boundaries: tuple[float, ...]

    @property
    def buckets(self) -> int:
        """Number of bucket ids: one for missing, and one more than there are boundaries."""
        return len(self.boundaries) + 2


@dataclasses.dataclass(frozen=True)
class Categorical:
    """A categorical feature.

    Attributes:
        name: column name.
        type: "string", or "int" for an integer column; the vocabulary holds text in both cases.
        vocabulary: the known values; the first has id 2.
    """

    name: str
    type: str
    vocabulary: tuple[str, ...]

    @property
    def ids(self) -> int:
        """Number of ids: missing, out of vocabulary, and one for each known value."""
        return RESERVED_IDS + len(self.vocabulary)


@dataclasses.dataclass(frozen=True)
class Label:
    """The label column.

    Attributes:
        name: column name.
        classes: class values in the order of the scores (binary: the second is the positive class); () for regression.
        mean: mean of the label in training (regression only, otherwise 0).
        std: standard deviation of the label in training, greater than 0 (regression only, otherwise 1).
    """

    name: str
    classes: tuple[Any, ...] = ()
    mean: float = 0.0
    std: float = 1.0


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """All constants between a raw row and the inputs of a model's `core` signature.

    Attributes:
        task: "binary", "multiclass" or "regression".
        label: the label.
        numeric: numeric features, in the order of the columns of "numeric" and "bucket".
        categorical: categorical features, in the order of the columns of "categorical".
    """

    task: str
    label: Label
    numeric: tuple[Numeric, ...]
    categorical: tuple[Categorical, ...]

    @property
    def features(self) -> list[str]:
        """Names of all features: numeric ones, then categorical ones."""
        return [number.name for number in self.numeric] + [category.name for category in self.categorical]

    @property
    def serving_names(self) -> dict[str, str]:
        """Feature name -> name of its input in `serving_default`.

        They are the same, unless TensorFlow cannot use the feature's name for an argument ("dep delay (min)", "class").
        """
        names: dict[str, str] = {}
        plain = {name for name in self.features if _ARGUMENT_NAME.fullmatch(name) and not keyword.iskeyword(name)}
        for feature in self.features:
            name = feature
            if feature not in plain:
                name = "feature_" + re.sub(r"[^A-Za-z0-9_]", "_", feature)
                while name in plain or name in names.values():
                    name += "_"
            names[feature] = name
        return names

    @property
    def outputs(self) -> int:
        """Width of the scores: the number of classes for multiclass, otherwise 1."""
        return len(self.label.classes) if self.task == "multiclass" else 1

    @classmethod
    def load(cls, path: str | Path) -> "Preprocessing":
        """Read and check a preprocessing file.

        Args:
            path: the JSON file, or a directory that holds it as `preprocessing.json`.

        Raises:
            StepError: the file is missing, is not of this format, or its constants make no sense.
        """
        file = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StepError(f"{file}: no such file; expected the preprocessing constants of a model") from None
        except (OSError, ValueError) as error:
            raise StepError(f"{file}: cannot be read as JSON: {error}") from None
        try:
            return cls.from_dict(document)
        except StepError as error:
            raise StepError(f"{file}: {error}") from None

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Preprocessing":
        """Make the constants from the content of a preprocessing file.

        Raises:
            StepError: the content is not of this format, or its constants make no sense.
        """
        if not isinstance(document, Mapping) or document.get("format") != FORMAT:
            raise StepError(f'not a preprocessing file: its "format" is not "{FORMAT}"')
        if document.get("version") != VERSION:
            raise StepError(f"version {document.get('version')} of {FORMAT} is not supported, only {VERSION}")
        try:
            preprocessing = cls(
                task=document["task"],
                label=Label(**{**document["label"], "classes": tuple(document["label"]["classes"])}),
                numeric=tuple(
                    Numeric(**{**f, "boundaries": tuple(map(float, f["boundaries"]))}) for f in document["numeric"]
                ),
                categorical=tuple(
                    Categorical(**{**f, "vocabulary": tuple(f["vocabulary"])}) for f in document["categorical"]
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StepError(f"a part of the preprocessing constants is missing or of a wrong type: {error}") from None
        preprocessing.validate()
        return preprocessing

    def to_dict(self) -> dict[str, Any]:
        """The content of the preprocessing file."""
        return {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}

    def save(self, path: str | Path) -> None:
        """Write the constants to the JSON file `path`."""
        self.validate()
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        Path(path).write_text(text + "\n", encoding="utf-8")

    def validate(self) -> None:
        """Check that the constants can be applied.

        Raises:
            StepError: the first thing that is wrong.
        """
        if self.task not in TASKS:
            raise StepError(f"task is {self.task!r}, must be one of {', '.join(TASKS)}")
        if (self.task == "binary" and len(self.label.classes) != 2) or (
            self.task == "multiclass" and len(self.label.classes) < 2
        ):
            raise StepError(f"label {self.label.name!r} has {len(self.label.classes)} classes, wrong for {self.task}")
        if not self.features:
            raise StepError("there is no feature")
        if repeated := _repeated(self.features):
            raise StepError(f"feature {repeated!r} is listed twice")
        for number in self.numeric:
            _validate_numeric(number)
        for category in self.categorical:
            _validate_categorical(category)

    def transform(self, rows: Rows) -> dict[str, np.ndarray]:
        """Make the inputs of the `core` signature from raw rows.

        Args:
            rows: an Arrow record batch, or a mapping from column name to a sequence of N values. Missing is null, None,
                NaN or an infinite number, and "" for a categorical feature.

        Returns:
            "numeric": float32 [N, numeric features], (x - mean) / std;
            "bucket": int32 [N, numeric features], 0 for missing, otherwise 1 + the number of boundaries <= x;
            "categorical": int32 [N, categorical features], 0 missing, 1 out of vocabulary, 2.. vocabulary order.
            A group without features is left out.

        Raises:
            StepError: a column is missing or holds values that are not numbers.
        """
        inputs = {}
        if self.numeric:
            values = _matrix(rows, [feature.name for feature in self.numeric])
            inputs["numeric"], inputs["bucket"] = self._numeric_constants.apply(values)
        if self.categorical:
            ids = [_vocabulary_ids(_column(rows, f.name), f.vocabulary, self._ids[f.name]) for f in self.categorical]
            inputs["categorical"] = np.stack(ids, axis=1)
        return inputs

    @functools.cached_property
    def _ids(self) -> dict[str, dict[Any, int]]:
        """Categorical feature -> value -> id."""
        return {feature.name: _text_ids(feature.vocabulary) for feature in self.categorical}

    @functools.cached_property
    def _numeric_constants(self) -> "_NumericConstants":
        return _NumericConstants.of(self.numeric)

    def serving_inputs(self, rows: Rows) -> dict[str, np.ndarray]:
        """Make the inputs of the `serving_default` signature from raw rows.

        Args:
            rows: as for `transform`.

        Returns:
            One array [N] for each feature, by its name in `serving_names`: float32 with NaN for missing, or object
            (str) with "" for missing.

        Raises:
            StepError: a column is missing or holds values that are not numbers.
        """
        names = self.serving_names
        inputs = {names[feature.name]: _numbers(rows, feature.name) for feature in self.numeric}
        inputs.update({names[feature.name]: _texts(_column(rows, feature.name)) for feature in self.categorical})
        return inputs

    def encode_labels(self, values: Any) -> np.ndarray:
        """Make training targets from raw labels.

        Args:
            values: an Arrow array or a sequence of N labels.

        Returns:
            Classification: int32 [N], the position in `label.classes`. Regression: float32 [N].

        Raises:
            StepError: a label is missing, not a finite number, or not one of the classes; with how many there are.
        """
        if self.task == "regression":
            numbers = _numbers({self.label.name: values}, self.label.name)
            _refuse_labels(self.label.name, "missing or not finite", values, ~np.isfinite(numbers))
            return numbers
        classes = tuple(map(str, self.label.classes))
        ids = _vocabulary_ids(values, classes, _text_ids(classes))
        _refuse_labels(self.label.name, "missing", values, ids == MISSING_ID)
        known = ", ".join(map(str, self.label.classes[:20]))
        _refuse_labels(self.label.name, f"none of the classes ({known})", values, ids == OUT_OF_VOCABULARY_ID)
        return ids - np.int32(RESERVED_IDS)


def _column(rows: Rows, name: str) -> Any:
    try:
        return rows[name]
    except KeyError:
        raise StepError(f"column {name!r} is missing in the rows; the model needs it") from None


def _is_arrow(values: Any) -> bool:
    # By name, because a device has numpy but need not have pyarrow.
    return type(values).__module__.partition(".")[0] == "pyarrow"


def _numbers(rows: Rows, name: str) -> np.ndarray:
    """One column as float32 [N], NaN where a value is missing."""
    values = _column(rows, name)
    try:
        if _is_arrow(values):
            values = values.cast("float64", safe=False).to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and infinite is missing
            return np.asarray(values, np.float64).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise StepError(f"column {name!r} holds a value that is not a number: {error}") from None


def _matrix(rows: Rows, names: Sequence[str]) -> np.ndarray:
    """Columns as float32 [columns, N], NaN where a value is missing."""
    columns = [_column(rows, name) for name in names]
    if all(isinstance(column, list | tuple) for column in columns):
        try:  # all at once, which for a few rows is several times faster than one by one
            with np.errstate(over="ignore"):
                return np.array(columns, np.float32).reshape(len(names), -1)
        except (TypeError, ValueError, OverflowError):
            pass  # one by one says which column it is
    return np.stack([_numbers(rows, name) for name in names])


@dataclasses.dataclass(frozen=True)
class _NumericConstants:
    """The constants of F numeric features as arrays, so that a few operations do the work for all of them.

    Attributes:
        mean, std, missing: float32 [F, 1].
        boundaries: float32 [most boundaries, F, 1]; features with fewer end in infinity, which no value reaches.
    """

    mean: np.ndarray
    std: np.ndarray
    missing: np.ndarray
    boundaries: np.ndarray

    @classmethod
    def of(cls, features: Sequence[Numeric]) -> "_NumericConstants":
        mean, std, missing = np.array([(f.mean, f.std, f.missing) for f in features], np.float32).T[:, :, np.newaxis]
        boundaries = np.full((max(len(f.boundaries) for f in features), len(features)), np.inf, np.float32)
        for position, feature in enumerate(features):
            boundaries[: len(feature.boundaries), position] = feature.boundaries
        return cls(mean, std, missing, boundaries[:, :, np.newaxis])

    def apply(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inputs "numeric" and "bucket", each [N, F], of values float32 [F, N], which are overwritten."""
        present = np.isfinite(values)
        np.copyto(values, self.missing, where=~present)
        # The smallest integers that hold a bucket: with few boundaries, comparing with each is faster than searching.
        type_ = np.min_scalar_type(len(self.boundaries) + 1)
        if values.shape[1] <= FEW_ROWS:
            buckets = np.add.reduce(values >= self.boundaries, axis=0, dtype=type_, initial=1)
        else:
            buckets = np.ones(values.shape, type_)
            for boundary in self.boundaries:
                buckets += (values >= boundary).view(np.uint8)
        buckets *= present  # MISSING_ID is 0
        values -= self.mean
        values /= self.std
        return np.ascontiguousarray(values.T), buckets.T.astype(np.int32, order="C")


def _text_ids(vocabulary: Sequence[str]) -> dict[Any, int]:
    """The id of each known value, and of what is missing."""
    ids: dict[Any, int] = {text: position + RESERVED_IDS for position, text in enumerate(vocabulary)}
    return ids | {"": MISSING_ID, None: MISSING_ID}


def _vocabulary_ids(values: Any, vocabulary: Sequence[str], ids: Mapping[Any, int]) -> np.ndarray:
    """One column as int32 [N] ids: 0 missing, 1 out of vocabulary, 2.. position in the vocabulary + 2."""
    if _is_arrow(values) and not _holds_floats(values):
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_dictionary(values.type):
            known_ids = _vocabulary_ids(values.dictionary, vocabulary, ids)
            distinct = np.append(known_ids, np.int32(MISSING_ID))  # last: of null
            return distinct[values.indices.cast(pa.int64()).fill_null(-1).to_numpy()]
        known = pa.array(["", *vocabulary], pa.string())
        positions = pc.index_in(values.cast(pa.string()).fill_null(""), value_set=known)
        found = positions.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        # -1, 0, 1, 2, ... are out of vocabulary, missing, first value, second value, ...
        return np.where(found < 0, np.int32(OUT_OF_VOCABULARY_ID), np.where(found == 0, MISSING_ID, found + 1))
    if isinstance(values, list | tuple) and all(type(value) in (str, NoneType) for value in values):
        return np.array([ids.get(text, OUT_OF_VOCABULARY_ID) for text in values], np.int32)
    return np.fromiter((ids.get(text, OUT_OF_VOCABULARY_ID) for text in _texts(values)), np.int32)


def _texts(values: Any) -> np.ndarray:
    """One column as object [N] of str, "" where a value is missing."""
    if _is_arrow(values):
        if not _holds_floats(values):
            return values.cast("string").fill_null("").to_numpy(zero_copy_only=False)
        values = values.to_pylist()
    texts = [_text(value) for value in values]
    return np.array(texts, dtype=object)


def _holds_floats(values: Any) -> bool:
    return str(values.type) in ("double", "float", "halffloat")


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN is the only value that differs from itself
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, float | np.floating) and math.isfinite(value) and float(value).is_integer():
        return str(int(value))  # an integer column with gaps is often held as floats
    return str(value)


def _refuse_labels(name: str, what: str, values: Any, refused: np.ndarray) -> None:
    if refused.any():
        first = int(np.argmax(refused))
        value = values[first].as_py() if _is_arrow(values) else values[first]
        raise StepError(f"{int(refused.sum())} labels in column {name!r} are {what}, for example {value!r}")


def _validate_numeric(feature: Numeric) -> None:
    with np.errstate(over="ignore"):
        constants = np.asarray([feature.mean, feature.std, feature.missing, *feature.boundaries], np.float32)
    if not np.isfinite(constants).all():
        raise StepError(f"feature {feature.name!r} has a constant that is not a finite float32 number")
    if constants[1] <= 0:
        raise StepError(f"feature {feature.name!r} has std {feature.std}, must be greater than 0")
    if (np.diff(constants[3:]) <= 0).any():
        raise StepError(f"feature {feature.name!r} has boundaries that do not increase: {list(feature.boundaries)}")


def _validate_categorical(feature: Categorical) -> None:
    if feature.type not in CATEGORICAL_TYPES:
        raise StepError(f"feature {feature.name!r} has type {feature.type!r}, must be one of {CATEGORICAL_TYPES}")
    if not all(isinstance(value, str) and value for value in feature.vocabulary):
        raise StepError(f"feature {feature.name!r} has a vocabulary with an entry that is not text or is empty")
    if repeated := _repeated(feature.vocabulary):
        raise StepError(f"feature {feature.name!r} has {repeated!r} twice in its vocabulary")


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for name, times in Counter(names).items() if times > 1), None)
