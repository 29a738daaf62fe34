"""Whole trainings on small data: what is published, and what is refused."""

import dataclasses
import json
import logging
import math

import numpy as np
import pytest
import tensorflow as tf

from kfp_hybrid.components.training.train_model import serving
from kfp_hybrid.components.training.train_model.training import Parameters, train
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.preprocessing import Preprocessing
from kfp_hybrid.step import StepError

QUICK = Parameters("late", epochs=2, batch_size=256, early_stopping_patience=0)


@pytest.fixture
def fit(flight_artifacts, tmp_path):
    """Trains into a folder of its own and returns (folder, result)."""
    runs = iter(range(100))

    def run(artifacts=flight_artifacts, parameters=QUICK, **changes):
        out = tmp_path / f"out{next(runs)}"
        chosen = dataclasses.replace(parameters, **changes)
        trained = train(artifacts.examples, artifacts.statistics, artifacts.schema, chosen, out / "model", out / "logs")
        return out, trained

    return run


def signatures(folder):
    return tf.saved_model.load(str(folder / "model")).signatures


def inputs_of(signature):
    """Input name -> (type, shape)."""
    specs = signature.structured_input_signature[1]
    return {name: (spec.dtype, spec.shape.as_list()) for name, spec in specs.items()}


def scores(folder, rows):
    preprocessing = Preprocessing.load(folder / "model" / "assets.extra")
    inputs = {name: tf.constant(values) for name, values in preprocessing.serving_inputs(rows).items()}
    return signatures(folder)["serving_default"](**inputs)["scores"].numpy()


def weights(folder):
    reader = tf.train.load_checkpoint(str(folder / "model" / "variables" / "variables"))
    names = sorted(n for n in reader.get_variable_to_shape_map() if n.startswith("model_variables"))
    return [reader.get_tensor(name) for name in names]


def assert_same_weights(folder, other):
    pairs = list(zip(weights(folder), weights(other), strict=True))
    assert pairs
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)


def events(folder):
    """Run -> tag -> values by step."""
    found = {}
    for file in (folder / "logs").glob("*/events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                run = found.setdefault(file.parent.name, {})
                run.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_a_binary_classifier_learns_and_is_published_with_two_signatures(fit, flight_artifacts):
    folder, trained = fit(epochs=8)
    assert trained.metrics["eval_auc"] > 0.9
    assert trained.metrics["eval_loss"] < 0.4
    loaded = signatures(folder)
    assert inputs_of(loaded["serving_default"]) == {
        "delay": (tf.float32, [None]),
        "wind": (tf.float32, [None]),
        "carrier": (tf.string, [None]),
        "weekday": (tf.string, [None]),
    }
    assert inputs_of(loaded["core"]) == {
        "numeric": (tf.float32, [None, 2]),
        "bucket": (tf.int32, [None, 2]),
        "categorical": (tf.int32, [None, 2]),
    }
    for signature in loaded.values():
        assert signature.structured_outputs["scores"].shape.as_list() == [None, 1]
    assert (folder / "model/assets.extra/schema.pbtxt").read_text() == (
        flight_artifacts.schema / "schema.pbtxt"
    ).read_text()


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs"),
    [(1, 16, 1000), (120, 16, 125), (1600, 16, 10), (6400, 64, 10), (10**6, 1024, 10), (0, 16, 1000)],
)
def test_few_rows_get_small_batches_and_many_epochs(rows, batch_size, epochs):
    chosen = Parameters("late").for_rows(rows)
    assert (chosen.batch_size, chosen.epochs) == (batch_size, epochs)


def test_what_is_given_is_not_chosen():
    assert Parameters("late", epochs=3, batch_size=7).for_rows(100) == Parameters("late", epochs=3, batch_size=7)
    assert Parameters("late", batch_size=50).for_rows(100).epochs == 500
    assert Parameters("late", epochs=3).for_rows(100).batch_size == 16


def test_few_rows_are_learned_from_as_thoroughly_as_many(write, make_flights, fit):
    artifacts = write({"train": make_flights(120), "eval": make_flights(500, 1)}, folder="few")
    _, trained = fit(artifacts, Parameters("late"))
    _, hasty = fit(artifacts, Parameters("late", epochs=10, batch_size=256))
    assert trained.metrics["eval_loss"] < hasty.metrics["eval_loss"] - 0.1


