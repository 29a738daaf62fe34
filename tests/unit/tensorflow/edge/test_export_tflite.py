"""The whole step on real conversions."""

import dataclasses
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kfp_hybrid.components.deployment.export_tflite.conversion import SourceModel
from kfp_hybrid.components.deployment.export_tflite.quantization import QUANTIZATIONS, convert, requantize
from kfp_hybrid.components.deployment.export_tflite.report import write_report
from kfp_hybrid.components.deployment.export_tflite.request import check_request
from kfp_hybrid.components.deployment.export_tflite.variants import Variant
from kfp_hybrid.data.examples import Examples, ExamplesWriter
from kfp_hybrid.edge.bundle import Bundle
from kfp_hybrid.edge.model import EdgeModel
from kfp_hybrid.step import StepError

VARIANTS = list(QUANTIZATIONS)


def test_a_healthy_model_is_accepted_in_every_variant(exported):
    assert exported.accepted, exported.reason
    numbers = exported.metrics.metadata
    assert [numbers[f"{name}_accepted"] for name in VARIANTS] == [1] * 6
    assert numbers["float32_mean_difference"] < 1e-6 and numbers["float32_flip_fraction"] == 0
    assert numbers["float16_mean_difference"] < numbers["int8_mean_difference"] < 0.03
    assert numbers["aeq_weight_only_mean_difference"] < numbers["aeq_int8_mean_difference"] < 0.03
    assert max(numbers[f"{name}_size_bytes"] for name in VARIANTS[1:]) < numbers["float32_size_bytes"]
    assert numbers["float32_metric"] == pytest.approx(numbers["float32_reference_metric"], abs=1e-6)
    for name in VARIANTS:
        assert numbers[f"{name}_rows"] == 1500
        for threads in ("1_thread", "2_threads"):
            assert 0 < numbers[f"{name}_p50_us_{threads}"] <= numbers[f"{name}_p99_us_{threads}"]
    assert all(isinstance(value, str) or math.isfinite(value) for value in numbers.values())


def test_the_bundle_holds_the_selected_variant_and_what_was_measured(exported, case):
    bundle, metadata, numbers = Bundle.open(exported.bundle.path), exported.bundle.metadata, exported.metrics.metadata
    assert bundle.quantization == metadata["quantization"] == numbers["selected"]
    assert (bundle.path / "model.tflite").stat().st_size == metadata["size_bytes"]
    assert bundle.sha256 == metadata["sha256"]
    assert bundle.manifest["agreement"]["mean_difference"] == metadata["mean_difference"]
    assert bundle.manifest["agreement"]["split"] == "eval"
    assert bundle.manifest["latency"]["p50_us_1_thread"] == metadata["p50_us_1_thread"]
    assert bundle.json("labels.json") == {"task": "binary", "label": "late", "classes": ["no", "yes"]}
    constants = case.model / "assets.extra" / "preprocessing.json"
    assert (bundle.path / "preprocessing.json").read_bytes() == constants.read_bytes()
    assert metadata["accepted"] is True and metadata["reason"] == exported.reason
    assert {type(value) for value in metadata.values()} <= {int, float, str, bool}


def test_the_same_export_agrees_the_same_way_twice(exported, case):
    again = case.export().metrics.metadata
    for name, value in exported.metrics.metadata.items():
        if "_us_" not in name and name != "selected":
            assert again[name] == value, name


