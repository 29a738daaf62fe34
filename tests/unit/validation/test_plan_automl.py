"""plan_automl: what AutoML of Vertex AI trains on."""

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from kfp_hybrid.components.training.plan_automl.plan import Splits, plan
from kfp_hybrid.step import StepError

SCHEMA = """
    feature { name: "late" type: INT not_in_environment: "SERVING" }
    feature { name: "delay" type: FLOAT not_in_environment: "SERVING" }
    feature { name: "carrier" type: BYTES }
    feature { name: "month" type: INT int_domain { is_categorical: true } }
    feature { name: "distance" type: FLOAT }
    default_environment: "TRAINING" default_environment: "SERVING"
"""


@pytest.fixture
def planned(tmp_path):
    """Plans for data with so many rows by split."""

    def make(schema=SCHEMA, label="late", task="auto", budget_hours=1.0, rows=None, splits=("train", "eval", "test")):
        (tmp_path / "schema").mkdir()
        (tmp_path / "statistics").mkdir()
        (tmp_path / "schema" / "schema.pbtxt").write_text(schema)
        parsed = text_format.Parse(schema, schema_pb2.Schema())
        datasets = statistics_pb2.DatasetFeatureStatisticsList()
        for split, count in (rows or {"train": 8000, "eval": 2000}).items():
            dataset = datasets.datasets.add(name=split, num_examples=count)
            for feature in parsed.feature:
                add_statistics(dataset, feature)
        (tmp_path / "statistics" / "stats.pb").write_bytes(datasets.SerializeToString())
        return plan(tmp_path / "statistics", tmp_path / "schema", label, task, budget_hours, Splits(*splits))

    return make


def add_statistics(dataset, feature):
    statistics = dataset.features.add()
    statistics.path.step.append(feature.name)
    if feature.type == schema_pb2.BYTES:
        statistics.type = statistics_pb2.FeatureNameStatistics.STRING
        statistics.string_stats.unique = 16
    else:
        is_int = feature.type == schema_pb2.INT
        statistics.type = (
            statistics_pb2.FeatureNameStatistics.INT if is_int else statistics_pb2.FeatureNameStatistics.FLOAT
        )
        statistics.num_stats.max = 1 if feature.name == "late" else 900


def test_features_are_those_known_when_serving(planned):
    made = planned()
    assert made.columns == ["late", "carrier", "month", "distance"]
    assert made.column_specs == {"carrier": "auto", "month": "categorical", "distance": "auto"}


@pytest.mark.parametrize(
    ("label", "task", "prediction_type"),
    [
        ("late", "auto", "classification"),
        ("carrier", "auto", "classification"),
        ("month", "auto", "classification"),
        ("delay", "auto", "regression"),
        ("late", "binary", "classification"),
        ("month", "multiclass", "classification"),
        ("late", "regression", "regression"),
    ],
)
def test_the_type_of_prediction_is_what_train_model_would_choose(planned, label, task, prediction_type):
    assert planned(label=label, task=task).prediction_type == prediction_type


@pytest.mark.parametrize(
    ("rows", "values"),
    [
        ({"train": 800, "eval": 100, "test": 100}, {"train": ["TRAIN"], "eval": ["VALIDATE"], "test": ["TEST"]}),
        ({"train": 800, "eval": 200}, {"train": ["TRAIN"], "eval": ["VALIDATE", "TEST"]}),
        ({"train": 800, "eval": 200, "test": 0}, {"train": ["TRAIN"], "eval": ["VALIDATE", "TEST"]}),
        ({"train": 900, "test": 100}, {"train": [*["TRAIN"] * 8, "VALIDATE"], "test": ["TEST"]}),
        ({"train": 1000}, {"train": [*["TRAIN"] * 8, "VALIDATE", "TEST"]}),
        ({"train": 1000, "holdout": 500}, {"train": [*["TRAIN"] * 8, "VALIDATE", "TEST"]}),
    ],
)
def test_rows_become_all_three_kinds_that_automl_wants(planned, rows, values):
    assert planned(rows=rows).split_values == values


def test_splits_can_have_other_names(planned):
    made = planned(rows={"2013": 900, "2014": 100}, splits=("2013", "2014", "2015"))
    assert made.split_values == {"2013": ["TRAIN"], "2014": ["VALIDATE", "TEST"]}


@pytest.mark.parametrize(("hours", "milli"), [(1, 1000), (1.5, 1500), (72, 72000)])
def test_the_budget_is_counted_in_thousandths_of_an_hour(planned, hours, milli):
    assert planned(budget_hours=hours).budget_milli_node_hours == milli


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget_hours": 0.5}, "budget_hours is 0.5; AutoML takes 1 to 72 node hours"),
        ({"budget_hours": 100.0}, "budget_hours is 100; AutoML takes 1 to 72 node hours"),
        ({"label": "tail"}, "label 'tail' is not in the data, which have late, delay, carrier, month, distance"),
        ({"task": "clustering"}, "parameter task is 'clustering'"),
        ({"label": "carrier", "task": "regression"}, "is not a number"),
        ({"rows": {"train": 900}}, "there are 900 rows; AutoML needs 1,000 at least"),
        ({"rows": {"eval": 5000}}, "there are no statistics of split 'train', only of eval"),
        ({"schema": 'feature { name: "late" type: INT }'}, "the schema knows no feature in the environment SERVING"),
        ({"schema": 'feature { name: "late" type: INT } feature { name: "dep delay" type: INT }'},
         "AutoML refuses the column name 'dep delay'"),
        ({"schema": 'feature { name: "late" type: INT } feature { name: "_a" type: INT }'}, "column name '_a'"),
        ({"schema": 'feature { name: "late" type: INT }' + "".join(f'feature {{ name: "f{n}" }}' for n in range(1000))},
         "there are 1001 columns; AutoML takes 1000"),
    ],
)  # fmt: skip
def test_what_automl_would_refuse_is_refused_before_it_costs_anything(planned, settings, message):
    with pytest.raises(StepError, match=message):
        planned(**settings)
