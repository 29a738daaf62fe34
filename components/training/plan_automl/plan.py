"""What AutoML of Vertex AI trains on: columns, splits, the type of prediction, the budget."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tensorflow_metadata.proto.v0 import statistics_pb2

from kfp_hybrid.components.data_validation.artifacts import read_schema, read_statistics
from kfp_hybrid.components.training.train_model.features import choose_task, feature_candidates
from kfp_hybrid.step import StepError

# The limits of AutoML for tables.
MIN_HOURS, MAX_HOURS = 1.0, 72.0
MIN_ROWS = 1000
MAX_COLUMNS = 1000
COLUMN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")

AUTO, CATEGORICAL = "auto", "categorical"  # how AutoML is to understand a column
TRAIN, VALIDATE, TEST = "TRAIN", "VALIDATE", "TEST"

log = logging.getLogger(__name__)


class Splits(NamedTuple):
    """The names of the splits; `eval` and `test` may be missing in the data."""

    train: str
    eval: str
    test: str


class Plan(NamedTuple):
    """What was decided; the fields are the component's outputs."""

    prediction_type: str
    columns: list[str]
    column_specs: dict[str, str]
    split_values: dict[str, list[str]]
    budget_milli_node_hours: int


def plan(statistics: Path, schema: Path, label: str, task: str, budget_hours: float, splits: Splits) -> Plan:
    """Decide what AutoML trains on.

    Args:
        statistics: The statistics artifact.
        schema: The schema artifact.
        label: Name of the label column.
        task: "binary", "multiclass", "regression" or "auto".
        budget_hours: The training budget in node hours.
        splits: The names of the splits.

    Raises:
        StepError: AutoML would refuse this, or the label is not in the data.
    """
    if not MIN_HOURS <= budget_hours <= MAX_HOURS:
        raise StepError(f"budget_hours is {budget_hours:g}; AutoML takes {MIN_HOURS:g} to {MAX_HOURS:g} node hours")
    described = read_schema(schema)
    by_split = read_statistics(statistics)
    features = {feature.name: feature for feature in described.feature}
    if splits.train not in by_split:
        raise StepError(f"there are no statistics of split {splits.train!r}, only of {', '.join(by_split)}")
    known = {".".join(item.path.step) or item.name: item for item in by_split[splits.train].features}
    if label not in features or label not in known:
        raise StepError(f"label {label!r} is not in the data, which have {', '.join(known)}; set label to one of these")
    names = feature_candidates(described, label)
    _check_columns([label, *names])
    chosen = choose_task(known[label], features[label], task)
    split_values = _split_values(by_split, splits)
    made = Plan(
        "regression" if chosen == "regression" else "classification",
        [label, *names],
        {name: CATEGORICAL if features[name].int_domain.is_categorical else AUTO for name in names},
        split_values,
        round(budget_hours * 1000),
    )
    log.info("%s of %s from %d columns, rows as %s", made.prediction_type, label, len(names), split_values)
    return made


def _check_columns(columns: Sequence[str]) -> None:
    if len(columns) == 1:
        raise StepError("the schema knows no feature in the environment SERVING; AutoML needs one at least")
    if len(columns) > MAX_COLUMNS:
        raise StepError(f"there are {len(columns)} columns; AutoML takes {MAX_COLUMNS}: leave some out of the schema")
    for name in columns:
        if not COLUMN_NAME.fullmatch(name):
            raise StepError(
                f"AutoML refuses the column name {name!r}; rename it to letters, digits and underscores, "
                "no underscore first"
            )


def _split_values(
    statistics: Mapping[str, statistics_pb2.DatasetFeatureStatistics], splits: Splits
) -> dict[str, list[str]]:
    """What AutoML calls the rows of each split, dealt in turn. It wants rows of all three kinds."""
    rows = {name: int(statistics[name].num_examples) for name in splits if name in statistics}
    if sum(rows.values()) < MIN_ROWS:
        raise StepError(f"there are {sum(rows.values())} rows; AutoML needs {MIN_ROWS:,} at least")
    has_eval, has_test = bool(rows.get(splits.eval)), bool(rows.get(splits.test))
    values = {splits.train: [TRAIN], splits.eval: [VALIDATE], splits.test: [TEST]}
    if not has_test and has_eval:
        values[splits.eval] = [VALIDATE, TEST]
    elif not has_eval:
        values[splits.train] = [*[TRAIN] * 8, VALIDATE, *[TEST] * (not has_test)]
    return {name: dealt for name, dealt in values.items() if rows.get(name)}