def test_the_report_stands_alone_and_shows_every_variant(exported):
    page = exported.report.read_text()
    for text in [*VARIANTS, "Accepted", "Size against agreement", "Latency of one row", "Limits", "AUC"]:
        assert text in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert page.count("<svg") == 3 and page.count('class="area"') == 6
    assert "nan" not in re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.S).lower()


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_are_exported_too(make_case, task):
    case = make_case(task)
    limits = {"max_metric_drop": {"int8": 0.05}}  # an untrained regression loses more than a trained one
    exported = case.export(quantizations=["float32", "float16", "int8"], select="most-accurate", **limits)
    assert exported.accepted and exported.metrics.metadata["selected"] == "float32", exported.reason
    assert exported.metrics.metadata["int8_accepted"], exported.reason
    assert ("float32_flip_fraction" in exported.metrics.metadata) == (task == "multiclass")
    assert {"multiclass": "accuracy", "regression": "mean absolute error"}[task] in exported.reason
    rows = case.rows(100)
    np.testing.assert_allclose(EdgeModel.open(exported.bundle.path).predict(rows), case.scores(rows), atol=1e-5)
    assert "Accepted" in exported.report.read_text()


def test_a_model_of_somebody_else_with_numeric_columns_is_exported(make_plain_case):
    case = make_plain_case(lambda a, b: (a * 2 - b[:, None][:, 0])[:, None], {"a": "float32", "b": "float32"})
    exported = case.export(quantizations=["float32", "int8"], select="float32", label="y", task="regression")
    assert exported.accepted, exported.reason
    model = EdgeModel.open(exported.bundle.path)
    assert model.bundle.file("preprocessing.json") is None
    np.testing.assert_allclose(model.predict({"a": [1, 2.5], "b": [3, 0]}), [[-1], [5]], atol=1e-6)
    assert model.self_test() == 0


def test_a_model_that_takes_text_and_has_no_core_is_refused(make_plain_case):
    import tensorflow as tf

    case = make_plain_case(lambda a: tf.strings.to_number(a)[:, None], {"a": "string"})
    with pytest.raises(StepError, match=r"input 'a' is of type string, .* no assets\.extra/preprocessing\.json"):
        SourceModel(case.model)


def test_the_ops_that_litert_lacks_are_named(make_plain_case):
    import tensorflow as tf

    case = make_plain_case(lambda a: tf.math.digamma(tf.math.igamma(1.0, a) + 1)[:, None], {"a": "float32"})
    with pytest.raises(
        StepError, match=r"ops that plain LiteRT does not have: tf\.Digamma, tf\.Igamma; express"
    ) as error:
        case.export(label="y", task="regression")
    assert "\n" not in str(error.value)


def test_a_variant_that_brings_the_converter_down_is_rejected_and_the_others_go_on(make_case):
    import tensorflow as tf

    # The logarithm is infinite for half of the rows, which the model masks. TensorFlow's calibration does not survive
    # it; ai-edge-quantizer does.
    def masked_logarithm(numeric):
        x = tf.nn.relu(numeric[:, :1])
        return tf.where(x > 0, tf.math.log(x) * 0.5, 0.0)

    case = make_case("binary", core_layer=masked_logarithm)
    exported = case.export(quantizations=["int8", "aeq_int8"])
    assert exported.accepted and exported.metrics.metadata["selected"] == "aeq_int8", exported.reason
    assert re.search(r"rejected: int8 \(the converter crashed \(SIG\w+\)", exported.reason), exported.reason
    assert "Why variants were rejected" in exported.report.read_text()


def test_a_policy_falls_back_on_float32_and_a_named_variant_does_not(case):
    limits = {"max_mean_difference": {"int8": 1e-9, "aeq_int8": 1e-9}}
    exported = case.export(quantizations=["int8", "aeq_int8"], **limits)
    assert exported.accepted and exported.bundle.metadata["quantization"] == "float32", exported.reason
    assert exported.reason.startswith("accepted: float32, to fall back on, ")
    assert "rejected: int8 (mean difference 0.0" in exported.reason
    assert "to fall back on" in exported.report.read_text()


def test_what_is_too_large_is_not_fallen_back_on(case):
    exported = case.export(quantizations=["int8"], max_size_bytes=100)
    assert not exported.accepted
    assert "float32 (size in bytes" in exported.reason and "int8 (size in bytes" in exported.reason


