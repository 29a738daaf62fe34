"""TensorFlow Serving's REST protocol, version 1: bytes to rows and scores to bytes, without HTTP.

Vertex AI's custom containers speak the same: `instances` in, `predictions` out.
"""

from typing import Any, NamedTuple

import numpy as np
import orjson

from kfp_hybrid.serving.rows import InvalidRows, Reader, Rows
from kfp_hybrid.serving.servable import Array, Servable

SIGNATURE = "serving_default"


class Request(NamedTuple):
    """A request for predictions.

    Attributes:
        rows: the rows.
        columnar: whether they came as columns ("inputs"), which are answered with "outputs".
    """

    rows: Rows
    columnar: bool


def parse(body: bytes, reader: Reader) -> Request:
    """Read the body of a request: {"instances": [rows]} or {"inputs": {feature: [values]}}.

    Raises:
        InvalidRows: it is no JSON, it is of another form, or a row is wrong.
    """
    document = read_json(body)
    if type(document) is not dict:
        raise InvalidRows('the body must be a JSON object with "instances" (rows) or "inputs" (columns)')
    if "instances" in document and "inputs" not in document:
        columnar, rows = False, reader.rows(document["instances"])
    elif "inputs" in document and "instances" not in document:
        inputs = document["inputs"]
        if not isinstance(inputs, dict) and len(reader.names) == 1:
            inputs = {reader.names[0]: inputs}
        if not isinstance(inputs, dict):
            raise InvalidRows('"inputs" must be an object: feature name -> list of values')
        columnar, rows = True, reader.columns(inputs)
    else:
        raise InvalidRows('give either "instances" (rows) or "inputs" (columns) in the body')
    if len(document) > 1 and document.get("signature_name", SIGNATURE) != SIGNATURE:
        raise InvalidRows(f'"signature_name" is {document["signature_name"]!r:.60}; this server has {SIGNATURE} only')
    return Request(rows, columnar)


def read_json(body: bytes) -> Any:
    """The content of a JSON text.

    Raises:
        InvalidRows: it is none; NaN and Infinity are not JSON, an unknown value is null.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRows(f"the body is not JSON: {error}") from None


def answer(request: Request, scores: Array) -> bytes:
    """The body of an answer.

    Args:
        request: what was asked.
        scores: float32 [N, outputs]. A model with one output is answered with one number for each row, otherwise with
            a list of numbers; a score that is not finite is null.
    """
    values = scores.reshape(-1) if scores.shape[1] == 1 else scores
    text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    return b'{"outputs":%b}' % text if request.columnar else b'{"predictions":%b}' % text


def status(servable: Servable) -> dict[str, Any]:
    """What `GET /v1/models/NAME` says of a version, as TensorFlow Serving spells it."""
    status = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": servable.version, "state": "AVAILABLE", "status": status}]}


def metadata(servable: Servable) -> dict[str, Any]:
    """What `GET /v1/models/NAME/metadata` says: the features and outputs of `serving_default`."""
    inputs = {feature.name: {"dtype": _tf_type(feature.datatype), "tensor_shape": _shape(feature.shape)}
              for feature in servable.features}  # fmt: skip
    outputs = {"scores": {"dtype": "DT_FLOAT", "tensor_shape": _shape((servable.outputs,))}}
    signature = {"inputs": inputs, "outputs": outputs, "method_name": "tensorflow/serving/predict"}
    return {
        "model_spec": {"name": servable.name, "signature_name": "", "version": servable.version},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }


def _tf_type(datatype: str) -> str:
    names = {"FP32": "FLOAT", "FP64": "DOUBLE", "FP16": "HALF", "BYTES": "STRING"}
    return f"DT_{names.get(datatype, datatype)}"


def _shape(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"dim": [{"size": str(size), "name": ""} for size in (-1, *shape)], "unknown_rank": False}