def test_metrics_and_metadata_describe_the_model(fit, flight_artifacts):
    _, trained = fit(epochs=2)
    assert set(trained.metrics) == {
        "train_loss", "eval_loss", "eval_auc", "eval_accuracy", "epochs", "published_epoch", "examples_per_second",
        "seconds",
    }  # fmt: skip
    assert all(math.isfinite(value) for value in trained.metrics.values())
    assert (trained.metrics["epochs"], trained.metrics["published_epoch"]) == (2, 2)
    assert trained.metadata == {
        "framework": "tensorflow",
        "task": "binary",
        "label": "late",
        "features": 4,
        "schema_fingerprint": Examples.open(flight_artifacts.examples).schema_fingerprint,
        "positive_class": "1",
    }


def test_reported_metrics_are_those_of_the_published_model(fit, flight_artifacts):
    folder, trained = fit(epochs=3)
    rows = next(Examples.open(flight_artifacts.examples).batches("eval"))
    assert rows.num_rows == 1000
    labels, served = rows["late"].to_numpy(), scores(folder, rows)[:, 0].astype(np.float64)
    loss = -np.mean(np.where(labels, np.log(served), np.log1p(-served)))
    assert trained.metrics["eval_loss"] == pytest.approx(loss, rel=1e-4)
    assert trained.metrics["eval_accuracy"] == pytest.approx(np.mean((served >= 0.5) == labels))
    ranks = np.argsort(np.argsort(served)) + 1
    positives = labels.sum()
    auc = (ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))
    assert trained.metrics["eval_auc"] == pytest.approx(auc, abs=2e-3)


def test_serving_agrees_with_the_numpy_preprocessing_on_odd_rows(fit):
    folder, _ = fit()
    preprocessing = Preprocessing.load(folder / "model" / "assets.extra")
    rows = {
        "delay": [None, math.nan, math.inf, -1e38, 1e38, 0, 3],
        "wind": [None, 1e-45, -0.0, 5.0, 1e30, math.nan, 2],
        "carrier": [None, "", "ünï", "AA ", "aa", "AA", "\x00"],
        "weekday": [None, 0, 6, 7, -1, 3, 2],
    }
    core = {name: tf.constant(values) for name, values in preprocessing.transform(rows).items()}
    expected = signatures(folder)["core"](**core)["scores"].numpy()
    np.testing.assert_allclose(scores(folder, rows), expected, atol=1e-6)
    assert np.isfinite(expected).all()


def test_a_multiclass_model_scores_every_class(write, make_flights, fit):
    def with_classes(rows, seed):
        flights = make_flights(rows, seed)
        flights["late"] = np.where(flights["late"] == 0, "early", np.where(flights["delay"] > 10, "very", "late"))
        return flights

    artifacts = write({"train": with_classes(3000, 0), "eval": with_classes(800, 1)}, folder="multiclass")
    folder, trained = fit(artifacts, epochs=6)
    assert trained.metadata["task"] == "multiclass"
    assert trained.metrics["eval_accuracy"] > 0.75
    rows = next(Examples.open(artifacts.examples).batches("eval"))
    given = scores(folder, rows)
    assert given.shape == (800, 3)
    np.testing.assert_allclose(given.sum(axis=1), 1, atol=1e-5)
    classes = Preprocessing.load(folder / "model" / "assets.extra").label.classes
    assert classes == ("early", "late", "very")
    predicted = np.array(classes)[given.argmax(axis=1)]
    assert np.mean(predicted == np.array(rows["late"].to_pylist())) == pytest.approx(trained.metrics["eval_accuracy"])


def test_a_regression_learns_in_the_unit_of_its_label(write, make_flights, fit):
    def with_minutes(rows, seed):
        flights = make_flights(rows, seed)
        flights["late"] = 1e5 + 300.0 * flights["delay"]
        return flights

    artifacts = write({"train": with_minutes(4000, 0), "eval": with_minutes(800, 1)}, folder="regression")
    folder, trained = fit(artifacts, epochs=20, learning_rate=0.01)
    assert trained.metadata["task"] == "regression"
    assert trained.metrics["eval_mae"] < 300  # of a label that varies by 3,000 around 100,000
    given = scores(folder, {"delay": [0, 10], "wind": [1, 1], "carrier": ["AA"] * 2, "weekday": [1, 1]})
    np.testing.assert_allclose(given[:, 0], [1e5, 1.03e5], atol=900)


@pytest.mark.parametrize("kept", ["delay", "carrier"])
def test_one_kind_of_features_is_enough(fit, kept):
    folder, trained = fit(features=[kept])
    assert trained.metadata["features"] == 1
    assert list(signatures(folder)["serving_default"].structured_input_signature[1]) == [kept]


