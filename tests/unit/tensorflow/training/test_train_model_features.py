import logging

import numpy as np
import pyarrow as pa
import pytest

from kfp_hybrid.components.training.train_model.features import make_preprocessing, read_schema, read_statistics
from kfp_hybrid.step import StepError

LABEL = [0, 1] * 100
COLUMNS = {
    "distance": list(range(200)),
    "speed": pa.array([None if i % 4 == 0 else float(i % 7) for i in range(200)]),
    "constant": [3.5] * 200,
    "empty": pa.nulls(200, pa.float64()),
    "nothing": pa.nulls(200),
    "carrier": ["B", "A", "A", "C"] * 50,
    "flight": [f"N{i}" for i in range(200)],
    "weekday": [i % 7 for i in range(200)],
    "late": LABEL,
}


@pytest.fixture
def make(describe, infer):
    def preprocessing(columns=COLUMNS, overrides="", label="late", **options):
        return make_preprocessing(describe(columns), infer(columns, overrides), label, **options)

    return preprocessing


def feature(preprocessing, name):
    return next(f for f in (*preprocessing.numeric, *preprocessing.categorical) if f.name == name)


def test_constants_of_numbers_are_those_of_the_statistics(make):
    distance = feature(make(), "distance")
    assert distance.mean == distance.missing == 99.5
    assert distance.std == pytest.approx(np.arange(200).std())
    assert distance.boundaries == pytest.approx(np.quantile(np.arange(200), np.arange(0.1, 1, 0.1)))


@pytest.mark.parametrize(
    ("buckets", "expected"), [(1, []), (4, [1, 2, 3]), (10, range(1, 10)), (100, range(10, 91, 10))]
)
def test_deciles_come_from_quantile_histograms_of_any_size(describe, infer, buckets, expected):
    statistics = describe(COLUMNS)
    histogram = statistics.features[0].num_stats.histograms[0]
    del histogram.buckets[:]
    for i in range(buckets):
        histogram.buckets.add(low_value=i, high_value=i + 1)
    assert make_preprocessing(statistics, infer(COLUMNS), "late").numeric[0].boundaries == tuple(expected)


def test_equal_deciles_become_one_boundary(make):
    speed = feature(make(), "speed")
    assert list(speed.boundaries) == sorted(set(speed.boundaries))
    assert len(speed.boundaries) < 9


def test_a_constant_number_is_not_divided_by_zero(make):
    constant = feature(make(), "constant")
    assert (constant.mean, constant.std) == (3.5, 1.0)


def test_features_without_values_are_left_out_and_logged(make, caplog):
    with caplog.at_level(logging.INFO):
        features = make().features
    assert not {"empty", "nothing"} & set(features)
    assert "feature empty is left out: it has no value in the training split" in caplog.messages
    assert "feature nothing is left out: it has no value in the training split" in caplog.messages


def test_the_label_is_not_a_feature(make):
    assert "late" not in make().features


def test_identifiers_are_left_out_and_logged(make, caplog):
    with caplog.at_level(logging.INFO):
        assert "flight" not in make().features
    assert any("flight is left out: 200 distinct values in 200 rows" in message for message in caplog.messages)


def test_large_vocabularies_are_left_out_unless_asked_for_or_listed(make, caplog):
    columns = {**COLUMNS, "tail": [f"N{i % 60}" for i in range(200)]}
    with caplog.at_level(logging.INFO):
        assert "tail" not in make(columns, max_vocabulary=50).features
    assert any("60 distinct values, more than max_vocabulary (50)" in message for message in caplog.messages)
    asked = make(columns, max_vocabulary=50, features=["tail", "distance"])
    assert len(feature(asked, "tail").vocabulary) == 50
    assert asked.features == ["distance", "tail"]
    domain = "".join(f'value: "N{i}" ' for i in range(60))
    listed = make(columns, f'feature {{ name: "tail" string_domain {{ {domain} }} }}', max_vocabulary=50)
    assert len(feature(listed, "tail").vocabulary) == 60


def test_the_vocabulary_is_the_domain_of_the_schema_or_the_most_frequent_values(make):
    assert feature(make(), "carrier").vocabulary[0] == "A"
    assert set(feature(make(), "carrier").vocabulary) == {"A", "B", "C"}
    inline = 'feature { name: "carrier" string_domain { value: "Z" value: "A" } }'
    assert feature(make(overrides=inline), "carrier").vocabulary == ("Z", "A")
    named = 'feature { name: "carrier" domain: "codes" } string_domain { name: "codes" value: "Q" value: "A" }'
    assert feature(make(overrides=named), "carrier").vocabulary == ("Q", "A")


def test_integers_are_numbers_unless_the_schema_marks_them_categorical(make):
    assert "weekday" in [f.name for f in make().numeric]
    weekday = feature(make(overrides='feature { name: "weekday" int_domain { is_categorical: true } }'), "weekday")
    assert (weekday.type, weekday.vocabulary) == ("int", tuple("0123456"))
    bounded = 'feature { name: "weekday" int_domain { is_categorical: true min: 1 max: 9 } }'
    assert feature(make(overrides=bounded), "weekday").vocabulary == tuple("123456789")


def test_categorical_integers_over_a_wide_range_are_left_out(make):
    overrides = 'feature { name: "distance" int_domain { is_categorical: true } }'
    assert "distance" not in make(overrides=overrides, max_vocabulary=100).features


