"""evaluate_model on real SavedModels and real examples artifacts."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from kfp.dsl import Artifact, ClassificationMetrics, Metrics

from kfp_hybrid.components.evaluation.evaluate_model.evaluate import evaluate_model
from kfp_hybrid.data.examples import ExamplesWriter
from kfp_hybrid.preprocessing import Label, Numeric, Preprocessing
from kfp_hybrid.step import StepError

ROWS = 3000
TYPES = {"int64": pa.int64(), "double": pa.float64(), "string": pa.string(), "null": pa.null()}
DEFAULTS = {
    "split": "eval",
    "label": "",
    "task": "auto",
    "classes": [],
    "thresholds": {},
    "slice_columns": [],
    "slice_buckets": 4,
    "minimum_slice_rows": 100,
    "decision_threshold": 0.5,
    "batch_size": 1000,
}


def write_examples(path, columns, rows, **splits):
    """An examples artifact with `rows` in eval; columns: name -> (type, values)."""
    types = {name: type_ for name, (type_, _) in columns.items()}
    arrays = [pa.array(values, TYPES[type_]) for type_, values in columns.values()]
    with ExamplesWriter(path, types, splits=["train", "eval"]) as writer:
        if rows:
            writer.write("eval", pa.RecordBatch.from_arrays(arrays, names=list(columns)))
    return path


def save_model(path, function, inputs, signatures=("serving_default",), preprocessing=None):
    """A SavedModel of a plain function; inputs: name -> tf.TensorSpec."""
    concrete = tf.function(function).get_concrete_function(**inputs)
    tf.saved_model.save(tf.Module(), str(path), signatures=dict.fromkeys(signatures, concrete))
    if preprocessing:
        (path / "assets.extra").mkdir()
        preprocessing.save(path / "assets.extra/preprocessing.json")
    return path


def column(dtype=tf.float32, shape=(None,)):
    return tf.TensorSpec(shape, dtype)


def describing(task="binary", label="late", classes=(0, 1)):
    return Preprocessing(task, Label(label, classes), (Numeric("delay", 0.0, 1.0, 0.0, ()),), ())


def logistic(weight):
    """The score rises with the delay; the missing delay counts as 0."""

    def serve(delay):
        return {"scores": tf.sigmoid(weight * tf.where(tf.math.is_nan(delay), 0.0, delay))[:, tf.newaxis]}

    return serve


def evaluate(examples, model, tmp_path, baseline=None, fail_if_not_blessed=False, **parameters):
    evaluation, metrics, classification = (
        kind(name=name, uri=str(tmp_path / name))
        for kind, name in ((Artifact, "evaluation"), (Metrics, "metrics"), (ClassificationMetrics, "classification"))
    )
    blessed, reason = evaluate_model(
        examples,
        model,
        baseline,
        evaluation=evaluation,
        metrics=metrics,
        classification=classification,
        report=tmp_path / "report.html",
        fail_if_not_blessed=fail_if_not_blessed,
        **{**DEFAULTS, **parameters},
    )
    found = json.loads((tmp_path / "evaluation/evaluation.json").read_text(encoding="utf-8"))
    assert (found["blessed"], found["reason"]) == (blessed, reason)
    assert "\n" not in reason
    return found, metrics.metadata, classification.metadata


@pytest.fixture(scope="module")
def flights():
    """Delays predict lateness well, except on carrier HA, where they say nothing."""
    generator = np.random.default_rng(11)
    delay = generator.normal(size=ROWS).round(2)
    carrier = generator.choice(["UA", "AA", "HA", "ÿ ✈"], size=ROWS, p=[0.5, 0.35, 0.13, 0.02])
    chance = np.where(carrier == "HA", 0.5, 1 / (1 + np.exp(-2 * delay)))
    late = (generator.random(ROWS) < chance).astype(int)
    return {
        "delay": ("double", [None if i % 50 == 0 else value for i, value in enumerate(delay.tolist())]),
        "carrier": ("string", carrier.tolist()),
        "distance": ("int64", generator.integers(100, 3000, ROWS).tolist()),
        "late": ("int64", late.tolist()),
    }


@pytest.fixture(scope="module")
def examples(flights, tmp_path_factory):
    return write_examples(tmp_path_factory.mktemp("data") / "examples é", flights, ROWS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "modèle"
    return save_model(path, logistic(1.0), {"delay": column()}, preprocessing=describing())


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """Scores half of the rows as the model does and the rest with 0.5."""

    def serve(delay, distance):
        scores = tf.sigmoid(tf.where(tf.math.is_nan(delay) | (distance < 1500), 0.0, delay))
        return {"scores": scores[:, tf.newaxis]}

    inputs = {"delay": column(), "distance": column()}
    path = tmp_path_factory.mktemp("models") / "baseline"
    return save_model(path, serve, inputs, preprocessing=describing())


def rows_of(flights, where=lambda row: True):
    """(label, score, row) of the rows, computed without the component."""
    names = list(flights)
    for values in zip(*(values for _, values in flights.values()), strict=True):
        row = dict(zip(names, values, strict=True))
        if where(row):
            yield row["late"], 1 / (1 + math.exp(-(row["delay"] or 0.0)))


def auc_of(pairs):
    pairs = list(pairs)
    positives = np.array([s for label, s in pairs if label])
    negatives = np.array([s for label, s in pairs if not label])
    return float(np.mean((positives[:, None] > negatives) + (positives[:, None] == negatives) / 2))


def test_metrics_and_slices_are_those_of_the_rows(flights, examples, model, tmp_path):
    found, metrics, _ = evaluate(examples, model, tmp_path, slice_columns=["carrier", "distance"])
    assert found["rows"] == metrics["rows"] == ROWS
    assert metrics["auc"] == pytest.approx(auc_of(rows_of(flights)), abs=1e-6)
    pairs = list(rows_of(flights))
    assert metrics["accuracy"] == pytest.approx(np.mean([(score >= 0.5) == label for label, score in pairs]))
    assert metrics["label_mean"] == pytest.approx(np.mean([label for label, _ in pairs]))

    slices = {one["name"]: one for one in found["slices"]}
    assert len([name for name in slices if name.startswith("distance=[")]) == 4
    assert sum(one["rows"] for one in found["slices"] if one["column"] == "distance") == ROWS
    for carrier in ("UA", "AA", "HA"):
        expected = list(rows_of(flights, lambda row, carrier=carrier: row["carrier"] == carrier))
        assert slices[f"carrier={carrier}"]["rows"] == len(expected)
        assert slices[f"carrier={carrier}"]["metrics"]["auc"] == pytest.approx(auc_of(expected), abs=1e-6)
    rare = flights["carrier"][1].count("ÿ ✈")
    assert found["small_slices"] == {"carrier": {"slices": 1, "rows": rare}}
    assert found["slices"][0]["name"] == found["worst_slice"] == "carrier=HA"
    assert metrics["auc_worst_slice"] == slices["carrier=HA"]["metrics"]["auc"]


def test_the_batch_size_does_not_matter(examples, model, tmp_path):
    results = []
    for batch_size in (7, 5000):
        folder = tmp_path / str(batch_size)
        folder.mkdir()
        results.append(evaluate(examples, model, folder, batch_size=batch_size, slice_columns=["carrier"])[0])
    small, large = results
    assert small["overall"]["metrics"] == pytest.approx(large["overall"]["metrics"], abs=1e-6)
    assert [(one["name"], one["rows"]) for one in small["slices"]] == [
        (one["name"], one["rows"]) for one in large["slices"]
    ]


def test_what_the_consoles_draw_is_finite_and_square_and_small(flights, examples, model, tmp_path):
    _, metrics, classification = evaluate(examples, model, tmp_path)
    json.dumps(classification, allow_nan=False)
    assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in metrics.values())
    curve = classification["confidenceMetrics"]
    assert 100 <= len(curve) <= 200
    assert (curve[0]["falsePositiveRate"], curve[0]["recall"]) == (0, 0)
    assert (curve[-1]["falsePositiveRate"], curve[-1]["recall"]) == (1, 1)
    for name, sign in (("confidenceThreshold", -1), ("falsePositiveRate", 1), ("recall", 1)):
        assert all(sign * (b[name] - a[name]) >= 0 for a, b in itertools.pairwise(curve))
    matrix = classification["confusionMatrix"]
    assert [spec["displayName"] for spec in matrix["annotationSpecs"]] == ["0", "1"]
    counts = [row["row"] for row in matrix["rows"]]
    assert [len(row) for row in counts] == [2, 2]
    assert sum(counts[1]) == sum(flights["late"][1]) and sum(map(sum, counts)) == ROWS


def test_a_baseline_is_measured_on_the_same_rows(examples, model, baseline, tmp_path):
    found, metrics, _ = evaluate(examples, model, tmp_path, baseline=baseline, slice_columns=["distance"])
    assert metrics["auc_change"] > 0.05
    assert found["overall"]["baseline"]["auc"] == pytest.approx(metrics["auc"] - metrics["auc_change"])
    changes = [one["metrics"]["auc"] - one["baseline"]["auc"] for one in found["slices"]]
    assert max(changes) > 0.1 and min(abs(change) for change in changes) < 0.01  # far flights are scored alike
    assert {verdict["key"]: verdict["passed"] for verdict in found["thresholds"]} == {
        "min": True,
        "min_change": True,
        "slice_min": True,
    }


def test_a_model_worse_than_its_baseline_is_not_blessed(examples, model, baseline, tmp_path):
    found, *_ = evaluate(examples, baseline, tmp_path, baseline=model)
    assert not found["blessed"]
    assert "auc changed against the baseline by -0." in found["reason"]
    assert "below min_change -0.005" in found["reason"]


def test_a_slice_below_its_threshold_rejects_the_model_and_is_named(examples, model, tmp_path):
    found, metrics, _ = evaluate(
        examples, model, tmp_path, slice_columns=["carrier"], thresholds={"auc": {"slice_min": 0.7}}
    )
    assert found["reason"].startswith("not blessed: auc of carrier=HA (")
    assert "below slice_min 0.7" in found["reason"]
    assert metrics["blessed"] == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Not blessed" in page and found["reason"].removeprefix("not blessed: ") in page


def test_the_first_model_has_no_baseline_and_the_reason_says_so(examples, model, tmp_path):
    found, *_ = evaluate(examples, model, tmp_path)
    assert found["blessed"]
    assert found["reason"].endswith("; there is no baseline model, so auc min_change -0.005 could not be checked")


def test_failing_on_rejection_still_leaves_the_report(examples, model, tmp_path):
    with pytest.raises(StepError, match=r"auc is 0\.\d+, below min 0.99"):
        evaluate(examples, model, tmp_path, fail_if_not_blessed=True, thresholds={"auc": {"min": 0.99}})
    assert "Not blessed" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not json.loads((tmp_path / "evaluation/evaluation.json").read_text(encoding="utf-8"))["blessed"]


def test_an_output_that_cannot_be_written_is_one_line(examples, model, tmp_path):
    (tmp_path / "evaluation").write_text("in the way")
    with pytest.raises(StepError, match=r"cannot write .*evaluation: File exists"):
        evaluate(examples, model, tmp_path)


def test_the_report_stands_alone(examples, model, baseline, tmp_path):
    evaluate(examples, model, tmp_path, baseline=baseline, slice_columns=["carrier", "distance"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<link" not in page and "<script src" not in page and "url(" not in page
    assert "undefined" not in page.split("<script>")[0]
    assert len(page) < 300_000


def test_text_in_the_data_cannot_become_markup(model, tmp_path):
    columns = {
        "delay": ("double", [i / 100 for i in range(400)]),
        "carrier": ("string", ["<script>alert(1)</script>", "</script>&"] * 200),
        "late": ("int64", [int(i % 3 > 0) for i in range(400)]),
    }
    examples = write_examples(tmp_path / "examples", columns, 400)
    evaluate(examples, model, tmp_path, slice_columns=["carrier"])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert page.count("</script>") == 1


def test_rows_without_a_label_are_left_out_and_counted(model, tmp_path):
    delay = [-1.0, 1.0, 2.0, 9.0] * 30
    late = [0.0, 1.0, None, float("nan")] * 30
    examples = write_examples(tmp_path / "examples", {"delay": ("double", delay), "late": ("double", late)}, 120)
    found, metrics, _ = evaluate(examples, model, tmp_path)
    assert (found["rows"], found["rows_without_label"], metrics["auc"]) == (60, 60, 1)
    assert "60 rows without a label are left out" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_baseline_with_its_classes_the_other_way_round_is_put_right(flights, examples, model, tmp_path):
    def serve(delay):
        return {"scores": 1 - logistic(1.0)(delay)["scores"]}

    other = save_model(tmp_path / "other", serve, {"delay": column()}, preprocessing=describing(classes=(1, 0)))
    _, metrics, _ = evaluate(examples, model, tmp_path, baseline=other)
    assert metrics["auc_change"] == pytest.approx(0, abs=1e-6)
    assert metrics["log_loss_change"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", ["[N]", "[N, 1]", "[N, 2]"])
def test_a_model_of_somebody_else_may_return_its_scores_in_any_of_these_shapes(shape, examples, tmp_path):
    def serve(delay):
        score = tf.sigmoid(tf.where(tf.math.is_nan(delay), 0.0, delay))
        rank_2 = tf.reshape(score, [-1, 1])
        shaped = {"[N]": tf.reshape(score, [-1]), "[N, 1]": rank_2, "[N, 2]": tf.concat([1 - rank_2, rank_2], 1)}
        return {"output_0": shaped[shape]}

    model = save_model(tmp_path / "model", serve, {"delay": column(shape=(None, 1))})
    found, metrics, _ = evaluate(examples, model, tmp_path, label="late", task="binary")
    assert metrics["auc"] > 0.75
    assert found["label"] == {"name": "late", "classes": [0, 1]}


def test_integer_and_text_inputs_get_their_columns_in_their_own_type(tmp_path):
    # `gate` is an integer column with gaps, held as floats: its text must read "7", not "7.0".
    columns = {
        "hour": ("int64", [i % 24 for i in range(480)]),
        "gate": ("double", [7.0 if i % 24 > 11 else None for i in range(480)]),
        "carrier": ("string", ["UA" if i % 24 > 11 else None for i in range(480)]),
        "empty": ("null", [None] * 480),
        "late": ("string", ["yes" if i % 24 > 11 else "no" for i in range(480)]),
    }

    def serve(hour, gate, carrier, empty):
        agree = (hour > 11) & (gate == "7") & (carrier == "UA") & (empty == "")
        disagree = (hour <= 11) & (gate == "") & (carrier == "") & (empty == "")
        return {"p": tf.where(agree, 0.9, tf.where(disagree, 0.1, 0.5))}

    inputs = {"hour": column(tf.int32), **{name: column(tf.string) for name in ("gate", "carrier", "empty")}}
    model = save_model(tmp_path / "model", serve, inputs)
    examples = write_examples(tmp_path / "examples", columns, 480)
    _, metrics, classification = evaluate(
        examples, model, tmp_path, label="late", task="binary", classes=["no", "yes"], slice_columns=["empty", "gate"]
    )
    assert metrics["accuracy"] == 1 and metrics["log_loss"] == pytest.approx(-math.log(0.9))
    names = [spec["displayName"] for spec in classification["confusionMatrix"]["annotationSpecs"]]
    assert names == ["no", "yes"]


def test_whole_numbers_that_a_runner_turned_into_floats_are_still_classes(examples, tmp_path):
    model = save_model(tmp_path / "model", logistic(1.0), {"delay": column()})
    found, *_ = evaluate(examples, model, tmp_path, label="late", task="binary", classes=[0.0, 1.0])
    assert found["label"]["classes"] == [0, 1]


COLOURS = {"label": "colour", "task": "multiclass", "classes": ["red", "green", "blue"]}


def softmax_of(scale):
    def serve(x):
        return {"scores": tf.nn.softmax(scale * tf.stack([-x, tf.zeros_like(x), x], axis=1))}

    return serve


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    generator = np.random.default_rng(2)
    x = generator.normal(size=900) * 2
    noisy = x + generator.normal(size=900) * 0.3
    colour = np.where(noisy < -0.7, "red", np.where(noisy < 0.7, "green", "blue"))
    columns = {"x": ("double", x.tolist()), "colour": ("string", colour.tolist()), "half": ("int64", [0, 1] * 450)}
    return write_examples(tmp_path_factory.mktemp("colours") / "examples", columns, 900)


def test_a_model_of_many_classes(colours, tmp_path):
    model = save_model(tmp_path / "model", softmax_of(1.0), {"x": column()})
    found, metrics, classification = evaluate(
        colours,
        model,
        tmp_path,
        label="colour",
        task="multiclass",
        classes=["red", "green", "blue"],
        slice_columns=["half"],
    )
    assert found["blessed"] and 0.5 < metrics["accuracy"] < 1 and metrics["kappa"] > 0.3
    assert [one["class"] for one in found["classes"]] == ["red", "green", "blue"]
    assert sum(one["rows"] for one in found["classes"]) == 900
    matrix = [row["row"] for row in classification["confusionMatrix"]["rows"]]
    assert np.trace(matrix) / 900 == pytest.approx(metrics["accuracy"])
    assert "confidenceMetrics" not in classification
    assert len(found["slices"]) == 2


def test_classes_beyond_what_fits_on_a_page_are_shown_as_one(tmp_path):
    labels = [i % 40 if i % 40 < 35 else 0 for i in range(800)]
    columns = {"x": ("int64", labels), "label": ("int64", labels)}
    examples = write_examples(tmp_path / "examples", columns, 800)

    def serve(x):
        return {"scores": tf.one_hot(tf.cast(x, tf.int32), 40)}

    model = save_model(tmp_path / "model", serve, {"x": column(tf.int64)})
    classes = list(range(40))
    _, metrics, classification = evaluate(
        examples, model, tmp_path, label="label", task="multiclass", classes=classes, batch_size=64
    )
    matrix = classification["confusionMatrix"]
    assert len(matrix["annotationSpecs"]) == len(matrix["rows"]) == 30
    assert matrix["annotationSpecs"][-1] == {"displayName": "(other classes)"}
    assert np.sum([row["row"] for row in matrix["rows"]]) == 800
    assert metrics["accuracy"] == 1


def test_a_regression(tmp_path):
    x = np.linspace(0, 10, 500)
    columns = {"x": ("double", x.tolist()), "y": ("double", (2 * x).tolist()), "half": ("string", ["a", "b"] * 250)}
    examples = write_examples(tmp_path / "examples", columns, 500)

    def serve(x):
        return {"y": 2 * x + 0.5}

    model = save_model(tmp_path / "model", serve, {"x": column()})
    found, metrics, classification = evaluate(
        examples, model, tmp_path, label="y", task="regression", slice_columns=["half", "x"]
    )
    assert found["blessed"]
    assert (metrics["mae"], metrics["rmse"], metrics["bias"]) == pytest.approx((0.5, 0.5, 0.5))
    assert metrics["r2"] == pytest.approx(1 - 0.25 / np.var(2 * x))
    assert classification == {}


def test_a_constant_prediction_is_not_blessed_by_default(examples, colours, tmp_path):
    """Pressing Start without thresholds must stop a model that learnt nothing, whatever its task."""

    def constant(delay):
        return {"scores": 0 * tf.where(tf.math.is_nan(delay), 0.0, delay)[:, None] + 0.5}

    def one_class(x):
        return {"scores": tf.one_hot(0 * tf.cast(x, tf.int32), 3)}

    binary = save_model(tmp_path / "binary", constant, {"delay": column()}, preprocessing=describing())
    assert not evaluate(examples, binary, tmp_path)[0]["blessed"]
    number = save_model(tmp_path / "number", constant, {"delay": column()})
    assert not evaluate(examples, number, tmp_path, label="distance", task="regression")[0]["blessed"]
    many = save_model(tmp_path / "many", one_class, {"x": column()})
    assert not evaluate(colours, many, tmp_path, **COLOURS)[0]["blessed"]


def refused(examples, model, tmp_path, **parameters):
    with pytest.raises(StepError) as error:
        evaluate(examples, model, tmp_path, **parameters)
    message = str(error.value)
    assert "\n" not in message
    assert not (tmp_path / "report.html").exists() and not (tmp_path / "evaluation").exists()
    return message


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"split": "test"}, ["'test'", "train", "eval"]),
        ({"split": "train"}, ["'train'", "no rows"]),
        ({"label": "tardy"}, ["'tardy'", "late"]),
        ({"slice_columns": ["carier"]}, ["'carier'", "carrier"]),
        ({"thresholds": {"auk": {"min": 1}}}, ["'auk'", "auc_pr"]),
        ({"thresholds": {"auc": {"least": 1}}}, ["'least'", "slice_min"]),
        ({"task": "ranking"}, ["'ranking'", "regression"]),
        ({"task": "regression"}, ["'regression'", "binary"]),
        ({"classes": ["a", "b"]}, ["['a', 'b']", "[0, 1]"]),
        ({"decision_threshold": 1.5}, ["decision_threshold", "1.5"]),
        ({"slice_buckets": 1}, ["slice_buckets", "2"]),
        ({"minimum_slice_rows": 0}, ["minimum_slice_rows"]),
        ({"batch_size": 0}, ["batch_size"]),
        ({"baseline": Path("/nowhere")}, ["baseline", "/nowhere"]),
    ],
)
def test_a_wrong_parameter_is_refused_in_one_line(parameters, words, examples, model, tmp_path):
    message = refused(examples, model, tmp_path, **parameters)
    assert all(word in message for word in words), message


def test_parameters_are_checked_before_tensorflow_is_imported(examples, model, tmp_path):
    code = f"""
