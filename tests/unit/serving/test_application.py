"""What clients are told when the model is slow, crowded or broken; the application with models made for that."""

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
import uvloop

from kfp_hybrid.serving.application import Application
from kfp_hybrid.serving.options import Options
from kfp_hybrid.serving.routing import Router
from kfp_hybrid.serving.servable import NUMBER, Feature, Samples, Servable
from kfp_hybrid.step import StepError


class Scripted(Servable):
    """Does what it is asked to: the value is how long it takes, or how it fails."""

    engine = "litert"
    answer = None
    features = (Feature("x", NUMBER, "FP32", True),)
    outputs = 1
    samples = Samples({"x": [0.0]}, None, 0.0)

    def __init__(self, *args):
        super().__init__(*args)
        self.go_on = threading.Event()

    def predict(self, columns):
        values = np.array(columns["x"], np.float32)
        if -1 in values:
            raise StepError("this row cannot be used")
        if -2 in values:
            raise MemoryError("no more memory")
        if -3 in values:
            return values[:0, np.newaxis]
        if -4 in values:
            assert self.go_on.wait(60)
            return values[:, np.newaxis]
        time.sleep(float(values.max(initial=0.0)))
        scores = values[:, np.newaxis].copy()
        scores[scores == 0.25] = np.nan
        return scores


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def serve():
    """Start applications in this process; each is ended with the test."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def start(**options):
        async def listen():
            application = Application(Options("", host="127.0.0.1", workers=1, **options))
            application.router = Router(application.deploy(Scripted("model", "1", "")))
            return application, await application.http.listen("127.0.0.1", 0)

        application, port = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
        url = f"http://127.0.0.1:{port}/v1/models/model:predict"
        return application, lambda *values: requests.post(
            url, json={"instances": [{"x": value} for value in values]}, timeout=60
        )

    yield start
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)


def test_rows_that_the_model_refuses_are_the_clients_to_mend(serve):
    _, ask = serve()
    assert (ask(-1).status_code, ask(-1).json()) == (400, {"error": "this row cannot be used"})


@pytest.mark.parametrize("value", [-2, -3])
def test_a_model_that_breaks_is_told_without_its_inside_and_the_server_goes_on(serve, value, caplog):
    application, ask = serve()
    failures = []
    application.on_error.append(lambda protocol, status: failures.append((protocol, status)))
    answer = ask(value)
    assert answer.status_code == 500
    assert answer.json()["error"] == "the model failed on these rows; see the log of the server"
    assert "the model failed on a request" in caplog.text
    assert failures == [("v1", 500)]
    assert ask(0).json() == {"predictions": [0.0]}


def test_scores_that_are_not_finite_are_null(serve):
    _, ask = serve()
    assert ask(0.25, 0.125).json() == {"predictions": [None, 0.125]}


def test_more_rows_than_may_wait_are_told_to_come_back(serve):
    application, ask = serve(queue_rows=300)
    served = application.router.routes.primary
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(ask, *[-4.0] * 299)
        try:
            wait_until(lambda: served.batcher.queued_rows == 299)
            answer = ask(0, 0)
        finally:
            served.servable.go_on.set()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert slow.result().status_code == 200
    assert ask(0, 0).status_code == 200


def test_who_connected_before_the_end_is_answered_though_nobody_had_looked_at_him_yet():
    body = b'{"instances": [{"x": 0.5}]}'
    head = b"POST /v1/models/model:predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)

    async def scenario():
        application = Application(Options("", host="127.0.0.1", workers=1))
        application.router = Router(application.deploy(Scripted("model", "1", "")))
        port = await application.http.listen("127.0.0.1", 0)
        ending = asyncio.ensure_future(application.http.drain(0.01, 30.0))
        await asyncio.sleep(0)
        client = socket.create_connection(("127.0.0.1", port), timeout=60)
        client.sendall(head + body)
        time.sleep(0.05)  # the event loop is held up until no connection is to be taken any more
        await ending
        with client:
            return await asyncio.to_thread(client.recv, 4096)

    assert uvloop.run(scenario()).startswith(b"HTTP/1.1 200 OK")


def test_no_answer_in_time_is_told(serve):
    application, ask = serve(timeout=1.0)
    try:
        answer = ask(*[-4.0] * 300)
    finally:
        application.router.routes.primary.servable.go_on.set()
    assert (answer.status_code, answer.json()["error"]) == (503, "there was no answer within 1 s")


def test_the_others_are_answered_while_one_large_request_is_computed(serve):
    _, ask = serve()
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(ask, *[2.0] * 300)
        while not slow.done():
            assert ask(0).json() == {"predictions": [0.0]}
        assert slow.result().json() == {"predictions": [2.0] * 300}