def test_int8_calibrated_on_rows_of_the_split_is_accepted(bench):
    assert bench.measure(convert(bench.frozen, "int8", bench.calibration)).accepted


@pytest.mark.parametrize("variant", ["int8", "aeq_int8"])
def test_any_number_of_rows_calibrates(bench, variant):
    some = {name: values[:317] for name, values in bench.calibration.items()}
    made = convert(bench.frozen, variant, some) if variant == "int8" else requantize(bench.float32, variant, some)
    assert bench.measure(made, variant).accepted


@pytest.mark.parametrize("calibration", ["zeros", "one row"])
def test_int8_calibrated_on_unrepresentative_rows_is_rejected(bench, calibration):
    narrow = {
        "zeros": {name: np.zeros_like(values) for name, values in bench.calibration.items()},
        "one row": {name: values[:1] for name, values in bench.calibration.items()},
    }[calibration]
    variant = bench.measure(convert(bench.frozen, "int8", narrow))
    assert not variant.accepted
    assert any(problem.startswith("mean difference") for problem in variant.problems), variant.problems


def change_weights(model: bytes, change) -> bytes:
    """The model with its largest weight matrix changed; its structure stays intact."""
    from tensorflow.lite.tools import flatbuffer_utils

    parsed = flatbuffer_utils.convert_bytearray_to_object(model)
    buffer = max(parsed.buffers, key=lambda b: 0 if b.data is None else len(b.data))
    weights = np.frombuffer(bytes(buffer.data), np.float32).copy()
    buffer.data = np.frombuffer(change(weights).astype(np.float32).tobytes(), np.uint8)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(parsed))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda w: np.roll(w, 1), "mean difference"),
        (lambda w: -w, "mean difference"),
        (np.zeros_like, "mean difference"),
        (lambda w: w * np.nan, "its scores are not finite for 1500 of 1500 rows"),
    ],
)
def test_damaged_weights_are_noticed_though_the_model_runs(bench, change, problem):
    assert bench.measure(change_weights(bench.float32, lambda w: w)).accepted
    variant = bench.measure(change_weights(bench.float32, change))
    assert not variant.accepted
    assert variant.problems[0].startswith(problem), variant.problems


@pytest.mark.parametrize("length", [0, 7, 1000])
def test_a_model_that_does_not_run_is_rejected(bench, length):
    variant = bench.measure(bench.float32[:length])
    assert not variant.accepted and variant.problems[0].startswith("it does not run")


def test_a_variant_that_is_wanted_and_rejected_leaves_no_bundle(case):
    limits = {"max_mean_difference": {"int8": 1e-9}}
    exported = case.export(quantizations=["float32", "int8"], select="int8", **limits)
    assert not exported.accepted
    assert exported.reason.startswith("rejected: int8 does not keep its limits: int8 (mean difference 0.0")
    with pytest.raises(StepError, match="the export was rejected: int8 does not keep its limits"):
        EdgeModel.open(exported.bundle.path)
    assert [file.name for file in Path(exported.bundle.path).iterdir()] == ["rejected.json"]
    page = exported.report.read_text()
    assert "Rejected" in page and "Why variants were rejected" in page
    assert exported.bundle.metadata["accepted"] is False and exported.metrics.metadata["accepted"] == 0


def test_a_rejection_fails_the_step_if_it_shall_and_leaves_the_report(case):
    with pytest.raises(
        StepError, match=r"rejected: no variant keeps its limits.*; the report is at .*report\.html"
    ) as error:
        case.export(fail_if_rejected=True, quantizations=["float32"], max_size_bytes=100)
    assert "size in bytes" in str(error.value)
    assert "Rejected" in Path(str(error.value).rpartition(" ")[2]).read_text()


