"""Bad input is answered in one line, before TensorFlow is imported."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

from kfp_hybrid.components.deployment.export_tflite.request import DEFAULT_LIMITS, check_request
from kfp_hybrid.data.examples import Examples, ExamplesWriter
from kfp_hybrid.step import StepError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantizations": []}, "quantizations is empty; give at least one of float32, dynamic_range, float16, int8"),
        ({"quantizations": ["float32", "int4"]}, "'int4' is unknown; it must be one of float32"),
        ({"select": "best"}, "select is 'best'; it must be .*: smallest, fastest, most-accurate, float32"),
        ({"select": "int8", "quantizations": ["float32"]}, "select is 'int8'"),
        ({"sample_rows": 0}, "sample_rows is 0; it must be at least 1"),
        ({"calibration_rows": -5}, "calibration_rows is -5"),
        ({"split": "test"}, "split: the examples have no split 'test', only train, eval, empty"),
        ({"split": "empty"}, "split: split 'empty' of .* has no rows"),
        ({"calibration_split": "dev"}, "calibration_split: the examples have no split 'dev'"),
        ({"max_mean_difference": {"int4": 1}}, "max_mean_difference: 'int4' is unknown"),
        ({"max_flip_fraction": {"int8": "much"}}, "max_flip_fraction of int8 is 'much'; it must be a number"),
        ({"max_metric_drop": {"int8": -1}}, "max_metric_drop of int8 is -1; it must be a number of at least 0"),
        ({"min_correlation": float("nan")}, "min_correlation is nan"),
        ({"min_agreement": 1.01}, "min_agreement is 1.01; it must be at most 1"),
        ({"max_latency_ms": -0.1}, "max_latency_ms is -0.1"),
        ({"max_size_bytes": True}, "max_size_bytes is True"),
        ({"task": "ranking"}, "task is 'ranking'"),
    ],
)
def test_bad_parameters_are_named(case, changes, message):
    with pytest.raises(StepError, match=message) as error:
        case.export(**changes)
    assert "\n" not in str(error.value)
    assert not any("report" in file.name for file in case.folder.glob("tmp*/*") if file.stat().st_size == 0)


def test_only_quantized_activations_need_the_calibration_split(case, parameters):
    changes = {"quantizations": ["float16", "aeq_weight_only"], "calibration_split": "no"}
    request = check_request(case.model, case.examples, **parameters | changes)
    assert request.quantizations == ("float16", "aeq_weight_only")
    for quantization in ("int8", "aeq_int8"):
        with pytest.raises(StepError, match="calibration_split: the examples have no split 'no'"):
            check_request(case.model, case.examples, **parameters | changes | {"quantizations": [quantization]})


def test_float32_is_made_in_any_case(case, parameters):
    request = check_request(case.model, case.examples, **parameters | {"quantizations": ["int8", "aeq_int8"]})
    assert request.made == ("float32", "int8", "aeq_int8")


def test_an_agreement_limits_every_variant_without_a_limit_of_its_own(case, parameters):
    limits = {"min_agreement": 0.99, "max_flip_fraction": {"int8": 0.2}}
    request = check_request(case.model, case.examples, **parameters | limits)
    assert request.limits["int8"].flip_fraction == 0.2
    assert {limit.flip_fraction for name, limit in request.limits.items() if name != "int8"} == {0.01}


def test_a_regression_has_no_decisions_to_agree_on(make_case):
    with pytest.raises(StepError, match="min_agreement is about decisions, but the model is a regression"):
        make_case("regression").export(min_agreement=0.99)


def test_given_limits_change_their_variant_only(case, parameters):
    limits = {"max_mean_difference": {"int8": 0.5}, "max_latency_ms": 2.0, "max_size_bytes": 1000.0}
    request = check_request(case.model, case.examples, **parameters | limits)
    assert request.limits["int8"].mean_difference == 0.5
    assert request.limits["int8"].flip_fraction == DEFAULT_LIMITS["int8"].flip_fraction
    assert request.limits["float16"].mean_difference == DEFAULT_LIMITS["float16"].mean_difference
    assert {limit.latency_ms for limit in request.limits.values()} == {2.0}
    assert {limit.size_bytes for limit in request.limits.values()} == {1000}


def test_a_variant_named_twice_is_made_once(case, parameters):
    twice = {"quantizations": ["int8", "float32", "int8"]}
    request = check_request(case.model, case.examples, **parameters | twice)
    assert request.quantizations == ("int8", "float32")


def test_a_directory_that_is_no_saved_model_is_called_so(case, tmp_path):
    with pytest.raises(StepError, match=r"is not a SavedModel: it has no saved_model\.pb"):
        dataclasses.replace(case, model=tmp_path).export()


def test_examples_that_are_no_examples_are_called_so(case, tmp_path):
    with pytest.raises(StepError, match="examples"):
        dataclasses.replace(case, examples=tmp_path).export()


def test_a_column_that_the_examples_lack_is_named(case, tmp_path):
    examples = Examples.open(case.examples)
    columns = {name: type_ for name, type_ in examples.columns.items() if name not in ("temp", "carrier")}
    with ExamplesWriter(tmp_path / "examples", columns, splits=["train", "eval"]) as writer:
        for split in ("train", "eval"):
            for batch in examples.batches(split, list(columns)):
                writer.write(split, batch)
    with pytest.raises(StepError, match=r"lack the column 'temp', which the model needs \(2 of 5 are missing\)"):
        dataclasses.replace(case, examples=tmp_path / "examples").export()


def test_damaged_preprocessing_constants_are_named(case, tmp_path):
    shutil.copytree(case.model, tmp_path / "model")
    constants = tmp_path / "model" / "assets.extra" / "preprocessing.json"
    constants.write_text(constants.read_text().replace('"binary"', '"ternary"'))
    with pytest.raises(StepError, match=r"preprocessing\.json: task is 'ternary'"):
        dataclasses.replace(case, model=tmp_path / "model").export()


def test_a_model_of_somebody_else_needs_a_label_and_a_task(case, tmp_path):
    shutil.copytree(case.model, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "assets.extra")
    with pytest.raises(StepError, match=r"give label .* and task"):
        dataclasses.replace(case, model=tmp_path / "model").export()


def test_a_request_is_checked_without_tensorflow(case, parameters):
    script = (
        "import sys, json; from pathlib import Path\n"
        "from kfp_hybrid.components.deployment.export_tflite.export import export_tflite\n"
        "from kfp_hybrid.components.deployment.export_tflite.request import check_request\n"
        "check_request(Path(sys.argv[1]), Path(sys.argv[2]), **json.loads(sys.argv[3]))\n"
        "print('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(case.model), str(case.examples), json.dumps(parameters)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"
