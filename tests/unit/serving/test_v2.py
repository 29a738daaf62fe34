"""The Open Inference Protocol over REST, asked by Triton's client."""

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from kfp_hybrid.serving import tensors
from kfp_hybrid.serving.rows import InvalidRows

A = np.array([1, 2.5, np.nan], np.float32)
B = np.array([10, np.nan, 30], np.float64)
C = np.array(["x", "y", ""], object)
SUMS = [16.0, 13.0, 30.0]


@pytest.fixture
def client(shared):
    clients = []

    def of(bundle):
        clients.append(triton.InferenceServerClient(f"127.0.0.1:{shared(bundle).port}"))
        return clients[-1]

    yield of
    for each in clients:
        each.close()


def inputs(binary, a=A, b=B, c=C, column=False):
    found = []
    for name, datatype, values in (("a", "FP32", a), ("b", "FP64", b), ("c", "BYTES", c)):
        values = values[:, np.newaxis] if column else values
        found.append(triton.InferInput(name, list(values.shape), datatype))
        found[-1].set_data_from_numpy(values, binary_data=binary)
    return found


def test_health_and_metadata(client):
    server = client("late")
    assert server.is_server_live() and server.is_server_ready() and server.is_model_ready("model")
    assert server.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert server.get_model_metadata("model") == {
        "name": "model",
        "versions": server.get_model_metadata("model")["versions"],
        "platform": "litert_tflite",
        "inputs": [{"name": "a", "datatype": "FP32", "shape": [-1]}, {"name": "b", "datatype": "FP32", "shape": [-1]},
                   {"name": "c", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 1]},
                    {"name": "predicted", "datatype": "BYTES", "shape": [-1]}],
    }  # fmt: skip


@pytest.mark.parametrize("column", [False, True])
def test_tensors_as_bytes(client, column):
    result = client("sum").infer("model", inputs(True, column=column), request_id="7")
    assert result.as_numpy("scores")[:, 0].tolist() == SUMS
    assert result.get_response()["id"] == "7"


def test_tensors_as_json(client):
    a, b, c = np.array([1, 2.5], np.float32), np.array([10, 20.0]), np.array(["x", "y"], object)
    outputs = [triton.InferRequestedOutput("scores", binary_data=False)]
    result = client("sum").infer("model", inputs(False, a, b, c), outputs=outputs)
    assert result.as_numpy("scores")[:, 0].tolist() == [16.0, 33.0]


@pytest.mark.parametrize("binary", [False, True])
def test_the_class_is_an_output(client, binary):
    wanted = [triton.InferRequestedOutput("predicted", binary_data=binary)]
    result = client("late").infer("model", inputs(True), outputs=wanted)
    assert [value if isinstance(value, str) else value.decode() for value in result.as_numpy("predicted")] == [
        "no", "no", "yes",
    ]  # fmt: skip
    assert result.as_numpy("scores") is None


def test_many_rows_at_once(client):
    a = np.arange(20000, dtype=np.float32)
    result = client("sum").infer("model", inputs(True, a, np.zeros(20000), np.full(20000, "x", object)))
    assert (result.as_numpy("scores")[:, 0] == 4 * a + 2).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": A[:2]}, "feature 'b' has 3 values and feature 'a' has 2"),
        ({"a": np.zeros((3, 2), np.float32)}, "feature 'a' has the shape [3, 2]; the model takes [-1]"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(client, change, message):
    with pytest.raises(InferenceServerException) as raised:
        client("sum").infer("model", inputs(True, **change))
    assert message in str(raised.value)


def test_unknown_outputs_and_versions_are_refused(client):
    with pytest.raises(InferenceServerException, match="there is no output 'loss'"):
        client("sum").infer("model", inputs(True), outputs=[triton.InferRequestedOutput("loss")])
    with pytest.raises(InferenceServerException, match="version '9' is not served here"):
        client("sum").infer("model", inputs(True), model_version="9")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"shape": [1], "data": [1]}, "input 'a' has the datatype None"),
        ({"datatype": "FP32", "data": [1]}, "input 'a' must have a shape"),
        ({"datatype": "FP32", "shape": [-1], "data": [1]}, "input 'a' must have a shape"),
        ({"datatype": "FP32", "shape": [2], "data": [1]}, "input 'a' has 1 values; its shape [2] is of 2"),
        ({"datatype": "FP32", "shape": [1]}, "input 'a' must have data"),
        ({"datatype": "FP32", "shape": [1], "data": ["x"]}, "row 0: feature 'a' is the text 'x'"),
        ({"datatype": "FP32", "shape": [2], "data": [[1], 2]}, "no regular array"),
        ({"datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}, "0 bytes are left"),
        ({"datatype": "FP32", "shape": [1], "parameters": {"shared_memory_region": "x"}}, "no shared memory"),
        ({"datatype": "FP32", "shape": [1 << 40, 1 << 40], "data": [1]}, "input 'a' has 1 values"),
    ],
)
def test_a_malformed_tensor_is_refused(shared, tensor, message):
    others = [{"name": "b", "datatype": "FP32", "shape": [1], "data": [1]},
              {"name": "c", "datatype": "BYTES", "shape": [1], "data": ["x"]}]  # fmt: skip
    answer = shared("sum").post("/v2/models/model/infer", {"inputs": [{"name": "a", **tensor}, *others]})
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize("length", ["x", "5000", "-1"])
def test_a_wrong_length_of_the_json_is_refused(shared, length):
    answer = requests.post(
        f"{shared('sum').url}/v2/models/model/infer", data=b'{"inputs": []}',
        headers={"inference-header-content-length": length}, timeout=60,
    )  # fmt: skip
    assert answer.status_code == 400


@given(st.binary(max_size=40), st.integers(0, 4))
@settings(deadline=None)
def test_no_bytes_make_anything_but_texts_or_an_error(raw, count):
    try:
        values = tensors.from_bytes("c", "BYTES", [count], raw)
    except InvalidRows:
        return
    assert tensors.to_bytes(values.tolist(), "BYTES") == raw


@given(st.lists(st.text(max_size=5), max_size=6))
@settings(deadline=None)
def test_texts_come_back(texts):
    raw = tensors.to_bytes(texts, "BYTES")
    assert tensors.from_bytes("c", "BYTES", [len(texts)], raw).tolist() == texts