import sys
from pathlib import Path
from kfp_hybrid.components.evaluation.evaluate_model.evaluate import evaluate_model
from kfp_hybrid.step import StepError
try:
    evaluate_model(Path({str(examples)!r}), Path({str(model)!r}), None, evaluation=None, metrics=None,
                   classification=None, report=None, fail_if_not_blessed=False,
                   **{ ({**DEFAULTS, "thresholds": {"auk": {"min": 1}}})!r})
except StepError as error:
    print("tensorflow" in sys.modules, error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.startswith("False thresholds: a binary model has no metric 'auk'")


def test_a_directory_without_a_model_is_refused(examples, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "saved_model.pb" in refused(examples, tmp_path / "empty", tmp_path)
    (tmp_path / "empty/saved_model.pb").write_bytes(b"not a model")
    message = refused(examples, tmp_path / "empty", tmp_path, label="late", task="binary")
    assert "cannot be loaded" in message


def test_a_model_that_does_not_say_what_it_predicts_needs_the_parameters(examples, tmp_path):
    model = save_model(tmp_path / "model", logistic(1.0), {"delay": column()})
    for parameters in ({}, {"label": "late"}, {"task": "binary"}):
        message = refused(examples, model, tmp_path, **parameters)
        assert "label" in message and "task" in message
    assert "classes" in refused(examples, model, tmp_path, label="late", task="multiclass")


def test_a_column_that_the_model_wants_and_the_examples_lack_is_named(examples, tmp_path):
    def serve(delay, weather):
        return {"scores": tf.sigmoid(delay + weather)}

    model = save_model(tmp_path / "model", serve, {"delay": column(), "weather": column()})
    assert "'weather'" in refused(examples, model, tmp_path, label="late", task="binary")


def test_text_where_the_model_wants_a_number_is_named(examples, tmp_path):
    def serve(carrier):
        return {"scores": tf.sigmoid(carrier)}

    model = save_model(tmp_path / "model", serve, {"carrier": column()})
    message = refused(examples, model, tmp_path, label="late", task="binary")
    assert "'carrier'" in message and "float32" in message


def test_missing_values_for_an_integer_input_are_named(examples, tmp_path):
    def serve(delay):
        return {"scores": tf.sigmoid(tf.cast(delay, tf.float32))}

    model = save_model(tmp_path / "model", serve, {"delay": column(tf.int64)})
    assert "'delay'" in refused(examples, model, tmp_path, label="late", task="binary")


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (lambda delay: {"a": delay, "b": delay}, ["a (float32), b (float32)", "'scores'"]),
        (lambda delay: {"a": tf.cast(delay > 0, tf.int64)}, ["a (int64)"]),
        (lambda delay: {"a": tf.fill([tf.size(delay), 3], 0.3)}, ["3 scores per row", "1 or 2"]),
        (lambda delay: {"a": tf.sigmoid(delay)[:1]}, ["shape [1]"]),
        (lambda delay: {"a": tf.sigmoid(delay)}, ["NaN", "20 of the 1000 rows"]),
        (lambda delay: {"a": tf.where(tf.math.is_nan(delay), 0.0, 5 * delay)}, ["sigmoid"]),
        (lambda delay: {"a": tf.fill([tf.size(delay), 2], 0.9)}, ["sum", "softmax"]),
        (lambda delay: {"a": tf.debugging.check_numerics(delay, "broken input")}, ["fails on rows", "broken input"]),
    ],
    ids=["two outputs", "no float output", "too wide", "too short", "NaN", "logits", "not normalised", "raises"],
)
def test_scores_that_cannot_be_used_are_refused_in_one_line(serve, words, examples, tmp_path):
    model = save_model(tmp_path / "model", serve, {"delay": column()})
    message = refused(examples, model, tmp_path, label="late", task="binary")
    assert all(word in message for word in words), message


