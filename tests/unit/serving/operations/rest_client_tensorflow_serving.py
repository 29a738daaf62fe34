"""Asks the server at a URL in the words of TensorFlow Serving's REST; its own messages have to take the answers."""

import base64
import json
import sys
import urllib.request

import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

URL = sys.argv[1]


def get(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"{URL}/v1/models/{path}", data) as answer:
        return json.load(answer)


def as_json(tensor):
    """Values as TensorFlow Serving's REST writes them: bytes as base64."""
    values = tf.make_ndarray(tensor).tolist()
    return [{"b64": base64.b64encode(v).decode()} if isinstance(v, bytes) else v for v in values]


# KServe's answer about a model is in the same object.
status = json_format.ParseDict(get("sums"), get_model_status_pb2.GetModelStatusResponse(), ignore_unknown_fields=True)
(version,) = status.model_version_status
assert version.version == 7
assert version.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE

described = get("sums/versions/7/metadata")
specification = json_format.ParseDict(described["model_spec"], model_pb2.ModelSpec())
assert (specification.name, specification.version.value) == ("sums", 7)
signatures = json_format.ParseDict(described["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap())
signature = signatures.signature_def["serving_default"]
assert {name: tensor.dtype for name, tensor in signature.inputs.items()} == {
    "x": tf.float32.as_datatype_enum,
    "colour": tf.string.as_datatype_enum,
}
assert [dim.size for dim in signature.inputs["x"].tensor_shape.dim] == [-1]
assert [dim.size for dim in signature.outputs["scores"].tensor_shape.dim] == [-1, 1]

request = predict_pb2.PredictRequest(model_spec=specification)
request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.5], tf.float32))
request.inputs["colour"].CopyFrom(tf.make_tensor_proto(["red", "gr\u00fcn"]))
inputs = {name: as_json(tensor) for name, tensor in request.inputs.items()}
path = f"{request.model_spec.name}/versions/{request.model_spec.version.value}:predict"
assert get(path, {"signature_name": "serving_default", "inputs": inputs}) == {"outputs": [7003, 7003.5]}
rows = [dict(zip(inputs, values)) for values in zip(*inputs.values())]
assert get(path, {"instances": rows}) == {"predictions": [7003, 7003.5]}
