"""The same rows over the Open Inference Protocol, version 2: by REST and by gRPC, which clients may use instead."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kfp_hybrid.components.inference.validate_serving.client import RefusedError
from kfp_hybrid.components.inference.validate_serving.comparison import Array
from kfp_hybrid.components.inference.validate_serving.server_process import HOST, Server, ServingFailure
from kfp_hybrid.scoring.difference import largest_difference

ROWS = 16
SCORES = "scores"

Row = Mapping[str, Any]


def compare_protocols(server: Server, rows: Sequence[Row], allowed: float) -> float:
    """Ask about a few rows by V1, V2 over REST and V2 over gRPC, in one request each.

    Args:
        server: The server.
        rows: JSON values by feature; the first of them are sent.
        allowed: How far a score may be from that of V1.

    Returns:
        The largest difference from V1.

    Raises:
        ServingFailure: a protocol does not answer, or gives other scores.
    """
    rows = rows[:ROWS]
    protocols: dict[str, Callable[[Server, Sequence[Row]], Array]] = {"V2 over REST": by_rest, "V2 over gRPC": by_grpc}
    largest = 0.0
    try:
        expected = server.client.predict(rows)
    except RefusedError as error:
        raise ServingFailure(f"{len(rows)} rows in one request got {error}") from None
    for name, ask in protocols.items():
        try:
            scores = ask(server, rows)
        except RefusedError as error:
            raise ServingFailure(f"{name} answers rows that V1 answers with {error}") from None
        if scores.shape != expected.shape:
            raise ServingFailure(f"{name} gives scores of shape {list(scores.shape)}, V1 {list(expected.shape)}")
        difference = largest_difference(scores, expected)
        if difference > allowed:
            raise ServingFailure(
                f"{name} gives other scores than V1 for the first {len(rows)} rows: they differ by {difference:.3g}, "
                f"at most {allowed:.3g} is allowed"
            )
        largest = max(largest, difference)
    return largest


def by_rest(server: Server, rows: Sequence[Row]) -> Array:
    """Scores of rows, [N, outputs]; raises `RefusedError` where there are none."""
    inputs = [
        {"name": name, "datatype": datatype, "shape": [len(rows)], "data": [row[name] for row in rows]}
        for name, datatype in _datatypes(server).items()
    ]
    outputs = _json(server, "POST", "/infer", json.dumps({"inputs": inputs}).encode())["outputs"]
    scores = next(output for output in outputs if output["name"] == SCORES)
    values = [math.nan if value is None else value for value in scores["data"]]
    return np.array(values, np.float64).reshape(scores["shape"])


def by_grpc(server: Server, rows: Sequence[Row]) -> Array:
    """Scores of rows, [N, outputs]; raises `RefusedError` where there are none."""
    import grpc

    from kfp_hybrid.serving import inference_pb2 as messages

    request = messages.ModelInferRequest(model_name=server.client.name)
    for name, datatype in _datatypes(server).items():
        values = [row[name] for row in rows]
        tensor = request.inputs.add(name=name, shape=[len(rows)])
        if datatype == "BYTES":
            tensor.datatype = datatype
            tensor.contents.bytes_contents.extend((value or "").encode() for value in values)
        elif all(type(value) is int for value in values):
            tensor.datatype = "INT64"
            tensor.contents.int64_contents.extend(values)
        else:  # any number may come as a double, which unlike an integer can say that it is missing
            tensor.datatype = "FP64"
            tensor.contents.fp64_contents.extend(math.nan if value is None else value for value in values)
    with grpc.insecure_channel(f"{HOST}:{server.grpc_port}", [("grpc.enable_http_proxy", 0)]) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            messages.ModelInferRequest.SerializeToString,
            messages.ModelInferResponse.FromString,
        )
        try:
            answer = infer(request, timeout=server.client.timeout)
        except grpc.RpcError as error:
            raise RefusedError(f"{error.code().name}: {error.details()}") from None
    scores = next(output for output in answer.outputs if output.name == SCORES)
    return np.array(scores.contents.fp32_contents, np.float64).reshape(tuple(scores.shape))


def _datatypes(server: Server) -> dict[str, str]:
    """Feature -> datatype, as the server describes its model."""
    return {tensor["name"]: tensor["datatype"] for tensor in _json(server, "GET", "")["inputs"]}


def _json(server: Server, method: str, path: str, body: bytes = b"") -> Any:
    reply = server.client.send(method, f"/v2/models/{server.client.name}{path}", body)
    if reply.status != 200:
        raise RefusedError(reply.describe())
    return json.loads(reply.body)
