"""The reference predictor: the same scores as the SavedModel, without TensorFlow."""

import json
import subprocess
import sys

import numpy as np
import pytest

from kfp_hybrid.edge.bundle import MODEL, Bundle, write_bundle
from kfp_hybrid.edge.litert import LiteRTModel
from kfp_hybrid.edge.model import EdgeModel, decisions, plain_inputs
from kfp_hybrid.step import StepError

PREDICT = """
import json, sys
from kfp_hybrid.edge.model import EdgeModel
model = EdgeModel.open(sys.argv[1])
rows = json.load(sys.stdin)
print(json.dumps({
    "scores": model.predict(rows).tolist(),
    "decisions": model.decide(rows),
    "self_test": model.self_test(),
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
}))
"""


@pytest.fixture(scope="module")
def float_bundle(case):
    """A bundle of the variant without quantization."""
    return case.export(quantizations=["float32"]).bundle.path


@pytest.fixture(scope="module")
def model(float_bundle):
    return EdgeModel.open(float_bundle)


def test_a_device_predicts_like_the_saved_model_without_tensorflow(case, float_bundle):
    rows = case.rows(300)
    command = [sys.executable, "-c", PREDICT, float_bundle]
    run = subprocess.run(command, input=json.dumps(rows), capture_output=True, text=True, check=True)
    device = json.loads(run.stdout)

    expected = case.scores(rows)
    np.testing.assert_allclose(device["scores"], expected, atol=1e-6)
    assert device["decisions"] == ["yes" if score >= 0.5 else "no" for score in expected[:, 0]]
    assert device["self_test"] == 0
    assert {"numpy", "ai_edge_litert"} <= set(device["modules"])
    assert not {"tensorflow", "keras", "pyarrow", "kfp"} & set(device["modules"])


@pytest.mark.parametrize("batch_size", [1, 7, 300, 4096])
def test_the_size_of_batches_does_not_matter(case, model, batch_size):
    rows = case.rows(300)
    inputs = case.preprocessing.transform(rows)
    scores = LiteRTModel(model.bundle.path / MODEL).predict(inputs, batch_size)
    np.testing.assert_allclose(scores, model.predict(rows), atol=1e-6)


def test_one_model_predicts_batches_of_changing_size(case, model):
    rows = case.rows(50)
    whole = model.predict(rows)
    for count in (1, 50, 3, 3, 20):
        np.testing.assert_allclose(model.predict({n: v[:count] for n, v in rows.items()}), whole[:count], atol=1e-6)


def test_no_rows_give_no_scores(case, model):
    assert model.predict({name: [] for name in case.rows(1)}).shape == (0, 1)


def test_columns_that_the_model_does_not_know_are_ignored(case, model):
    rows = case.rows(5)
    np.testing.assert_array_equal(model.predict({**rows, "extra": list("abcde")}), model.predict(rows))


def test_the_samples_lie_beside_the_scores_of_the_variant_and_of_the_saved_model(case, exported):
    bundle = Bundle.open(exported.bundle.path)
    samples = bundle.json("samples.json")
    np.testing.assert_array_equal(EdgeModel(bundle).predict(samples["rows"]), np.float32(samples["scores"]))
    np.testing.assert_allclose(case.scores(samples["rows"]), samples["reference_scores"], atol=1e-6)
    assert len(samples["scores"]) == 20


def test_a_self_test_notices_another_model_in_the_bundle(float_bundle, tmp_path):
    bundle = Bundle.open(float_bundle)
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest["files"]}
    samples = json.loads(files["samples.json"])
    samples["scores"][0] = [1 - samples["scores"][0][0]]
    other = write_bundle(tmp_path / "other", {**files, "samples.json": json.dumps(samples).encode()})
    assert EdgeModel(other).self_test() > 0.01


def test_a_damaged_model_is_not_opened(float_bundle, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in Bundle.open(float_bundle).path.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    content = bytearray((copy / MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / MODEL).write_bytes(content)
    with pytest.raises(StepError, match=r"model\.tflite is damaged"):
        EdgeModel.open(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop("temp"), "column 'temp' is missing"),
        (lambda rows: rows.pop("carrier"), "column 'carrier' is missing"),
        (lambda rows: rows.update(temp=[1.0]), "different numbers of rows: 1, 5"),
        (lambda rows: rows.update(temp=["warm"] * 5), "column 'temp' holds a value that is not a number"),
    ],
)
def test_wrong_rows_are_named(case, model, change, message):
    rows = case.rows(5)
    change(rows)
    with pytest.raises(StepError, match=message):
        model.predict(rows)


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(100), b"\x1c\x00\x00\x00TFL3" + bytes(100)])
def test_what_is_no_tflite_model_is_called_so(content):
    with pytest.raises(StepError, match="LiteRT cannot load the model"):
        LiteRTModel(content)


def test_decisions_are_made_at_one_half_or_by_the_highest_score():
    assert decisions(np.float32([[0.4999], [0.5], [0.51]])).tolist() == [0, 1, 1]
    assert decisions(np.float32([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3]])).tolist() == [1, 0]


def test_plain_columns_become_inputs_of_the_wanted_type_and_rank():
    inputs = plain_inputs(
        {"a": [1, None, 3], "b": [4, 5, 6], "other": ["x"] * 3},
        {"a": (np.dtype("float32"), 1), "b": (np.dtype("int64"), 2)},
    )
    np.testing.assert_array_equal(inputs["a"], np.float32([1, np.nan, 3]))
    np.testing.assert_array_equal(inputs["b"], [[4], [5], [6]])
    assert inputs["a"].dtype == np.float32 and inputs["b"].dtype == np.int64


@pytest.mark.parametrize(
    ("values", "message"),
    [([1, None], "missing values, but the model takes integers"), (["x", "y"], "not a number")],
)
def test_plain_columns_that_do_not_fit_are_named(values, message):
    with pytest.raises(StepError, match=message):
        plain_inputs({"a": values}, {"a": (np.dtype("int32"), 1)})
    with pytest.raises(StepError, match="column 'b' is missing"):
        plain_inputs({"a": values}, {"b": (np.dtype("int32"), 1)})