def test_examples_without_labels_are_compared_without_a_metric(case, make_case):
    examples = Examples.open(case.examples)
    unlabelled = case.folder / "unlabelled"
    columns = {name: type_ for name, type_ in examples.columns.items() if name != "late"}
    with ExamplesWriter(unlabelled, columns, splits=["eval"]) as writer:
        for batch in examples.batches("eval", list(columns)):
            writer.write("eval", batch)
    exported = dataclasses.replace(case, examples=unlabelled).export(quantizations=["float32"])
    assert exported.accepted and "AUC" not in exported.reason
    assert "float32_metric" not in exported.metrics.metadata
    assert "the rows have no label" in exported.report.read_text()


def test_a_model_with_a_lookup_table_in_core_is_refused(make_plain_case, tmp_path):
    import tensorflow as tf

    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1, 2], [0.5, 0.7]), 0.0)
    function = lambda a: table.lookup(a)[:, None]  # noqa: E731
    source = SourceModel(make_plain_case(function, {"a": "int32"}, table).model)
    with pytest.raises(StepError, match="uses a lookup table or another resource that LiteRT does not have"):
        source.freeze(tmp_path)


def test_a_saved_model_that_is_damaged_is_called_so(case, tmp_path):
    damaged = tmp_path / "model"
    shutil.copytree(case.model, damaged)
    (damaged / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(StepError, match="cannot be loaded"):
        SourceModel(damaged)


def test_a_stopped_step_stops_the_conversion_too(case, tmp_path):
    """SIGTERM while TensorFlow works, here one that never ends: no process and no half-written output is left."""
    (tmp_path / "endless").mkdir()
    (tmp_path / "endless/tensorflow.py").write_text("import time\ntime.sleep(600)\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'endless'}:{os.environ['PYTHONPATH']}"}
    script = (
        "import sys, os, logging; from pathlib import Path; from kfp_hybrid.step import step\n"
        "from kfp_hybrid.components.deployment.export_tflite.converter import run_conversion\n"
        "from kfp_hybrid.components.deployment.export_tflite.conversion import Job\n"
        "with step(): run_conversion(Job(sys.argv[1], sys.argv[2], 'eval', 100, 'train', 100, ('int8',), sys.argv[3]))"
    )
    command = [sys.executable, "-c", script, str(case.model), str(case.examples), str(tmp_path)]
    step = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert "starting TensorFlow" in step.stderr.readline()
    children = Path(f"/proc/{step.pid}/task/{step.pid}/children").read_text().split()
    assert len(children) == 1
    step.terminate()
    assert step.wait(120) == 143
    assert not Path(f"/proc/{children[0]}").exists()


def test_a_report_of_failures_only_is_a_report(case, parameters, tmp_path):
    request = check_request(case.model, case.examples, **parameters)
    failed = [Variant(name, failure=f"<{name}> does not run") for name in VARIANTS]
    write_report(tmp_path / "report.html", request, failed, None, "rejected: no variant keeps its limits")
    page = (tmp_path / "report.html").read_text()
    assert "&lt;int8&gt; does not run" in page and "Size against agreement" not in page


def test_a_core_that_wants_an_input_of_its_own_is_refused(case, make_plain_case):
    other = make_plain_case(lambda a: a[:, None], {"a": "float32"})
    import tensorflow as tf

    loaded, path = tf.saved_model.load(str(other.model)), other.folder / "own_input"
    serving = loaded.signatures["serving_default"]
    tf.saved_model.save(loaded, str(path), {"serving_default": serving, "core": serving})
    shutil.copytree(case.model / "assets.extra", path / "assets.extra")
    with pytest.raises(StepError, match="takes 'a', which the preprocessing does not make; it makes numeric, bucket"):
        SourceModel(path)


def test_a_core_that_ignores_groups_of_features_is_exported(make_case):
    case = make_case("binary", numeric_only=True)
    exported = case.export(quantizations=["int8", "float32"], select="float32")
    assert exported.accepted and exported.metrics.metadata["int8_accepted"], exported.reason
    rows = case.rows(20)
    np.testing.assert_allclose(EdgeModel.open(exported.bundle.path).predict(rows), case.scores(rows), atol=1e-6)
