"""The Open Inference Protocol, version 2, over REST: bytes to rows and scores to bytes, without HTTP.

Tensors come as JSON, or as bytes after the JSON (the binary tensor extension). One input for each feature, [N] or
[N, 1]; the outputs are `scores`, FP32 [N, outputs], and where the classes are known `predicted`, [N].
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from kfp_hybrid.serving import tensors
from kfp_hybrid.serving.rows import InvalidRows, Reader, Rows
from kfp_hybrid.serving.servable import Array, Servable
from kfp_hybrid.serving.v1 import read_json

SCORES = "scores"
PREDICTED = "predicted"
EXTENSIONS = ["binary_tensor_data"]


class Request(NamedTuple):
    """A request for predictions.

    Attributes:
        rows: the rows.
        id: what the client calls the request; None if nothing.
        outputs: the outputs that it wants -> whether as bytes; {} for all.
        binary: whether outputs that it does not name come as bytes.
    """

    rows: Rows
    id: str | None
    outputs: dict[str, bool]
    binary: bool


class Output(NamedTuple):
    """A tensor of an answer.

    Attributes:
        name: its name.
        datatype: FP32, INT64 or BYTES.
        shape: its shape.
        values: its values.
    """

    name: str
    datatype: str
    shape: list[int]
    values: Array | list[Any]


def parse(body: bytes, json_bytes: int | None, reader: Reader) -> Request:
    """Read the body of a request.

    Args:
        body: JSON, and after it the bytes of tensors.
        json_bytes: the length of the JSON, from the header Inference-Header-Content-Length; None for all of it.
        reader: checks the rows.

    Raises:
        InvalidRows: it is of another form, or a row is wrong.
    """
    if json_bytes is not None and not 0 <= json_bytes <= len(body):
        raise InvalidRows(f"Inference-Header-Content-Length is {json_bytes}, the body has {len(body)} bytes")
    document = read_json(body if json_bytes is None else body[:json_bytes])
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list):
        raise InvalidRows('the body must be a JSON object with "inputs": a list of tensors')
    raw = memoryview(body)[json_bytes or len(body) :]
    columns, used = _columns(document["inputs"], raw)
    if used != len(raw):
        raise InvalidRows(f"{len(raw)} bytes follow the JSON, the inputs have binary_data_size for {used}")
    wanted = {}
    for output in document.get("outputs") or ():
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise InvalidRows('"outputs" must be a list of objects with a name')
        wanted[output["name"]] = bool(_parameters(output).get("binary_data", False))
    binary = bool(_parameters(document).get("binary_data_output", False))
    name = document.get("id")
    return Request(reader.columns(columns), None if name is None else str(name), wanted, binary)


def _columns(inputs: list[Any], raw: memoryview) -> tuple[dict[str, Any], int]:
    """Feature name -> values, and how many of the raw bytes they took."""
    columns: dict[str, Any] = {}
    used = 0
    for tensor in inputs:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise InvalidRows('"inputs" must be a list of tensors: objects with name, datatype, shape and data')
        name: str = tensor["name"]
        datatype: Any = tensor.get("datatype")
        shape: Any = tensor.get("shape")
        tensors.check(name, datatype, shape)
        if name in columns:
            raise InvalidRows(f"input {name!r} is there twice")
        size = _parameters(tensor).get("binary_data_size")
        if size is None:
            columns[name] = tensors.from_json(name, datatype, shape, tensor.get("data"))
            continue
        if type(size) is not int or not 0 <= size <= len(raw) - used:
            raise InvalidRows(f"input {name!r} has binary_data_size {size!r:.20}; {len(raw) - used} bytes are left")
        columns[name] = tensors.from_bytes(name, datatype, shape, raw[used : used + size])
        used += size
    return columns, used


def _parameters(part: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = part.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidRows('"parameters" must be an object')
    if "shared_memory_region" in parameters:
        raise InvalidRows("this server has no shared memory; send the tensor with the request")
    return parameters


def known_outputs(servable: Servable) -> list[str]:
    """The names of the outputs of a model."""
    return [SCORES, PREDICTED] if servable.answer is not None and servable.answer.classes else [SCORES]


def require_outputs(servable: Servable, wanted: Iterable[str]) -> None:
    """Check the outputs that a request wants.

    Raises:
        InvalidRows: there is no such output.
    """
    known = known_outputs(servable)
    if unknown := next((name for name in wanted if name not in known), None):
        raise InvalidRows(f"there is no output {unknown[:100]!r}; this model has {' and '.join(known)}")


def outputs(servable: Servable, scores: Array, wanted: Mapping[str, Any]) -> list[Output]:
    """The tensors of an answer: those that are wanted, or all."""
    found = []
    for name in wanted or known_outputs(servable):
        if name == SCORES:
            found.append(Output(SCORES, "FP32", list(scores.shape), scores))
        else:
            values = servable.decide(scores) or []
            datatype = "INT64" if _integers(servable) else tensors.BYTES
            found.append(Output(PREDICTED, datatype, [len(scores)], values))
    return found


def answer(request: Request, servable: Servable, scores: Array) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of the JSON in it if bytes of tensors follow."""
    described = []
    raw = []
    for output in outputs(servable, scores, request.outputs):
        tensor: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        if request.outputs.get(output.name, request.binary):
            raw.append(tensors.to_bytes(output.values, output.datatype))
            tensor["parameters"] = {"binary_data_size": len(raw[-1])}
        elif output.name == SCORES:
            tensor["data"] = np.ascontiguousarray(scores.reshape(-1))
        else:
            tensor["data"] = output.values if output.datatype == "INT64" else list(map(str, output.values))
        described.append(tensor)
    document: dict[str, Any] = {"model_name": servable.name, "model_version": servable.version}
    if request.id is not None:
        document["id"] = request.id
    document["outputs"] = described
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([text, *raw]), len(text)) if raw else (text, None)


def model_metadata(servable: Servable) -> dict[str, Any]:
    """What `GET /v2/models/NAME` says: inputs and outputs; -1 is any number."""
    found = [{"name": SCORES, "datatype": "FP32", "shape": [-1, servable.outputs]}]
    if PREDICTED in known_outputs(servable):
        found.append({"name": PREDICTED, "datatype": "INT64" if _integers(servable) else "BYTES", "shape": [-1]})
    return {
        "name": servable.name,
        "versions": [servable.version],
        "platform": {"litert": "litert_tflite", "tensorflow": "tensorflow_savedmodel"}[servable.engine],
        "inputs": [{"name": f.name, "datatype": f.datatype, "shape": [-1, *f.shape]} for f in servable.features],
        "outputs": found,
    }


def _integers(servable: Servable) -> bool:
    return servable.answer is not None and all(type(value) is int for value in servable.answer.classes)
