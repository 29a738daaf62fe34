"""The parameters of predict_batch, checked before anything expensive is loaded."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kfp_hybrid.data.examples import Examples
from kfp_hybrid.data.prediction_table_writer import ERROR, LAST, require_keys
from kfp_hybrid.preprocessing import TASKS
from kfp_hybrid.step import StepError


@dataclass(frozen=True)
class Options:
    """The parameters of the component `predict_batch`, which describes them."""

    splits: Sequence[str] = ()
    key_columns: Sequence[str] = ()
    task: str = "auto"
    classes: Sequence[Any] = ()
    decision_threshold: float = 0.5
    prefix: str = ""
    time: str = ""
    batch_size: int = 16384
    shard_rows: int = 262144
    workers: int = 0
    checkpoint_dir: str = ""
    shard_index: int = 0
    shard_count: int = 1
    to_table: bool = False
    table_duplicates: str = ERROR
    source: str = ""
    format: str = "auto"
    max_bad_fraction: float = 0.0

    def validate(self) -> None:
        """Check what can be checked without the data.

        Raises:
            StepError: a parameter is out of range.
        """
        for name, least in (("batch_size", 1), ("shard_rows", 1), ("workers", 0), ("shard_count", 1)):
            if (value := getattr(self, name)) < least:
                raise StepError(f"{name} is {value}; it must be at least {least}")
        if not 0 < self.decision_threshold < 1:
            raise StepError(f"decision_threshold is {self.decision_threshold:g}; it must lie between 0 and 1")
        if self.task not in ("auto", *TASKS):
            raise StepError(f"task is {self.task!r}; it must be one of auto, {', '.join(TASKS)}")
        if not 0 <= self.shard_index < self.shard_count:
            raise StepError(f"shard_index is {self.shard_index}; with shard_count {self.shard_count} it must be from 0 "
                            f"to {self.shard_count - 1}")  # fmt: skip
        if self.table_duplicates not in (ERROR, LAST):
            raise StepError(f"table_duplicates is {self.table_duplicates!r}; it must be {ERROR} or {LAST}")
        if self.to_table and self.shard_count > 1:
            raise StepError("to_table needs all shards; give it to merge_predictions, which puts them together")
        if self.time:
            self.timestamp()

    def chosen_splits(self, examples: Examples) -> list[str]:
        """The splits to predict for, in the order of the examples.

        Raises:
            StepError: the examples have no such split.
        """
        for name in self.splits:
            examples.split(name)
        return [name for name in examples.splits if not self.splits or name in self.splits]

    def key_types(self, examples: Examples) -> dict[str, str]:
        """The key columns and their types.

        Raises:
            StepError: the examples have no such column.
        """
        for name in self.key_columns:
            if name not in examples.columns:
                known = ", ".join(examples.columns)
                raise StepError(f"key_columns: the examples have no column {name!r}; their columns are {known}")
        types = {name: examples.columns[name] for name in self.key_columns}
        if self.to_table:
            require_keys(types)
        return types

    @property
    def result(self) -> dict[str, Any]:
        """Those parameters that the bytes of a shard depend on, but the time."""
        names = ("splits", "key_columns", "task", "classes", "decision_threshold", "prefix", "batch_size")
        return {name: getattr(self, name) for name in (*names, "shard_rows", "shard_count")}

    def timestamp(self) -> str:
        """The time to write into each row, to the second, in UTC.

        Raises:
            StepError: `time` is no time.
        """
        try:
            moment = datetime.datetime.fromisoformat(self.time) if self.time else datetime.datetime.now(datetime.UTC)
        except ValueError:
            raise StepError(f"time is {self.time!r}; give a time such as 2026-01-31T06:00:00Z") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