def test_column_names_that_tensorflow_cannot_use_work(write, make_flights, fit):
    names = {"delay": "dep delay (min)", "wind": "class", "carrier": "ünï code", "weekday": "1st"}
    splits = {
        split: {names.get(name, name): values for name, values in make_flights(rows, seed).items()}
        for split, rows, seed in (("train", 1000, 0), ("eval", 300, 1))
    }
    folder, _ = fit(write(splits, folder="odd"))
    row = {"delay": [1], "wind": [1], "carrier": ["AA"], "weekday": [1]}
    given = scores(folder, {names[name]: value for name, value in row.items()})
    assert given.shape == (1, 1)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(fit):
    dropout = {"dropout": 0.3}
    first, _ = fit(hyperparameters=dropout)
    second, _ = fit(hyperparameters=dropout)
    assert_same_weights(first, second)
    other, _ = fit(hyperparameters=dropout, seed=2)
    assert any((a != b).any() for a, b in zip(weights(first), weights(other), strict=True))


def test_early_stopping_publishes_the_best_epoch(fit, write, make_flights, caplog):
    artifacts = write({"train": make_flights(300), "eval": make_flights(300, 1)}, folder="small")
    with caplog.at_level(logging.INFO):
        folder, trained = fit(artifacts, epochs=200, early_stopping_patience=2, learning_rate=0.03, batch_size=64)
    assert trained.metrics["epochs"] == trained.metrics["published_epoch"] + 2
    assert trained.metrics["epochs"] < 200
    assert "stopped early: val_loss has not become lower for 2 epochs" in caplog.messages
    best = int(trained.metrics["published_epoch"])
    until_best, _ = fit(artifacts, epochs=best, learning_rate=0.03, batch_size=64)
    assert_same_weights(folder, until_best)


def test_logs_hold_every_epoch_for_tensorboard(fit):
    folder, trained = fit(epochs=3)
    logged = events(folder)
    assert set(logged) == {"train", "validation"}
    assert [step for step, _ in logged["train"]["epoch_loss"]] == [0, 1, 2]
    assert logged["validation"]["epoch_auc"][2][1] == pytest.approx(trained.metrics["eval_auc"])
    assert logged["train"]["epoch_loss"][2][1] == pytest.approx(trained.metrics["train_loss"])


def test_the_log_has_one_line_per_epoch(fit, caplog):
    with caplog.at_level(logging.INFO):
        fit(epochs=2)
    epochs = [message for message in caplog.messages if message.startswith("epoch ")]
    assert len(epochs) == 2
    assert all(part in epochs[1] for part in ("epoch 2/2: loss ", "val_loss ", "val_auc ", " examples/s"))


def test_class_weights_move_the_scores(fit, flight_artifacts):
    rows = next(Examples.open(flight_artifacts.examples).batches("eval"))
    plain, _ = fit(epochs=3)
    heavier, _ = fit(epochs=3, class_weights={"0": 1.0, "1": 5.0})
    balanced, _ = fit(epochs=3, class_weights={"balanced": True})
    assert scores(heavier, rows).mean() > scores(plain, rows).mean() + 0.1
    positives = np.mean(rows["late"].to_numpy())
    assert abs(scores(balanced, rows).mean() - 0.5) < abs(positives - 0.5)


def test_training_without_an_eval_split(fit):
    _, trained = fit(eval_split="", early_stopping_patience=3)
    assert "eval_loss" not in trained.metrics
    assert trained.metrics["train_loss"] > 0


def test_mixed_precision_trains_and_serves_float32(fit):
    folder, trained = fit(epochs=4, mixed_precision=True)
    assert trained.metrics["eval_auc"] > 0.85
    assert {array.dtype for array in weights(folder) if array.dtype.kind == "f"} == {np.dtype(np.float32)}
    graph = tf.saved_model.load(str(folder / "model")).signatures["core"].graph
    used = {str(tensor.dtype) for op in graph.get_operations() for tensor in op.outputs}
    assert not used & {"<dtype: 'bfloat16'>", "<dtype: 'float16'>"}


def test_rows_beyond_the_memory_limit_are_streamed(fit, write):
    random = np.random.default_rng(0)

    def many(rows):
        columns = {f"x{i}": random.normal(size=rows) for i in range(40)}
        return {**columns, "late": (columns["x0"] > 0).astype(np.int64)}

    artifacts = write({"train": many(150_000), "eval": many(5000)}, folder="large")
    _, trained = fit(artifacts, epochs=1, memory_mb=1)
    assert trained.metrics["eval_auc"] > 0.95


