"""Static inference: a request whose keys were all predicted before is answered from the table that holds them."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp_hybrid.data.prediction_table import MISS, PredictionTable
from kfp_hybrid.serving.rows import Reader, Rows
from kfp_hybrid.serving.servable import Array, Servable

log = logging.getLogger(__name__)


class TableAnswers:
    """Answers from a prediction table where it can, and counts how often that is.

    Attributes:
        table: the table.
        any_version: answer also for versions of the model other than the one that wrote the table.
        hits: rows that were answered from the table.
        misses: rows of requests with keys that were left to the model.
    """

    def __init__(self, table: PredictionTable, any_version: bool = False) -> None:
        self.table = table
        self.any_version = any_version
        self.hits = 0
        self.misses = 0

    @classmethod
    def open(cls, folder: Path, any_version: bool = False) -> "TableAnswers":
        """Open a prediction table, or the predictions that it lies in as the folder `table`.

        Raises:
            StepError: there is no table, or it is damaged.
        """
        inside = folder / "table"
        table = PredictionTable.open(inside if inside.is_dir() else folder)
        log.info("answering %d keys from the table %s of version %s", table.rows, folder, table.model_version)
        return cls(table, any_version)

    def serves(self, servable: Servable) -> bool:
        """Whether the answers of a version may come from the table: it wrote it, unless any version may."""
        fits = servable.outputs == self.table.outputs
        return fits and (self.any_version or servable.version == self.table.model_version)

    def lookup(self, columns: Mapping[str, Sequence[Any]]) -> Array | None:
        """The scores of all rows of a request.

        A request is answered as a whole or not at all, so that an answer comes from one place.

        Args:
            columns: column name -> N values; others than the keys are ignored.

        Returns:
            float32 [N, outputs]; None when a key column or a key is not there.
        """
        if any(name not in columns for name in self.table.keys):
            return None
        rows = self.table.find(columns)
        if (rows == MISS).any():
            self.misses += len(rows)
            return None
        self.hits += len(rows)
        return self.table.scores[rows]


class TableReader(Reader):
    """Reads rows as a model wants them; where a table has all their keys, with scores and without features.

    Args:
        reader: reads rows for the model alone.
        answers: the table.
        servable: the model; if its answers may not come from the table, keys are only passed over.
    """

    def __init__(self, reader: Reader, answers: TableAnswers, servable: Servable) -> None:
        super().__init__(reader.features, reader.ignore_unknown)
        self._answers = answers
        self._serves = answers.serves(servable)
        self._keys = tuple(answers.table.keys)
        self._extra = set(self._keys).difference(self.names)  # keys that the model does not know

    def rows(self, instances: Sequence[Any]) -> Rows:
        """See `Reader.rows`; a row may have the keys alone."""
        try:
            columns = {key: [row[key] for row in instances] for key in self._keys}
        except (KeyError, TypeError, IndexError):
            return super().rows(instances)
        if known := self._known(columns):
            return known
        return super().rows([{n: v for n, v in row.items() if n not in self._extra} for row in instances])

    def columns(self, columns: Mapping[str, Any]) -> Rows:
        """See `Reader.columns`; there may be the keys alone."""
        if any(key not in columns for key in self._keys):
            return super().columns(columns)
        if known := self._known({key: _values(columns[key]) for key in self._keys}):
            return known
        return super().columns({name: values for name, values in columns.items() if name not in self._extra})

    def _known(self, keys: Mapping[str, Any]) -> Rows | None:
        lengths = {len(values) if isinstance(values, list) else 0 for values in keys.values()}
        if not self._serves or len(lengths) != 1 or lengths == {0}:
            return None  # a wrong length is the reader's to tell
        scores = self._answers.lookup(keys)
        if scores is None:
            return None
        rows = Rows(self._keys, columns=keys)
        rows.scores = scores
        return rows


def _values(column: Any) -> Any:
    """A tensor [N] or [N, 1] as a list; all else as it is."""
    if hasattr(column, "tolist"):
        return column.reshape(-1).tolist() if column.size == len(column) else column
    return column