def test_a_model_without_the_signature_is_refused(examples, tmp_path):
    model = save_model(tmp_path / "model", logistic(1.0), {"delay": column()}, signatures=["core"])
    message = refused(examples, model, tmp_path, label="late", task="binary")
    assert "'serving_default'" in message and "core" in message


def test_an_input_of_several_values_per_row_is_refused(examples, tmp_path):
    def serve(delay):
        return {"scores": tf.sigmoid(tf.reduce_sum(delay, axis=1))}

    model = save_model(tmp_path / "model", serve, {"delay": column(shape=(None, 8))})
    assert "'delay'" in refused(examples, model, tmp_path, label="late", task="binary")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([1, 1, 1], ["all 3 rows", "1", "AUC is undefined"]),
        ([0, 1, 2], ["'late'", "0, 1", "2"]),
        ([None, None, None], ["none of the 3 rows"]),
    ],
)
def test_labels_that_cannot_be_evaluated_are_refused_in_one_line(labels, words, model, tmp_path):
    columns = {"delay": ("double", [0.1, 0.2, 0.3]), "late": ("int64", labels)}
    examples = write_examples(tmp_path / "examples", columns, 3)
    message = refused(examples, model, tmp_path)
    assert all(word in message for word in words), message


def test_a_text_label_of_a_regression_is_refused(examples, tmp_path):
    model = save_model(tmp_path / "model", logistic(1.0), {"delay": column()})
    assert "'carrier'" in refused(examples, model, tmp_path, label="carrier", task="regression")


def test_a_baseline_that_answers_another_question_is_refused(examples, model, tmp_path):
    other = save_model(
        tmp_path / "other", logistic(1.0), {"delay": column()}, preprocessing=describing(classes=("no", "yes"))
    )
    message = refused(examples, model, tmp_path, baseline=other)
    assert "['no', 'yes']" in message and "['0', '1']" in message
    number = save_model(
        tmp_path / "number", logistic(1.0), {"delay": column()}, preprocessing=describing("regression", classes=())
    )
    assert "regression" in refused(examples, model, tmp_path, baseline=number)
