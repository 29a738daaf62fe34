"""The Open Inference Protocol over gRPC."""

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
import uvloop

from kfp_hybrid.serving import grpc_v2, tensors
from kfp_hybrid.serving import inference_pb2 as messages
from kfp_hybrid.serving.application import Application
from kfp_hybrid.serving.options import Options
from kfp_hybrid.serving.routing import Router

CACHE = Path(__file__).parents[4] / ".cache"
TRITON, KSERVE = CACHE / "test-tools-serving", CACHE / "kserve-client"


@pytest.fixture
def application(sums, tmp_path):
    application = Application(Options(model="", name="sums", max_request_rows=1000))
    application.router = Router(application.deploy(sums.load(tmp_path, 7)))
    return application


@contextlib.asynccontextmanager
async def listening(application):
    server, port = await grpc_v2.listen(application, "127.0.0.1", 0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(5)


async def call(channel, method, request, metadata=()):
    answer = getattr(messages, method + "Response")
    path = f"/inference.GRPCInferenceService/{method}"
    method = channel.unary_unary(path, type(request).SerializeToString, answer.FromString)
    return await method(request, metadata=metadata, timeout=120)


def ask(application, method, request, metadata=()):
    async def scenario():
        async with listening(application) as channel:
            return await call(channel, method, request, metadata)

    return uvloop.run(scenario())


def infer(x=(1.0, 2.0), colour=("red", "green"), raw=False, **more):
    request = messages.ModelInferRequest(model_name="sums", **more)
    for name, datatype, values in (("x", "FP32", x), ("colour", "BYTES", colour)):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(values)])
        if raw:
            request.raw_input_contents.append(tensors.to_bytes(list(values), datatype))
        else:
            values = [value.encode() for value in values] if datatype == "BYTES" else values
            getattr(tensor.contents, grpc_v2.CONTENTS[datatype]).extend(values)
    return request


def refused(application, method, request):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        ask(application, method, request)
    return error.value.code(), error.value.details()


def test_tensors_are_answered_in_the_way_they_came(application):
    plain = ask(application, "ModelInfer", infer(id="42"))
    assert (plain.model_name, plain.model_version, plain.id) == ("sums", "7", "42")
    (scores,) = plain.outputs
    assert (scores.name, scores.datatype, list(scores.shape)) == ("scores", "FP32", [2, 1])
    assert list(scores.contents.fp32_contents) == [7003, 7005]
    assert not plain.raw_output_contents
    raw = ask(application, "ModelInfer", infer(raw=True))
    assert np.frombuffer(raw.raw_output_contents[0], "<f4").tolist() == [7003, 7005]
    assert not raw.outputs[0].contents.fp32_contents


@pytest.mark.parametrize(
    "datatype, values",
    [("FP64", [1.5]), ("INT64", [3]), ("INT32", [3]), ("UINT8", [3]), ("UINT64", [3]), ("FP32", [1.5])],
)
def test_a_number_may_come_as_any_type_of_number(application, datatype, values):
    request = infer([0], ["red"])
    del request.inputs[0].contents.fp32_contents[:]
    request.inputs[0].datatype = datatype
    getattr(request.inputs[0].contents, grpc_v2.CONTENTS[datatype]).extend(values)
    answer = ask(application, "ModelInfer", request)
    assert list(answer.outputs[0].contents.fp32_contents) == [7002 + values[0]]


def test_classes_are_predicted_as_their_own_type(application):
    servable = application.router.routes.primary.servable
    for classes, datatype, expected in [((0, 1), "INT64", [0, 1]), (("no", "yes"), "BYTES", [b"no", b"yes"])]:
        servable.answer = type(servable.answer)("binary", "late", classes)
        servable.predict = lambda columns: np.float32([[0.25], [0.75]])
        _, predicted = ask(application, "ModelInfer", infer()).outputs
        assert (predicted.name, predicted.datatype, list(predicted.shape)) == ("predicted", datatype, [2])
        assert list(getattr(predicted.contents, grpc_v2.CONTENTS[datatype])) == expected
        raw = ask(application, "ModelInfer", infer(raw=True))
        assert raw.raw_output_contents[1] == tensors.to_bytes([classes[0], classes[1]], datatype)
        only = infer()
        only.outputs.add(name="predicted")
        assert [output.name for output in ask(application, "ModelInfer", only).outputs] == ["predicted"]


def test_the_server_and_its_model_describe_themselves(application):
    assert ask(application, "ServerLive", messages.ServerLiveRequest()).live
    assert ask(application, "ServerReady", messages.ServerReadyRequest()).ready
    assert ask(application, "ServerMetadata", messages.ServerMetadataRequest()).name == "kfp-hybrid"
    model = ask(application, "ModelMetadata", messages.ModelMetadataRequest(name="sums"))
    assert (model.name, list(model.versions), model.platform) == ("sums", ["7"], "litert_tflite")
    assert [(i.name, i.datatype, list(i.shape)) for i in model.inputs] == [
        ("x", "FP32", [-1]),
        ("colour", "BYTES", [-1]),
    ]
    assert [(o.name, o.datatype, list(o.shape)) for o in model.outputs] == [("scores", "FP32", [-1, 1])]


@pytest.mark.parametrize(
    "name, version, ready", [("sums", "", True), ("sums", "7", True), ("sums", "8", False), ("x", "", False)]
)
def test_a_model_is_ready_if_it_is_served(application, name, version, ready):
    assert ask(application, "ModelReady", messages.ModelReadyRequest(name=name, version=version)).ready is ready


