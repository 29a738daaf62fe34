"""The Open Inference Protocol, version 2, over gRPC: the same requests and batches as over REST.

Tensors come in the fields of a message, or as bytes in `raw_input_contents`; they are answered in the same way. The
health service of gRPC is there too, for the probes of Kubernetes.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from kfp_hybrid.errors import UserError
from kfp_hybrid.serving import inference_pb2 as messages
from kfp_hybrid.serving import tensors, v2
from kfp_hybrid.serving.application import KEY_HEADER, SERVER, Application
from kfp_hybrid.serving.batching import Expired, Full
from kfp_hybrid.serving.routing import Deployed, Served
from kfp_hybrid.serving.rows import InvalidRows, Rows
from kfp_hybrid.serving.servable import Array

SERVICE = "inference.GRPCInferenceService"
PROTOCOL = "grpc"
KEY = KEY_HEADER.decode()
HEALTH_SERVICE = "grpc.health.v1.Health"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"  # HealthCheckResponse with the field `status`
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

log = logging.getLogger(__name__)

Context = Any  # grpc.aio.ServicerContext; grpcio comes without types
Method = Callable[[Any, Context], Awaitable[Any]]


class InferenceService:
    """Answers the calls of the protocol.

    Args:
        application: the server whose models answer.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._options = application.options

    async def server_live(self, request: messages.ServerLiveRequest, context: Context) -> messages.ServerLiveResponse:
        """Whether the server lives."""
        return messages.ServerLiveResponse(live=True)

    async def server_ready(
        self, request: messages.ServerReadyRequest, context: Context
    ) -> messages.ServerReadyResponse:
        """Whether requests should be sent here."""
        return messages.ServerReadyResponse(ready=self._application.ready)

    async def model_ready(self, request: messages.ModelReadyRequest, context: Context) -> messages.ModelReadyResponse:
        """Whether the model, or a version of it, answers."""
        ready = self._application.ready and request.name == self._options.name
        return messages.ModelReadyResponse(ready=ready and self._find(request.version) is not None)

    async def server_metadata(
        self, request: messages.ServerMetadataRequest, context: Context
    ) -> messages.ServerMetadataResponse:
        """What the server is."""
        return messages.ServerMetadataResponse(name=str(SERVER["name"]), version=str(SERVER["version"]))

    async def model_metadata(
        self, request: messages.ModelMetadataRequest, context: Context
    ) -> messages.ModelMetadataResponse:
        """The inputs and outputs of the model."""
        deployed = await self._deployed(request.name, request.version, None, context)
        found = v2.model_metadata(deployed.servable)
        router = self._application.router
        tensor = messages.ModelMetadataResponse.TensorMetadata
        return messages.ModelMetadataResponse(
            name=found["name"],
            versions=[each.version for each in router.routes.answering()] if router else [],
            platform=found["platform"],
            inputs=[tensor(**each) for each in found["inputs"]],
            outputs=[tensor(**each) for each in found["outputs"]],
        )

    async def model_infer(self, request: messages.ModelInferRequest, context: Context) -> messages.ModelInferResponse:
        """Predict."""
        started = time.monotonic()
        key = dict(context.invocation_metadata() or ()).get(KEY)
        key = key.decode("latin-1") if isinstance(key, bytes) else key
        deployed = await self._deployed(request.model_name, request.model_version, key, context)
        wanted = dict.fromkeys((output.name for output in request.outputs), True)
        try:
            v2.require_outputs(deployed.servable, wanted)
            rows = deployed.batcher.reader.columns(_columns(request))
        except InvalidRows as error:
            await self._fail(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        scores = await self._predict(deployed, rows, context)
        response = _response(request, deployed, scores, wanted)
        router = self._application.router
        if router is not None and router.observers:
            router.notify(Served(deployed.servable, rows, scores, time.monotonic() - started, PROTOCOL, key or ""))
        return response

    async def _predict(self, deployed: Deployed, rows: Rows, context: Context) -> Array:
        limit = self._options.max_request_rows
        if rows.scores is not None:
            return rows.scores
        if rows.count > limit:
            message = f"{rows.count} rows are more than {limit}; send fewer rows at a time"
            await self._fail(context, grpc.StatusCode.INVALID_ARGUMENT, message)
        try:
            return await deployed.batcher.submit(rows)
        except Full:
            message = "too many rows wait for the model; come back later"
            await self._fail(context, grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        except Expired:
            message = f"the model was too busy to predict within {self._options.timeout:g} s"
            await self._fail(context, grpc.StatusCode.UNAVAILABLE, message)
        except UserError as error:
            await self._fail(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Exception:
            log.exception("the model failed on a request")
            message = "the model failed on these rows; see the log of the server"
            await self._fail(context, grpc.StatusCode.INTERNAL, message)

    def _find(self, version: str) -> Deployed | None:
        router = self._application.router
        if router is None:
            return None
        return router.version(version) if version else router.routes.primary

    async def _deployed(self, name: str, version: str, key: str | None, context: Context) -> Deployed:
        """The version that answers; ends the call where there is none."""
        router, ours = self._application.router, self._options.name
        if name != ours:
            message = f"there is no model {name[:100]!r}; this server has {ours!r}"
            await self._fail(context, grpc.StatusCode.NOT_FOUND, message)
        if router is None:
            message = "the model is being loaded; come back later"
            await self._fail(context, grpc.StatusCode.UNAVAILABLE, message)
        found = router.version(version) if version else router.choose(key)
        if found is None:
            message = f"version {version[:40]!r} is not served here; leave it out"
            await self._fail(context, grpc.StatusCode.NOT_FOUND, message)
        return found

    async def _fail(self, context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
        for observer in self._application.on_error:
            observer(PROTOCOL, code.name)
        await context.abort(code, message)
        raise AssertionError("abort has raised")

    def handlers(self) -> Mapping[str, grpc.RpcMethodHandler]:
        """The method handlers by their names in the protocol."""
        methods: dict[str, tuple[Method, Any, Any]] = {
            "ServerLive": (self.server_live, messages.ServerLiveRequest, messages.ServerLiveResponse),
            "ServerReady": (self.server_ready, messages.ServerReadyRequest, messages.ServerReadyResponse),
            "ModelReady": (self.model_ready, messages.ModelReadyRequest, messages.ModelReadyResponse),
            "ServerMetadata": (self.server_metadata, messages.ServerMetadataRequest, messages.ServerMetadataResponse),
            "ModelMetadata": (self.model_metadata, messages.ModelMetadataRequest, messages.ModelMetadataResponse),
            "ModelInfer": (self.model_infer, messages.ModelInferRequest, messages.ModelInferResponse),
        }
        return {
            name: grpc.unary_unary_rpc_method_handler(self._decoding(method, asked), None, answered.SerializeToString)
            for name, (method, asked, answered) in methods.items()
        }

    def _decoding(self, method: Method, asked: Any) -> Method:
        """A method of bytes: those that are no message are the client's mistake, not an error of the server."""

        async def decoded(request: bytes, context: Context) -> Any:
            try:
                message = asked.FromString(request)
            except DecodeError as error:
                await self._fail(context, grpc.StatusCode.INVALID_ARGUMENT, f"this is no {asked.__name__}: {error}")
            return await method(message, context)

        return decoded

    async def check(self, request: bytes, context: Context) -> bytes:
        """The call Check of gRPC's health service, for whatever service; the messages as bytes."""
        return SERVING if self._application.ready else NOT_SERVING


async def listen(application: Application, host: str, port: int) -> tuple[grpc.aio.Server, int]:
    """Start to listen.

    Args:
        application: the server whose models answer.
        host: the address.
        port: the port; 0 for a free one.

    Returns:
        The server, and the port.

    Raises:
        UserError: the port is taken, or the address is not this machine's.
    """
    options = application.options
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", options.max_body_bytes), ("grpc.so_reuseport", 0)],
        maximum_concurrent_rpcs=options.max_connections,
    )
    service = InferenceService(application)
    health = {"Check": grpc.unary_unary_rpc_method_handler(service.check)}
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler(SERVICE, service.handlers()),
        grpc.method_handlers_generic_handler(HEALTH_SERVICE, health),
    ))  # fmt: skip
    try:
        found = server.add_insecure_port(f"{f'[{host}]' if ':' in host else host}:{port}")
    except RuntimeError as error:
        raise UserError(f"cannot listen for gRPC at {host}:{port}: {error}; choose another --grpc-port") from None
    await server.start()
    return server, found


def _columns(request: messages.ModelInferRequest) -> dict[str, Any]:
    """Feature name -> values.

    Raises:
        InvalidRows: a tensor is of another form.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRows(f"there are {len(request.inputs)} inputs and raw_input_contents of {len(raw)}")
    columns: dict[str, Any] = {}
    for position, tensor in enumerate(request.inputs):
        name, datatype, shape = tensor.name, tensor.datatype, list(tensor.shape)
        tensors.check(name, datatype, shape)
        if name in columns:
            raise InvalidRows(f"input {name!r} is there twice")
        if raw:
            columns[name] = tensors.from_bytes(name, datatype, shape, raw[position])
        else:
            columns[name] = tensors.from_json(name, datatype, shape, _values(tensor))
    return columns


def _values(tensor: Any) -> list[Any]:
    """The values in the field for the type of a tensor.

    Raises:
        InvalidRows: the type has no such field, or a text is not UTF-8.
    """
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        raise InvalidRows(f"input {tensor.name!r}: {tensor.datatype} comes in raw_input_contents only")
    values = list(getattr(tensor.contents, field))
    if tensor.datatype != tensors.BYTES:
        return values
    texts = []
    for row, value in enumerate(values):
        try:
            texts.append(value.decode("utf-8"))
        except UnicodeDecodeError:
            raise InvalidRows(f"row {row}: feature {tensor.name!r} is not UTF-8") from None
    return texts


def _response(
    request: messages.ModelInferRequest, deployed: Deployed, scores: Array, wanted: Mapping[str, Any]
) -> messages.ModelInferResponse:
    servable = deployed.servable
    response = messages.ModelInferResponse(
        model_name=servable.name, model_version=servable.version, id=request.id
    )  # fmt: skip
    for output in v2.outputs(servable, scores, wanted):
        tensor = response.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        if request.raw_input_contents:
            response.raw_output_contents.append(tensors.to_bytes(output.values, output.datatype))
            continue
        values: Any = np.ravel(output.values) if output.name == v2.SCORES else output.values
        if output.datatype == tensors.BYTES:
            values = [str(value).encode() for value in values]
        getattr(tensor.contents, CONTENTS[output.datatype]).extend(values)
    return response