USER_MODULE = """
import keras
from kfp_hybrid.components.training.train_model.wide_and_deep import core_inputs

def build_model(preprocessing, hyperparameters):
    inputs = core_inputs(preprocessing)
    hidden = keras.layers.Dense(int(hyperparameters["units"]), "relu")(inputs["numeric"])
    return keras.Model(inputs, keras.layers.Dense(preprocessing.outputs, "sigmoid")(hidden))
"""

SUBCLASS = """
import keras

class Mine(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, "sigmoid")

    def call(self, inputs, training=False):
        return self.dense(inputs["numeric"])

def build_model(preprocessing, hyperparameters):
    return Mine()
"""

SUBSET = """
import keras

def build_model(preprocessing, hyperparameters):
    numeric = keras.Input((len(preprocessing.numeric),), name="numeric")
    return keras.Model([numeric], keras.layers.Dense(1, "sigmoid")(numeric))
"""


@pytest.mark.parametrize("module", [USER_MODULE, SUBCLASS, SUBSET], ids=["functional", "subclass", "some inputs"])
def test_a_user_model_is_trained_and_published_like_the_built_in_one(fit, module):
    folder, trained = fit(module=module, hyperparameters={"units": 8.0}, epochs=8, learning_rate=0.05)
    assert trained.metrics["eval_auc"] > 0.75
    assert scores(folder, {"delay": [1], "wind": [1], "carrier": ["AA"], "weekday": [1]}).shape == (1, 1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "build_model returned int, must return a keras.Model"),
        ("return hyperparameters['absent']", "line 4: KeyError: 'absent'"),
        (
            "x = keras.Input((2,), name='numbers'); return keras.Model(x, keras.layers.Dense(1)(x))",
            "no input 'numbers' is known, only numeric, bucket, categorical",
        ),
        (
            "x = keras.Input((5,), name='numeric'); return keras.Model(x, keras.layers.Dense(1)(x))",
            "module <module>, line .*ValueError",
        ),
        (
            "x = keras.Input((2,), name='numeric'); return keras.Model(x, keras.layers.Dense(4)(x))",
            r"the model gives \(None, 4\), must give \(None, 1\)",
        ),
        (
            "x = keras.Input((2,), name='numeric'); return keras.Model(x, keras.layers.Dense(1)(x))",
            "the scores of build_model are not probabilities",
        ),
    ],
)
def test_a_user_model_that_cannot_be_trained_is_refused_before_training(fit, body, message):
    module = f"import keras\n\ndef build_model(preprocessing, hyperparameters):\n    {body}\n"
    with pytest.raises(StepError, match=message) as error:
        fit(module=module)
    assert "\n" not in str(error.value)


def test_a_user_model_that_fails_only_in_training_is_reported_with_its_line(fit):
    module = """
import keras

class Fails(keras.layers.Layer):
    def call(self, x, training=False):
        if training:
            raise RuntimeError("not today")
        return x

def build_model(preprocessing, hyperparameters):
    x = keras.Input((len(preprocessing.numeric),), name="numeric")
    return keras.Model(x, keras.layers.Dense(1, "sigmoid")(Fails()(x)))
"""
    with pytest.raises(StepError, match=r"module <module>, line 7: RuntimeError: .*not today") as error:
        fit(module=module)
    assert "\n" not in str(error.value)


def test_a_user_model_that_comes_out_different_each_time_is_refused(fit):
    module = """
import itertools
import keras

widths = itertools.count(4)

def build_model(preprocessing, hyperparameters):
    x = keras.Input((len(preprocessing.numeric),), name="numeric")
    return keras.Model(x, keras.layers.Dense(1, "sigmoid")(keras.layers.Dense(next(widths))(x)))
"""
    with pytest.raises(StepError, match="build_model must build the same model each time"):
        fit(module=module)


def test_a_nan_loss_fails_with_epoch_and_batch(write, make_flights, fit):
    # 4,000 rows are 16 batches of 256; the model breaks in its 20th step: epoch 2, batch 4.
    module = """
import keras, tensorflow as tf

class Breaks(keras.layers.Layer):
    def build(self, shape):
        self.calls = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if training:
            self.calls.assign_add(1)
            x = tf.where(tf.equal(self.calls, 20), float("nan"), x)
        return x

def build_model(preprocessing, hyperparameters):
    x = keras.Input((len(preprocessing.numeric),), name="numeric")
    return keras.Model(x, keras.layers.Dense(1, "sigmoid")(Breaks()(x)))
"""
    with pytest.raises(StepError, match=r"loss is not a finite number in epoch 2, batch 4 of 16; lower learning_rate"):
        fit(module=module, epochs=3)


