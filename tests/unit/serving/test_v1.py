"""TensorFlow Serving's REST protocol, asked of a real server."""

import json

import pytest
import requests

ROW = {"a": 1, "b": 10, "c": "x"}  # sum: 16


def test_rows_are_answered_with_a_number_each(shared):
    assert shared("sum").predict([ROW, {"a": 2.5, "b": None, "c": "y"}]) == [16.0, 13.0]


def test_columns_are_answered_with_outputs(shared):
    answer = shared("sum").post("/v1/models/model:predict", {"inputs": {"a": [1, 2], "b": [10, 20], "c": ["x", None]}})
    assert answer.json() == {"outputs": [16.0, 28.0]}


def test_values_may_stand_in_brackets_as_models_of_n_by_1_inputs_are_asked(shared):
    row = {"a": [1], "b": [10], "c": ["x"]}
    assert shared("sum").predict([row, {**ROW, "b": [None]}, ROW]) == [16.0, 6.0, 16.0]
    columns = {"a": [[1], [2]], "b": [[10], [20]], "c": [["x"], [None]]}
    answer = shared("sum").post("/v1/models/model:predict", {"inputs": columns})
    assert answer.json() == {"outputs": [16.0, 28.0]}


def test_texts_may_come_as_base64_of_their_utf_8(shared):
    assert shared("sum").predict([{**ROW, "c": {"b64": "eA=="}}, {**ROW, "c": [{"b64": "eQ=="}]}]) == [16.0, 17.0]


def test_a_binary_model_is_answered_with_the_probability_of_the_positive_class(shared):
    assert shared("late").predict([ROW]) == [pytest.approx(0.40131238, abs=1e-6)]


def test_a_model_with_several_outputs_is_answered_with_a_list_for_each_row(shared):
    assert shared("plain").predict([{"a": 1.5, "n": 3}, {"a": 2.5, "n": 4}]) == [[1.5, 3.0, 1.0], [2.5, 4.0, 1.0]]


def test_a_version_can_be_named(shared):
    server = shared("sum")
    version = (
        server.post("/v1/models/model:predict", {"instances": [ROW]})
        and requests.get(f"{server.url}/v1/models/model", timeout=60).json()["model_version_status"][0]["version"]
    )
    assert server.post(f"/v1/models/model/versions/{version}:predict", {"instances": [ROW]}).json() == {
        "predictions": [16.0]
    }
    assert server.post("/v1/models/model/versions/99:predict", {"instances": [ROW]}).status_code == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b'{"instances": [{"a": NaN, "b": 1, "c": "x"}]}', "the body is not JSON"),
        (b"\xff\xfe", "the body is not JSON"),
        (b"[" * 100000, "the body is not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", 'give either "instances" (rows) or "inputs" (columns)'),
        (b'{"instances": [], "inputs": {}}', 'give either "instances"'),
        (b'{"instances": []}', "there are no rows"),
        (b'{"instances": {}}', "there are no rows"),
        (b'{"instances": [1]}', "row 0 is the number 1; give an object with a, b, c"),
        (b'{"instances": [null]}', "row 0 is null"),
        (b'{"inputs": [1]}', '"inputs" must be an object'),
        (b'{"inputs": {"a": [], "b": [], "c": []}}', "there are no rows"),
        (b'{"instances": [{"a": 1, "b": 2, "c": "x"}], "signature_name": "other"}', "serving_default"),
    ],
)
def test_a_body_of_another_form_is_refused(shared, body, message):
    answer = requests.post(f"{shared('sum').url}/v1/models/model:predict", data=body, timeout=60)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": "1"}, "row 1: feature 'a' is the text '1'; it must be a number"),
        ({"a": True}, "row 1: feature 'a' is true; it must be a number"),
        ({"a": [1, 2]}, "row 1: feature 'a' is a list; it must be a number"),
        ({"a": [None, 1]}, "row 1: feature 'a' is a list; it must be a number"),
        ({"a": ["1"]}, "row 1: feature 'a' is the text '1'; it must be a number"),
        ({"a": {"b64": "MQ=="}}, "row 1: feature 'a' is an object; it must be a number"),
        ({"c": {"b64": "no base64"}}, "row 1: feature 'c' is an object; it must be a text"),
        ({"c": {"b64": "/w=="}}, "row 1: feature 'c' is an object; it must be a text"),
        ({"c": 5}, "row 1: feature 'c' is the number 5; it must be a text"),
        ({"c": {}}, "row 1: feature 'c' is an object; it must be a text"),
        ({"d": 1}, "row 1: feature 'd' is not one of the model; it wants a, b, c"),
    ],
)
def test_a_wrong_value_is_refused_with_its_feature_and_row(shared, change, message):
    answer = shared("sum").post("/v1/models/model:predict", {"instances": [ROW, {**ROW, **change}]})
    assert (answer.status_code, answer.json()["error"]) == (400, message)