def test_features_that_are_unknown_when_serving_are_left_out(make):
    environments = 'default_environment: "TRAINING" default_environment: "SERVING" '
    assert "speed" in make(overrides=environments).features
    hidden = environments + 'feature { name: "speed" not_in_environment: "SERVING" }'
    assert "speed" not in make(overrides=hidden).features
    only_training = 'default_environment: "TRAINING" feature { name: "speed" in_environment: "SERVING" }'
    assert make(overrides=only_training).features == ["speed"]
    deprecated = 'feature { name: "speed" lifecycle_stage: DEPRECATED }'
    assert "speed" not in make(overrides=deprecated).features


def test_features_are_limited_to_those_asked_for(make):
    assert make(features=["carrier", "distance"]).features == ["distance", "carrier"]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["nowhere"], "'nowhere', which is not in the schema"),
        (["late"], "features names the label 'late'"),
        (["speed"], "'speed', which the schema says is unknown when serving"),
        (["empty"], "feature 'empty' cannot be used: it has no value"),
    ],
)
def test_features_that_cannot_be_used_are_refused_when_asked_for(make, features, message):
    overrides = 'default_environment: "SERVING" feature { name: "speed" not_in_environment: "SERVING" }'
    with pytest.raises(StepError, match=message):
        make(overrides=overrides, features=features)


def test_a_feature_that_the_statistics_lack_is_named(describe, infer):
    statistics = describe({"late": LABEL, "distance": COLUMNS["distance"]})
    with pytest.raises(StepError, match="'speed' is in the schema but not in the statistics"):
        make_preprocessing(statistics, infer(COLUMNS), "late", features=["distance", "speed"])


def test_an_infinite_mean_leaves_a_feature_out(make, caplog):
    columns = {**COLUMNS, "speed": [float("inf")] + [1.0] * 199}
    with caplog.at_level(logging.INFO), np.errstate(invalid="ignore"):
        assert "speed" not in make(columns).features
    assert any("speed is left out: its mean is not finite" in message for message in caplog.messages)


def test_a_training_without_features_is_refused(make):
    with pytest.raises(StepError, match="no feature is left to train on"):
        make({"flight": COLUMNS["flight"], "late": LABEL})


@pytest.mark.parametrize(
    ("label", "overrides", "task", "classes"),
    [
        ([0, 1] * 100, "", "binary", (0, 1)),
        ([1, 2] * 100, "", "binary", (1, 2)),
        (["no", "yes"] * 100, "", "binary", ("no", "yes")),
        (["yes", "no"] * 100, 'feature { name: "late" string_domain { value: "yes" value: "no" } }', "binary",
         ("yes", "no")),
        (["b", "a", "c", "a"] * 50, "", "multiclass", ("a", "b", "c")),
        ([1, 2, 4, 2] * 50, 'feature { name: "late" int_domain { is_categorical: true } }', "multiclass",
         (1, 2, 3, 4)),
        ([1, 2, 4, 2] * 50, "", "regression", ()),
        ([0.0, 1.0] * 100, "", "regression", ()),
    ],
)  # fmt: skip
def test_the_task_follows_from_the_label(make, label, overrides, task, classes):
    preprocessing = make({**COLUMNS, "late": label}, overrides)
    assert (preprocessing.task, preprocessing.label.classes) == (task, classes)


def test_few_integers_are_pointed_out_because_they_may_be_classes(make, caplog):
    assert make({**COLUMNS, "late": [0, 1, 2, 1] * 50}).task == "regression"
    assert "label late holds integers from 0 to 2 and is taken for a number" in caplog.text


def test_a_task_can_be_chosen(make):
    assert make({**COLUMNS, "late": [-1, 1] * 100}, task="binary").label.classes == (-1, 1)
    assert make({**COLUMNS, "late": [1, 2, 4, 2] * 50}, task="multiclass").label.classes == (1, 2, 3, 4)
    regression = make({**COLUMNS, "late": [0, 10] * 100}, task="regression")
    assert (regression.label.mean, regression.label.std) == (5.0, 5.0)


@pytest.mark.parametrize(
    ("label", "options", "message"),
    [
        ([1] * 200, {}, "'late' is 1 in every training row"),
        (["x"] * 200, {}, "'late' is 'x' in every training row"),
        ([2.5] * 200, {}, "'late' is 2.5 in every training row"),
        (pa.nulls(200, pa.int64()), {}, "label 'late' has no value"),
        (pa.array([None, 0, 1, 1] * 50), {}, "label 'late' is missing in 50 of 200 rows"),
        (["a", "b", "c", "c"] * 50, {"task": "binary"}, "has 3 values, so its task cannot be binary"),
        (["a", "b"] * 100, {"task": "regression"}, "is not a number"),
        ([0, 1] * 100, {"task": "ranking"}, "parameter task is 'ranking'"),
        ([0, 10**6] * 100, {"task": "multiclass"}, "spans 1000001 integers"),
        ([0, 1] * 100, {"label": "lateness"}, "label 'lateness' is not in the schema, which has distance"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(make, label, options, message):
    with pytest.raises(StepError, match=message):
        make({**COLUMNS, "late": label}, **options)


def test_artifacts_that_cannot_be_read_are_named(tmp_path, flight_artifacts):
    with pytest.raises(StepError, match=r"stats.pb: cannot be read \(No such file"):
        read_statistics(tmp_path, "train")
    with pytest.raises(StepError, match="has no statistics of split 'test', only of train, eval"):
        read_statistics(flight_artifacts.statistics, "test")
    (tmp_path / "stats.pb").write_bytes(b"\xff\xff")
    with pytest.raises(StepError, match="is not a DatasetFeatureStatisticsList"):
        read_statistics(tmp_path, "train")
    with pytest.raises(StepError, match=r"schema.pbtxt: cannot be read"):
        read_schema(tmp_path)
    (tmp_path / "schema.pbtxt").write_text("feature {")
    with pytest.raises(StepError, match="is not a Schema text proto"):
        read_schema(tmp_path)
