"""Asks the server at a port of this machine by Triton's client; fails if an answer is wrong."""

import sys

import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient(f"127.0.0.1:{sys.argv[1]}")
assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready("sums")
assert client.is_model_ready("sums", "7")
assert not client.is_model_ready("sums", "8")
assert client.get_server_metadata().name == "kfp-hybrid"
metadata = client.get_model_metadata("sums")
assert [tensor.name for tensor in metadata.inputs] == ["x", "colour"]

x = triton.InferInput("x", [3, 1], "FP32")
x.set_data_from_numpy(np.array([[1], [np.nan], [3]], np.float32))
colour = triton.InferInput("colour", [3, 1], "BYTES")
colour.set_data_from_numpy(np.array([[b"red"], [b""], [b"blue"]], object))
answer = client.infer("sums", [x, colour], request_id="1", headers={"x-request-key": "user"})
assert answer.as_numpy("scores").tolist() == [[7003], [7000], [7004]], answer.as_numpy("scores")
assert answer.get_response().model_version == "7"
assert answer.get_response().id == "1"

try:
    client.infer("sums", [x])
except triton.InferenceServerException as error:
    assert "feature 'colour' is missing" in error.message()
else:
    raise AssertionError("a feature was missing")