def test_a_feature_that_is_left_out_is_refused(shared):
    answer = shared("sum").post("/v1/models/model:predict", {"instances": [ROW, {"a": 1, "b": 2}]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("row 1: feature 'c' is missing")
    answer = shared("sum").post("/v1/models/model:predict", {"inputs": {"a": [1], "b": [2]}})
    assert answer.json()["error"] == "feature 'c' is missing; the model wants a, b, c"


def test_columns_of_different_lengths_are_refused(shared):
    answer = shared("sum").post("/v1/models/model:predict", {"inputs": {"a": [1], "b": [2], "c": ["x", "y"]}})
    assert (answer.status_code, answer.json()["error"][:33]) == (400, "feature 'c' has 2 values and feat")


def test_whole_numbers_are_wanted_where_the_model_takes_whole_numbers(shared):
    assert shared("plain").predict([{"a": 1.5, "n": 2.0}]) == [[1.5, 2.0, 1.0]]
    answer = shared("plain").post("/v1/models/model:predict", {"instances": [{"a": 1.5, "n": 2.5}]})
    assert answer.json()["error"] == "row 0: feature 'n' is the number 2.5; it must be a whole number"
    answer = shared("plain").post("/v1/models/model:predict", {"instances": [{"a": 1.5, "n": None}]})
    assert "takes no missing value" in answer.json()["error"]


def test_an_unknown_feature_is_dropped_if_the_server_is_told_so(start, bundles):
    assert start(bundles / "sum", "--ignore-unknown").predict([{**ROW, "d": 1}]) == [16.0]


def test_numbers_of_any_size_are_answered(shared):
    instances = [{**ROW, "a": value} for value in (1e38, -1e308, 10**30, 0.1 + 0.2)]
    text = json.dumps({"instances": instances})
    answer = requests.post(f"{shared('sum').url}/v1/models/model:predict", data=text, timeout=60)
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == 4


def test_the_features_are_described(shared):
    document = requests.get(f"{shared('sum').url}/v1/models/model/metadata", timeout=60).json()
    inputs = document["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert {name: value["dtype"] for name, value in inputs.items()} == {
        "a": "DT_FLOAT", "b": "DT_FLOAT", "c": "DT_STRING",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/models/other", 404),
        ("POST", "/v1/models/other:predict", 404),
        ("POST", "/v1/models/model:classify", 404),
        ("POST", "/v1/models/model/versions:predict", 404),
        ("GET", "/v1/models/model:predict", 405),
        ("POST", "/v2/health/live", 405),
        ("DELETE", "/v2/models/model", 405),
        ("HEAD", "/v2/health/live", 200),
        ("GET", "/v1/models/model?x=1", 200),
        ("GET", "/", 200),
        ("GET", "/v1/models/model%3Apredict", 405),
        ("GET", "/v1/models/mod%65l", 200),
    ],
)
def test_paths(shared, method, path, status):
    answer = requests.request(method, shared("sum").url + path, timeout=60)
    assert answer.status_code == status
    if status == 405:
        assert answer.headers["allow"] in ("GET", "POST")


def test_a_compressed_body_is_refused(shared):
    answer = requests.post(
        f"{shared('sum').url}/v1/models/model:predict", data=b"x", headers={"content-encoding": "gzip"}, timeout=60
    )
    assert answer.status_code == 415
