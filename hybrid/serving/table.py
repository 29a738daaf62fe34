"""Static inference: a request whose keys were all predicted before is answered from the table that holds them."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfp_hybrid.data.prediction_table import MISS, PredictionTable

if TYPE_CHECKING:
    from kfp_hybrid.serving.servable import Servable

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

    def serves(self, servable: "Servable") -> bool:
        """Whether the answers of a version may come from the table: it wrote it, unless any version may."""
        fits = servable.outputs == self.table.outputs
        return fits and (self.any_version or servable.version == self.table.model_version)

    def lookup(self, columns: Mapping[str, Sequence[Any]]) -> np.ndarray | None:
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
