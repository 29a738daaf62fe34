"""A SavedModel's serving signature, fed with Arrow record batches.

Takes what train_model writes and any other model whose `serving_default` has one float output: [N], [N, 1] or [N, K].
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kfp_hybrid.preprocessing import FILE_NAME, Preprocessing
from kfp_hybrid.step import StepError

if TYPE_CHECKING:
    import tensorflow as tf

Array = np.ndarray[Any, Any]

PREPROCESSING = f"assets.extra/{FILE_NAME}"
SIGNATURE = "serving_default"
SCORES = "scores"


def saved_preprocessing(model: Path) -> Preprocessing | None:
    """The preprocessing constants that train_model puts beside a SavedModel; None when it has none.

    Raises:
        StepError: they are damaged.
    """
    constants = model / PREPROCESSING
    return Preprocessing.load(constants) if constants.is_file() else None


def require_columns(role: str, columns: Sequence[str], available: Mapping[str, str]) -> None:
    """Check that the examples have every column that a model wants.

    Args:
        role: what to call the model.
        columns: the columns it wants.
        available: the examples' columns.

    Raises:
        StepError: a column is missing.
    """
    if missing := [name for name in columns if name not in available]:
        raise StepError(
            f"the {role} wants the column {missing[0]!r}, which the examples lack "
            f"({len(missing)} of its {len(columns)} inputs are missing); they have: {', '.join(available)}"
        )


class ServingModel:
    """A loaded model.

    Attributes:
        role: "model" or "baseline": what error messages call it.
        columns: the columns its signature wants.
        text_columns: those of them that it wants as text.
        output: the output of the signature that holds the scores.
    """

    def __init__(self, path: Path, role: str):
        """Load the model.

        Args:
            path: SavedModel directory.
            role: "model" or "baseline": what error messages call it.

        Raises:
            StepError: the directory cannot be loaded, or its signature cannot be used.
        """
        import tensorflow as tf

        self.role = role
        logging.info("loading the %s", role)
        try:
            self._loaded = tf.saved_model.load(str(path))  # kept: its variables die with it
        except (OSError, ValueError, RuntimeError, tf.errors.OpError) as error:
            raise StepError(f"the {role} at {path} cannot be loaded: {_gist(error)}") from error
        if SIGNATURE not in self._loaded.signatures:
            known = ", ".join(self._loaded.signatures) or "none"
            raise StepError(f"the {role} has no signature {SIGNATURE!r} (its signatures: {known}); export it with one")
        self._signature = self._loaded.signatures[SIGNATURE]
        self._inputs: dict[str, tf.TensorSpec] = self._signature.structured_input_signature[1]
        self.output = self._find_output()
        self._column_of = {**{name: name for name in self._inputs}, **_renamed_columns(path)}
        self.columns = sorted(self._column_of[name] for name in self._inputs)
        texts = (name for name, spec in self._inputs.items() if spec.dtype == tf.string)
        self.text_columns = sorted(self._column_of[name] for name in texts)

    def signature(self, name: str) -> Any:
        """Another signature of the model; None when it has none of that name."""
        return self._loaded.signatures.get(name)

    def require(self, available: Mapping[str, str]) -> None:
        """Check that the examples have every column that the signature wants.

        Args:
            available: the examples' columns.

        Raises:
            StepError: a column is missing, or an input is not one value per row.
        """
        require_columns(self.role, self.columns, available)
        for name, spec in self._inputs.items():
            if spec.shape.rank not in (None, 1) and spec.shape[1:].as_list() != [1]:
                raise StepError(
                    f"the {self.role}'s input {name!r} has the shape {spec.shape}; "
                    "this step feeds one value per row and column, [N] or [N, 1]"
                )

    def score(self, batch: pa.RecordBatch) -> Array:
        """Run the signature on raw rows.

        Args:
            batch: N rows with at least the columns of the signature.

        Returns:
            float32 [N, K].

        Raises:
            StepError: a column has values the signature cannot take, or the output has another shape or is not finite.
        """
        scores = self.raw_scores(batch)
        if bad := int(np.sum(~np.isfinite(scores).all(axis=1))):
            raise StepError(
                f"the {self.role} returns NaN or infinite scores for {bad} of the {len(scores)} rows of a batch; "
                "it is broken: look at its training loss"
            )
        return scores

    def raw_scores(self, batch: pa.RecordBatch) -> Array:
        """Like `score`, except that scores need not be finite."""
        import tensorflow as tf

        columns = {name: batch.column(self._column_of[name]) for name in self._inputs}
        inputs = {name: self._tensor(name, spec, columns[name]) for name, spec in self._inputs.items()}
        try:
            scores = self._signature(**inputs)[self.output].numpy().astype(np.float32)
        except tf.errors.OpError as error:
            raise StepError(f"the {self.role} fails on rows of the examples: {_gist(error)}") from error
        if scores.ndim not in (1, 2) or len(scores) != batch.num_rows:
            raise StepError(
                f"the {self.role} returns the shape {list(scores.shape)} for {batch.num_rows} rows; "
                "expected one output of shape [N], [N, 1] or [N, K]"
            )
        return scores.reshape(len(scores), -1)

    def _find_output(self) -> str:
        outputs = self._signature.structured_outputs
        floats = [name for name, spec in outputs.items() if spec.dtype.is_floating]
        if SCORES in floats:
            return SCORES
        if len(floats) != 1 or len(outputs) != 1:
            found = ", ".join(f"{name} ({spec.dtype.name})" for name, spec in sorted(outputs.items()))
            raise StepError(
                f"the {self.role}'s {SIGNATURE} has the outputs {found}; expected {SCORES!r} or one float output"
            )
        return floats[0]

    def _tensor(self, name: str, spec: "tf.TensorSpec", values: pa.Array) -> "tf.Tensor":
        """One column as the signature wants it, missing values as NaN or ""."""
        import tensorflow as tf

        if spec.dtype == tf.string:
            tensor = _text_tensor(values)
        else:
            tensor = tf.constant(self._numbers(name, spec.dtype.as_numpy_dtype, values))
        return tensor[:, tf.newaxis] if spec.shape.rank == 2 else tensor

    def _numbers(self, name: str, dtype: Any, values: pa.Array) -> Array:
        try:
            numbers = values.cast(pa.float64(), safe=False) if pa.types.is_string(values.type) else values
            if np.issubdtype(dtype, np.integer):
                return numbers.cast(pa.int64()).to_numpy().astype(dtype)
            with np.errstate(over="ignore"):  # beyond float32 is infinite, which models take for missing
                return numbers.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(dtype)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise StepError(
                f"column {name!r} cannot be fed to the {self.role}'s {np.dtype(dtype).name} input: {_gist(error)}"
            ) from error


def _text_tensor(values: pa.Array) -> "tf.Tensor":
    """Strings [N]; each distinct value crosses into TensorFlow once, which is many times faster than row by row."""
    import tensorflow as tf

    encoded = (values.cast(pa.string()) if pa.types.is_null(values.type) else values).dictionary_encode()
    texts = ["", *(_text(value) for value in encoded.dictionary.to_pylist())]
    codes = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False) + 1
    return tf.gather(tf.constant(texts), codes)


def _text(value: Any) -> str:
    """A whole number held as a float (an integer column with gaps) reads like the integer, as in training."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.0f}" if value.is_integer() else str(value)
    return str(value)


def _gist(error: Exception) -> str:
    """The one line of an error that says what happened; TensorFlow's stands just above the node, "[[{{node x}}]]"."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line, following in pairwise(lines) if following.startswith("[[")), lines[0])


def _renamed_columns(model: Path) -> dict[str, str]:
    """Input -> column, where train_model had to call an input otherwise than its column (such as "wind speed")."""
    preprocessing = saved_preprocessing(model)
    return {name: column for column, name in preprocessing.serving_names.items()} if preprocessing else {}