def test_nothing_is_ready_before_the_model_is_loaded(application):
    application.router = None
    assert not ask(application, "ServerReady", messages.ServerReadyRequest()).ready
    assert not ask(application, "ModelReady", messages.ModelReadyRequest(name="sums")).ready
    code, _ = refused(application, "ModelInfer", infer())
    assert code == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("loaded, status", [(True, b"\x08\x01"), (False, b"\x08\x02")])
def test_the_probe_of_kubernetes_is_answered(application, loaded, status):
    application.router = application.router if loaded else None

    async def scenario():
        async with listening(application) as channel:
            return await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=120)

    assert uvloop.run(scenario()) == status


def test_what_is_wrong_with_a_request_is_told(application):
    counted = []
    application.on_error.append(lambda protocol, code: counted.append((protocol, code)))
    invalid, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND

    def wrong(request, code, message):
        actual, details = refused(application, "ModelInfer", request)
        assert actual == code
        assert message in details
        assert counted[-1] == ("grpc", code.name)

    wrong(infer([1], ["red", "green"]), invalid, "feature 'colour' has 2 values and feature 'x' has 1")
    wrong(infer(model_version="9"), missing, "version '9' is not served here")
    wrong(messages.ModelInferRequest(model_name="other"), missing, "there is no model 'other'")
    wrong(messages.ModelInferRequest(model_name="sums"), invalid, "feature 'x' is missing")
    wrong(infer([1] * 1001, ["red"] * 1001), invalid, "1001 rows are more than 1000")
    request = infer()
    request.outputs.add(name="embedding")
    wrong(request, invalid, "there is no output 'embedding'")
    request = infer()
    request.inputs[1].contents.bytes_contents[1] = b"\xff"
    wrong(request, invalid, "row 1: feature 'colour' is not UTF-8")
    request = infer(raw=True)
    del request.raw_input_contents[1]
    wrong(request, invalid, "there are 2 inputs and raw_input_contents of 1")
    request = infer(raw=True)
    request.raw_input_contents[0] = b"abc"
    wrong(request, invalid, "input 'x' has 3 bytes")
    request = infer()
    request.inputs[0].datatype = "FP16"
    wrong(request, invalid, "FP16 comes in raw_input_contents only")
    request.inputs[0].datatype = "COMPLEX"
    wrong(request, invalid, "'COMPLEX'")
    application.router.routes.primary.servable.predict = lambda columns: 1 / 0
    wrong(infer(), grpc.StatusCode.INTERNAL, "see the log of the server")


def test_bytes_that_are_no_message_are_the_clients_mistake(application, caplog):
    async def scenario():
        async with listening(application) as channel:
            return await channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\xff\xff", timeout=120)

    with pytest.raises(grpc.aio.AioRpcError, match="this is no ModelInferRequest") as error:
        uvloop.run(scenario())
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert not caplog.records


def test_a_full_queue_is_told_as_such(application):
    application.router.routes.primary.batcher.queued_rows = 1 << 30
    code, details = refused(application, "ModelInfer", infer())
    assert (code, details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many rows wait for the model; come back later")


def test_concurrent_calls_get_their_own_answers(application):
    async def scenario():
        async with listening(application) as channel:
            requests = [infer([i, i + 0.5], ["red", "green"], raw=i % 2 == 0) for i in range(300)]
            return await asyncio.gather(*(call(channel, "ModelInfer", request) for request in requests))

    for i, answer in enumerate(uvloop.run(scenario())):
        raw = answer.raw_output_contents
        scores = np.frombuffer(raw[0], "<f4").tolist() if raw else list(answer.outputs[0].contents.fp32_contents)
        assert scores == [7002 + i, 7003.5 + i]


def test_the_key_of_a_request_makes_the_canary_sticky_and_is_told_to_observers(sums, tmp_path, application):
    seen = []
    application.router.canary(application.deploy(sums.load(tmp_path, 8)), 50)
    application.router.observers.append(seen.append)
    for user in range(20):
        key = f"user-{user}"
        versions = {ask(application, "ModelInfer", infer(), [("x-request-key", key)]).model_version for _ in range(2)}
        assert versions == {application.router.choose(key).version}
    assert {(served.protocol, served.key) for served in seen} == {("grpc", f"user-{user}") for user in range(20)}
    assert {served.servable.version for served in seen} == {"7", "8"}


@pytest.mark.parametrize("client", ["triton", "kserve"])
def test_the_clients_of_triton_and_kserve_are_answered(application, client):
    """The real clients, in processes of their own: each brings its own definition of the messages."""
    python, tools = (sys.executable, TRITON) if client == "triton" else (KSERVE / "bin/python", KSERVE)
    if not tools.is_dir():
        pytest.skip(f"the client is not in {tools}; scripts/test.sh installs it")
    script = Path(__file__).with_name(f"grpc_client_{client}.py")

    async def scenario():
        server, port = await grpc_v2.listen(application, "127.0.0.1", 0)
        environment = {**os.environ, "PYTHONPATH": f"{tools}:{CACHE}/test-tools" if client == "triton" else ""}
        process = await asyncio.create_subprocess_exec(
            str(python), str(script), str(port), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output, _ = await process.communicate()
        await server.stop(5)
        return process.returncode, output.decode()

    status, output = uvloop.run(scenario())
    assert status == 0, output