def test_labels_that_span_many_orders_of_magnitude_are_no_disagreement(write, make_flights, fit):
    splits = {"train": make_flights(500), "eval": make_flights(200, 1)}
    for columns in splits.values():
        columns["late"] = np.exp(columns["delay"] / 2.0)
    _, trained = fit(write(splits, folder="prices"), task="regression")
    assert trained.metadata["task"] == "regression"


def test_a_model_that_disagrees_with_itself_is_not_published(fit, monkeypatch, tmp_path):
    honest = serving.ServedModel.preprocess

    def skewed(self, raw):
        inputs = honest(self, raw)
        return {**inputs, "numeric": inputs["numeric"] + 0.01}

    monkeypatch.setattr(serving.ServedModel, "preprocess", skewed)
    with pytest.raises(StepError, match=r"disagrees with itself: .* apart \(allowed 1e-05\)"):
        fit()
    assert [file.name for file in tmp_path.glob("out0/*")] == [".checkpoints"]


def test_an_earlier_output_is_replaced(flight_artifacts, tmp_path):
    for epochs in (1, 2):
        parameters = dataclasses.replace(QUICK, epochs=epochs)
        a = flight_artifacts
        train(a.examples, a.statistics, a.schema, parameters, tmp_path / "o" / "model", tmp_path / "o" / "logs")
    assert sorted(file.name for file in (tmp_path / "o").iterdir()) == ["logs", "model"]
    assert len(events(tmp_path / "o")["train"]["epoch_loss"]) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": -1}, "parameter epochs is -1, must be at least 1, or 0 to go by the number of rows"),
        ({"batch_size": -1}, "parameter batch_size is -1"),
        ({"learning_rate": 0.0}, "parameter learning_rate is 0.0, must be greater than 0"),
        ({"learning_rate": math.nan}, "parameter learning_rate is nan"),
        ({"seed": -1}, "parameter seed is -1"),
        ({"early_stopping_patience": -1}, "early_stopping_patience is -1"),
        ({"strategy": "magic"}, "parameter strategy is 'magic', must be one of none, mirrored, multi_worker, tpu"),
        ({"eval_split": "train"}, "train_split and eval_split are both 'train'"),
        ({"eval_split": "test"}, "has no split 'test'; it has: train, eval"),
        ({"train_split": "test"}, "has no statistics of split 'test'"),
        ({"hyperparameters": {"layers": 2}}, "'layers' is unknown"),
        ({"label": "later"}, "label 'later' is not in the schema"),
        ({"class_weights": {"2": 1.0}}, "class_weights names '2'"),
        ({"class_weights": {"1": -1.0}}, "class_weights gives -1.0 to '1'"),
        ({"class_weights": {"1": 1.0}, "label": "wind", "task": "regression"}, "label 'wind' is missing in"),
        ({"class_weights": {"1": 1.0}, "label": "delay", "task": "regression"}, "a regression has no classes"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(fit, changes, message):
    with pytest.raises(StepError, match=message) as error:
        fit(**changes)
    assert "\n" not in str(error.value)


def test_an_eval_split_with_an_unknown_class_is_refused(write, make_flights, fit):
    unknown = make_flights(100, 1)
    unknown["late"] = unknown["late"] + 1
    with pytest.raises(StepError, match=r"split 'eval': .* labels in column 'late' are none of the classes"):
        fit(write({"train": make_flights(500), "eval": unknown}, folder="unknown"))


def test_an_output_folder_that_cannot_be_written_to_is_named(flight_artifacts, tmp_path):
    (tmp_path / "file").write_text("")
    a = flight_artifacts
    with pytest.raises(StepError, match=r"file.*"):
        train(a.examples, a.statistics, a.schema, QUICK, tmp_path / "file" / "model", tmp_path / "file" / "logs")


def test_the_preprocessing_file_is_the_one_the_model_was_trained_with(fit):
    folder, _ = fit()
    document = json.loads((folder / "model/assets.extra/preprocessing.json").read_text(encoding="utf-8"))
    assert [feature["name"] for feature in document["numeric"]] == ["delay", "wind"]
    assert {f["name"]: f["type"] for f in document["categorical"]} == {"carrier": "string", "weekday": "int"}
