"""validate_serving: what it finds with the real server, on healthy models and on models that are broken on purpose."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kfp_hybrid.components.inference.validate_serving.validate import validate_serving
from kfp_hybrid.edge.bundle import MANIFEST
from kfp_hybrid.step import StepError

SMALL = {"rows": 200, "batch_rows": 50, "requests": 60, "concurrency": 3}
LIMITS = {"start_seconds": 120.0, "request_seconds": 30.0, "difference": 1e-4, "changed_fraction": 0.001, "p50_ms": 0.0,
          "p99_ms": 0.0, "memory_mb": 0.0, "running_changed_fraction": 0.0, "running_shift": 0.0}  # fmt: skip


class Artifact:
    def __init__(self, path):
        self.path = str(path)
        self.metadata = {}


class Metrics:
    def __init__(self):
        self.values = {}

    def log_metric(self, name, value):
        self.values[name] = value


class Verdict:
    """What the step put out."""

    def __init__(self, servable, reason, validation, metrics, report):
        self.servable = servable
        self.reason = reason
        self.metadata = validation.metadata
        self.content = json.loads((Path(validation.path) / "validation.json").read_text())
        self.metrics = metrics.values
        self.html = report.read_text()

    def check(self, name):
        (found,) = (check for check in self.content["checks"] if check["name"] == name)
        return found


@pytest.fixture
def judge(tmp_path, examples):
    """judge(model, bundle, **parameters): run the step and give its outputs."""

    def run(model=None, bundle=None, running=None, destination="", data=examples, fail_if_not_servable=False, **given):
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        validation, metrics, report = Artifact(folder / "validation"), Metrics(), folder / "report.html"
        parameters = {"engine": "auto", "server_options": [], "split": "eval", "task": "auto", "classes": [],
                      **SMALL, **LIMITS, **given}  # fmt: skip
        servable, reason = validate_serving(
            data, model, bundle, running, destination, validation=validation, metrics=metrics, report=report,
            fail_if_not_servable=fail_if_not_servable, **parameters,
        )  # fmt: skip
        assert "\n" not in reason
        return Verdict(servable, reason, validation, metrics, report)

    return run


# ------------------------------------------------------------------------------------------------- healthy models


def test_a_model_and_its_bundle_are_servable_and_answer_as_computed_offline(judge, model):
    verdict = judge(model.saved, model.bundle)
    assert verdict.servable, verdict.reason
    assert verdict.reason.startswith("servable: ready after ")
    assert "answers 200 rows as offline" in verdict.reason
    assert verdict.metadata["engine"] == "litert"
    assert {check["outcome"] for check in verdict.content["checks"]} == {"passed", "reported"}
    assert verdict.metrics["offline_max_difference"] < 1e-6
    assert verdict.metrics["saved_model_max_difference"] < 1e-5
    assert verdict.metrics["hostile_requests"] > 100
    assert verdict.metrics["hostile_requests_with_problems"] == 0
    assert 0 < verdict.metrics["p50_ms"] <= verdict.metrics["p99_ms"]
    assert "Servable" in verdict.html and "http" not in verdict.html.replace("http-equiv", "")


def test_a_saved_model_alone_is_served_by_tensorflow(judge, model):
    verdict = judge(model.saved)
    assert verdict.servable, verdict.reason
    assert verdict.metadata["engine"] == "tensorflow"
    assert verdict.metrics["offline_max_difference"] < 1e-5
    assert "saved_model_rows" not in verdict.metrics


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_bundles_of_the_other_tasks_are_servable(judge, make_model, task):
    verdict = judge(None, make_model(task).bundle)
    assert verdict.servable, verdict.reason
    assert verdict.check("offline")["measured"].count("decisions") == (task == "multiclass")


def test_a_model_that_says_nothing_about_itself_is_servable(judge, tmp_path):
    verdict = judge(save_plain(tmp_path / "plain", lambda delay: delay / 10))
    assert verdict.servable, verdict.reason
    assert verdict.metrics["offline_max_difference"] < 1e-6
    assert "decisions" not in verdict.check("offline")["measured"]


def test_a_published_version_is_what_is_validated(judge, model, tmp_path):
    verdict = judge(publish(tmp_path / "models", 7, model.bundle))
    assert verdict.servable, verdict.reason
    assert len(verdict.metadata["model_digest"]) == 64


# -------------------------------------------------------------------------------------------------- broken models


def save_plain(path, function):
    """A SavedModel of one input, dep_delay, that says nothing about itself."""

    def scores(dep_delay):
        return {"scores": function(dep_delay)}

    concrete = tf.function(scores).get_concrete_function(dep_delay=tf.TensorSpec([None], tf.float32, "dep_delay"))
    tf.saved_model.save(tf.Module(), str(path), {"serving_default": concrete})
    return path


def save_changed(model, path, change, keep_core=True):
    """The SavedModel with other scores by `serving_default`; `core`, if kept, is as it was."""
    loaded = tf.saved_model.load(str(model.saved))
    default = loaded.signatures["serving_default"]

    def changed(**inputs):
        return {"scores": change(default(**inputs)["scores"], inputs)}

    module = tf.Module()
    module.loaded = loaded
    concrete = tf.function(changed).get_concrete_function(**default.structured_input_signature[1])
    signatures = {"serving_default": concrete, **({"core": loaded.signatures["core"]} if keep_core else {})}
    tf.saved_model.save(module, str(path), signatures)
    if keep_core:
        shutil.copytree(model.saved / "assets.extra", path / "assets.extra", dirs_exist_ok=True)
    return path


def publish(destination, version, model):
    shutil.copytree(model, destination / str(version))
    (destination / "LATEST").write_text(f"{version}\n")
    return destination


def late_flights_inverted(scores, inputs):
    return tf.where(tf.reshape(inputs["dep_delay"], [-1, 1]) > 10, 1 - scores, scores)


@pytest.fixture(scope="module")
def skewed(model, tmp_path_factory):
    """`serving_default`, by which it was evaluated, disagrees with `core` for flights that leave late."""
    return save_changed(model, tmp_path_factory.mktemp("skewed") / "model", late_flights_inverted)


def test_a_core_that_disagrees_with_what_was_evaluated_is_not_what_is_served(judge, skewed):
    verdict = judge(skewed)
    assert verdict.servable, verdict.reason
    assert verdict.metrics["offline_max_difference"] < 1e-5


def test_training_serving_skew_is_found_and_the_worst_row_is_named_with_its_features(judge, model, tmp_path):
    def beside_many_others(scores, inputs):  # as by a normalization that looks at the batch
        many = tf.size(inputs["dep_delay"]) > SMALL["batch_rows"]
        return tf.where(many, late_flights_inverted(scores, inputs), scores)

    verdict = judge(save_changed(model, tmp_path / "model", beside_many_others))
    assert not verdict.servable
    assert verdict.reason.startswith("not servable: served scores are not those offline: largest difference 0.")
    assert '"dep_delay": ' in verdict.reason and " of eval {" in verdict.reason
    assert verdict.check("offline")["outcome"] == "failed"
    assert verdict.metrics["offline_changed_fraction"] > 0.05
    changes = verdict.content["changed_decisions"]["offline"]
    assert sum(change["rows"] for change in changes) == round(200 * verdict.metrics["offline_changed_fraction"])


def test_a_bundle_that_was_made_of_another_model_is_found(judge, model, skewed):
    verdict = judge(skewed, model.bundle)
    assert not verdict.servable
    assert "served scores are not those by the SavedModel" in verdict.reason
    assert verdict.check("offline")["outcome"] == "passed"
    assert verdict.check("SavedModel")["outcome"] == "failed"


@pytest.fixture(scope="module")
def flights_with_gaps(flights, write_examples):
    delays = flights["dep_delay"].combine_chunks().to_pylist()[:40]
    delays = [None if row == 23 else delay or 0 for row, delay in enumerate(delays)]
    table = flights.slice(0, 40)
    return write_examples(eval=table.set_column(table.column_names.index("dep_delay"), "dep_delay", [delays]))


def test_a_model_that_fails_on_missing_values_is_not_servable_and_the_row_is_named(judge, tmp_path, flights_with_gaps):
    def no_gaps(delay):
        with tf.control_dependencies([tf.debugging.assert_all_finite(delay, "there are gaps")]):
            return tf.sigmoid(delay)

    verdict = judge(save_plain(tmp_path / "gaps", no_gaps), data=flights_with_gaps, rows=40)
    assert not verdict.servable
    assert 'row 23 of eval {"dep_delay": null} got status 4' in verdict.reason
    assert verdict.check("p99")["outcome"] == "skipped"


def test_a_damaged_bundle_is_not_servable_and_the_file_is_named(judge, model, tmp_path):
    damaged = shutil.copytree(model.bundle, tmp_path / "damaged")
    content = bytearray((damaged / "model.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "model.tflite").write_bytes(content)
    verdict = judge(None, damaged)
    assert not verdict.servable
    assert "model.tflite is damaged" in verdict.reason
    assert [check["outcome"] for check in verdict.content["checks"]] == ["failed"] + ["skipped"] * 7


def test_a_bundle_without_its_manifest_is_not_servable(judge, model, tmp_path):
    damaged = shutil.copytree(model.bundle, tmp_path / "damaged")
    (damaged / MANIFEST).unlink()
    verdict = judge(None, damaged)
    assert not verdict.servable
    assert "manifest.json" in verdict.reason


def test_a_model_that_answers_too_late_is_not_servable(judge, tmp_path):
    def slow(delay):  # a product of some 7,000,000,000 operations, for any number of rows
        matrix = tf.random.stateless_uniform([1200, 1200], seed=[1, 2]) * (1 + 0 * tf.reduce_sum(delay))
        product = tf.matmul(tf.matmul(matrix, matrix), matrix)
        return tf.sigmoid(delay) + 0 * tf.reduce_sum(product)

    verdict = judge(save_plain(tmp_path / "slow", slow), requests=3, concurrency=1, rows=3, p99_ms=5.0)
    assert not verdict.servable
    assert "the p99 is " in verdict.reason and "at most 5 ms is allowed at concurrency 1" in verdict.reason


@pytest.mark.parametrize(
    ("limit", "reason"),
    [({"start_seconds": 1e-6}, "the server was not ready after 1e-06 s"),
     ({"p50_ms": 1e-6}, "the p50 is "),
     ({"p99_ms": 1e-6}, "the p99 is "),
     ({"memory_mb": 1e-6}, "the memory is ")],
)  # fmt: skip
def test_each_limit_rejects(judge, model, limit, reason):
    verdict = judge(None, model.bundle, **limit)
    assert not verdict.servable
    assert verdict.reason.startswith(f"not servable: {reason}")


# -------------------------------------------------------------------------------------------------- running model


@pytest.fixture(scope="module")
def inverted(model, tmp_path_factory):
    """A model that decides otherwise for flights that leave late, and says nothing about itself."""
    return save_changed(model, tmp_path_factory.mktemp("inverted") / "model", late_flights_inverted, keep_core=False)


def test_changed_decisions_are_reported_each_way_and_rejected_only_beyond_a_limit(judge, model, inverted, tmp_path):
    destination = str(publish(tmp_path / "models", 3, inverted))
    verdict = judge(None, model.bundle, destination=destination)
    assert verdict.servable, verdict.reason
    assert "of them otherwise than the running version " in verdict.reason
    share = verdict.metrics["running_changed_fraction"]
    assert share > 0.05
    changes = verdict.content["changed_decisions"]["running"]
    assert {(change["from"], change["to"]) for change in changes} <= {("0", "1"), ("1", "0")}
    assert sum(change["rows"] for change in changes) == round(200 * share)
    assert verdict.check("running model")["outcome"] == "reported"

    limited = judge(None, model.bundle, running=inverted, running_changed_fraction=share / 2, running_shift=1e-6)
    assert not limited.servable
    assert "of the decisions changed, at most" in limited.reason
    assert "shift of the scores, at most" in limited.reason


def test_the_same_model_changes_no_decision(judge, model):
    verdict = judge(None, model.bundle, running=model.bundle, running_changed_fraction=1e-9, running_shift=1e-9)
    assert verdict.servable, verdict.reason
    assert verdict.metrics["running_changed_fraction"] == verdict.metrics["running_shift"] == 0
    assert verdict.check("running model")["outcome"] == "passed"


def test_nothing_is_compared_before_anything_is_published(judge, model, tmp_path):
    verdict = judge(None, model.bundle, destination=str(tmp_path / "nothing-yet"))
    assert verdict.servable, verdict.reason
    assert verdict.metadata["running_version"] == ""


def test_a_running_model_that_cannot_be_served_is_no_fault_of_the_candidate(judge, model, tmp_path):
    broken = shutil.copytree(model.bundle, tmp_path / "broken")
    (broken / "labels.json").write_text("{}")
    verdict = judge(None, model.bundle, running=broken, running_changed_fraction=0.1)
    assert verdict.servable, verdict.reason
    assert "labels.json is damaged" in verdict.check("running model")["measured"]


# ------------------------------------------------------------------------------------------------------- the step


def test_a_strict_step_fails_after_it_has_written_its_report(judge, model, tmp_path):
    with pytest.raises(StepError, match=r"not servable: the p99 is .*; the report is at .*report.html"):
        judge(None, model.bundle, p99_ms=1e-6, fail_if_not_servable=True)
    assert "Not servable" in next(tmp_path.rglob("report.html")).read_text()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"rows": 0}, "sample_rows is 0; it must be at least 1"),
     ({"concurrency": 0}, "concurrency is 0"),
     ({"p99_ms": -1.0}, "max_p99_ms is -1.0; it must be a number of at least 0"),
     ({"memory_mb": float("nan")}, "max_memory_mb is nan"),
     ({"start_seconds": 0.0}, "max_start_seconds is 0; the step has to give up"),
     ({"engine": "onnx"}, "engine is 'onnx'"),
     ({"engine": "tensorflow"}, "holds no SavedModel; give model, or take engine=litert"),
     ({"task": "ranking"}, "task is 'ranking'"),
     ({"split": "empty"}, "split 'empty' of .* has no rows"),
     ({"split": "test"}, "has no split 'test'"),
     ({"destination": "models", "running": Path("model")}, "both name the running model; give one of them"),
     ({"bundle": None}, "there is nothing to serve; give model, bundle or both")],
)  # fmt: skip
def test_inputs_that_cannot_be_meant_are_refused_in_one_line(judge, model, parameters, message):
    with pytest.raises(StepError, match=message) as caught:
        judge(**{"bundle": model.bundle, **parameters})
    assert "\n" not in str(caught.value)


def test_examples_without_a_feature_of_the_model_are_refused(judge, model, flights, write_examples):
    with pytest.raises(StepError, match="wants the column 'distance', which the examples lack"):
        judge(None, model.bundle, data=write_examples(eval=flights.drop_columns(["distance"])))


def test_the_sample_is_spread_over_the_split_and_the_same_every_time(judge, model):
    first, second = (judge(None, model.bundle, rows=50) for _ in range(2))
    assert first.metrics["offline_max_difference"] == second.metrics["offline_max_difference"]
    assert np.isfinite(first.metrics["offline_max_difference"])
