"""The columns of the predictions: keys, scores, predicted, model_version and predicted_at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from kfp_hybrid.data.examples import arrow_schema
from kfp_hybrid.scoring.answer import Answer
from kfp_hybrid.step import StepError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Columns:
    """What is written for each row.

    Attributes:
        keys: key column -> type, as in the examples.
        answer: what the scores are about; None when nobody says.
        outputs: scores that the model gives for a row.
        prefix: stands before the name of every column that is not a key.
        threshold: a row is predicted positive when its score is at least this (binary).
        constants: name -> text that is the same in all rows.
    """

    keys: Mapping[str, str]
    answer: Answer | None
    outputs: int
    prefix: str
    threshold: float
    constants: Mapping[str, str]

    def __post_init__(self) -> None:
        widths = {"binary": (1, 2), "regression": (1,)}
        if self.answer and self.outputs not in widths.get(self.answer.task, (len(self.answer.classes),)):
            raise StepError(
                f"the model gives {self.outputs} scores per row, which does not fit the task {self.answer.task}"
                + (f" with {len(self.answer.classes)} classes" if self.answer.classes else "")
            )
        added = [*self.scores, *self._predicted, *(self.prefix + name for name in self.constants)]
        if clash := next((name for name in added if name in self.keys or added.count(name) > 1), None):
            raise StepError(f"two columns of the predictions would be called {clash!r}; give prefix, such as 'model_'")

    @property
    def types(self) -> dict[str, str]:
        """Column name -> type of the examples artifact."""
        constants = {self.prefix + name: "string" for name in self.constants}
        return {**self.keys, **dict.fromkeys(self.scores, "double"), **self._predicted, **constants}

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema; a text that is the same in all rows is written from a dictionary, and read as text."""
        schema = arrow_schema(self.types)
        for name in self.constants:
            position = schema.get_field_index(self.prefix + name)
            schema = schema.set(position, pa.field(self.prefix + name, pa.dictionary(pa.int8(), pa.string())))
        return schema

    @property
    def scores(self) -> list[str]:
        """The names of the score columns; none for a regression, whose score is what is predicted."""
        if self.answer is None:
            names = ["score"] if self.outputs == 1 else [f"score_{i}" for i in range(self.outputs)]
        elif self.answer.task == "multiclass":
            names = [f"score_{value}" for value in self.answer.classes]
        else:
            names = ["score"] if self.answer.task == "binary" else []
        return [self.prefix + name for name in names]

    @property
    def facts(self) -> dict[str, Any]:
        """What a reader of the predictions has to know about their columns, JSON values."""
        answer = self.answer or Answer("", "", ())
        return {
            "key_columns": list(self.keys),
            "scores": self.scores or list(self._predicted),
            "predicted": next(iter(self._predicted), None),
            "task": answer.task,
            "label": answer.label,
            "classes": list(answer.classes),
        }

    @property
    def _predicted(self) -> dict[str, str]:
        if self.answer is None:
            return {}
        kinds = {type(value) for value in self.answer.classes}
        type_ = "double" if self.answer.task == "regression" else "int64" if kinds == {int} else "string"
        return {self.prefix + "predicted": type_}

    def table(self, keys: pa.Table, scores: Array) -> pa.Table:
        """The columns of N rows.

        Args:
            keys: their key columns.
            scores: float32 [N, outputs]. A row with one that is not finite has neither scores nor a prediction.
        """
        unusable = np.logical_not(np.isfinite(scores).all(axis=1))
        mask: Array | None = unusable if np.any(unusable) else None
        shown = scores[:, -1:] if self.answer and self.answer.task == "binary" else scores
        columns = [pa.array(column.astype(np.float64), mask=mask) for column in shown.T]
        if self.answer and self.answer.task != "regression":
            columns.append(self._classes(self._decisions(shown), mask))
        constants = [_repeated(text, len(scores)) for text in self.constants.values()]
        return pa.Table.from_arrays([*keys.select(list(self.keys)).columns, *columns, *constants], schema=self.schema)

    def _decisions(self, scores: Array) -> Array:
        """Positions in the classes, int64 [N]."""
        if scores.shape[1] == 1:
            return (scores[:, 0] >= self.threshold).astype(np.int64)
        return np.argmax(scores, axis=1)

    def _classes(self, positions: Array, mask: Array | None) -> pa.Array:
        assert self.answer is not None
        type_ = self.schema.field(self.prefix + "predicted").type
        values = self.answer.classes if type_ == pa.int64() else list(map(str, self.answer.classes))
        return pa.array(values, type_).take(pa.array(positions, mask=mask))


def _repeated(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), [text])


def without_score(table: pa.Table, columns: Columns) -> int:
    """Rows that have neither a score nor a prediction."""
    names: Sequence[str] = columns.scores or [columns.prefix + "predicted"]
    return table[names[0]].null_count
