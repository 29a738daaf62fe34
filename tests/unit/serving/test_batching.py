"""Dynamic batching: what is joined, what is refused, and that everybody gets their own answer."""

import asyncio
import http.client
import json
import random
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_hybrid.serving.batching import ALONE_ROWS, Batcher, Expired, Full
from kfp_hybrid.serving.rows import Rows
from kfp_hybrid.serving.servable import NUMBER, Feature, Samples, Servable
from kfp_hybrid.step import StepError

NAMES = ["x"]


class Doubler(Servable):
    """Twice the value; the batches it was given, and on demand it is slow or refuses a value."""

    engine = "litert"
    answer = None
    features = (Feature("x", NUMBER, "FP32", True),)
    outputs = 1
    samples = Samples({"x": [1.0]}, None, 0.0)

    def __init__(self, seconds=0.0, refused=None):
        super().__init__("double", "1", "")
        self.batches = []
        self.seconds = seconds
        self.refused = refused
        self.go_on = threading.Event()
        self.go_on.set()

    def predict(self, columns):
        values = np.array(columns["x"], np.float32)
        self.batches.append(len(values))
        time.sleep(self.seconds)
        assert self.go_on.wait(60)
        if self.refused in columns["x"]:
            raise StepError("this value cannot be doubled")
        return 2 * values[:, np.newaxis]


def rows(*values):
    return Rows(NAMES, [(value,) for value in values])


def run(work):
    return asyncio.run(asyncio.wait_for(work(), 60))


def test_what_is_queued_when_the_loop_turns_is_one_batch():
    model = Doubler()

    async def work():
        batcher = Batcher(model)
        answers = await asyncio.gather(*(batcher.submit(rows(value, value + 0.5)) for value in range(10)))
        assert [answer[:, 0].tolist() for answer in answers] == [[2.0 * v, 2.0 * v + 1] for v in range(10)]

    run(work)
    assert model.batches == [20]


def test_a_batch_has_no_more_rows_than_it_may():
    model = Doubler()

    async def work():
        batcher = Batcher(model, max_rows=7)
        await asyncio.gather(*(batcher.submit(rows(1, 2, 3)) for _ in range(5)), batcher.submit(rows(*range(9))))

    run(work)
    assert model.batches == [6, 6, 3, 9]


def test_a_request_waits_for_others_if_the_server_is_told_so():
    model = Doubler()

    async def work():
        batcher = Batcher(model, max_delay=60.0, max_rows=3)
        first = batcher.submit(rows(1))
        await asyncio.sleep(0.05)
        assert model.batches == []
        await asyncio.gather(first, batcher.submit(rows(2, 3)))  # full: nobody waits any longer

    run(work)
    assert model.batches == [3]


def test_more_than_the_queue_holds_is_refused():
    async def work():
        batcher = Batcher(Doubler(), queue_rows=5)
        first = batcher.submit(rows(1, 2, 3))
        with pytest.raises(Full):
            batcher.submit(rows(4, 5, 6))
        second = batcher.submit(rows(4, 5))
        await asyncio.gather(first, second)
        assert batcher.queued_rows == 0
        await batcher.submit(rows(*range(9)))  # alone it may be longer, or it could never be answered

    run(work)


def test_rows_that_nobody_waits_for_are_not_computed():
    model = Doubler()

    async def work():
        batcher = Batcher(model)
        told = []
        job = batcher.enqueue(rows(1), lambda scores, error: told.append(scores))
        kept = batcher.submit(rows(2))
        job.cancel()
        assert (await kept).tolist() == [[4.0]]
        assert (batcher.queued_rows, told) == (0, [])

    run(work)
    assert model.batches == [1]


def test_rows_that_waited_too_long_are_given_up():
    async def work():
        batcher = Batcher(Doubler(), timeout=0.0)
        with pytest.raises(Expired):
            await batcher.submit(rows(1))
        assert batcher.queued_rows == 0

    run(work)


def test_one_bad_request_does_not_spoil_the_batch():
    async def work():
        batcher = Batcher(Doubler(refused=13.0))
        good, bad = batcher.submit(rows(1.0)), batcher.submit(rows(13.0))
        answers = await asyncio.gather(good, bad, return_exceptions=True)
        assert answers[0].tolist() == [[2.0]]
        assert isinstance(answers[1], StepError)

    run(work)


def test_the_loop_goes_on_while_a_large_request_is_computed():
    model = Doubler()
    model.go_on.clear()

    async def work():
        batcher = Batcher(model)
        large = batcher.submit(rows(*range(ALONE_ROWS)))
        while not model.batches:  # that this ends shows that the loop does not wait for the model
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert not large.done()
        model.go_on.set()
        assert len(await large) == ALONE_ROWS

    run(work)


def test_a_slow_model_is_computed_in_a_thread_once_that_is_known():
    model = Doubler(seconds=0.2)

    async def work():
        batcher = Batcher(model)
        await batcher.submit(rows(1))
        model.go_on.clear()
        second = batcher.submit(rows(1))
        await asyncio.sleep(0.05)
        assert not second.done()  # the loop came back before the model did
        model.go_on.set()
        await second

    run(work)


@given(
    st.lists(st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=400), min_size=1, max_size=30),
    st.integers(1, 600),
    st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_each_request_gets_its_own_scores(requests, max_rows, workers):
    async def work():
        batcher = Batcher(Doubler(), max_rows=max_rows, workers=workers)
        answers = await asyncio.gather(*(batcher.submit(rows(*values)) for values in requests))
        assert [answer[:, 0].tolist() for answer in answers] == [[2.0 * v for v in values] for values in requests]
        assert batcher.queued_rows == 0
        batcher.close()

    run(work)


def test_answers_never_cross_between_thousands_of_requests(shared):
    """Each row of each request is another one, and its answer tells which; rows, columns, few and many at a time."""
    server = shared("sum")
    wrong = []

    def ask(client):
        chance = random.Random(client)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for request in range(120):
            count = chance.choice([1, 1, 1, 2, 5, 70, 300])
            start = (client * 120 + request) * 300
            values = list(range(start, start + count))
            columns = {"a": values, "b": [client] * count, "c": ["x"] * count}
            columnar = chance.random() < 0.3
            instances = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            body = {"inputs": columns} if columnar else {"instances": instances}
            connection.request("POST", "/v1/models/model:predict", json.dumps(body))
            answer = json.loads(connection.getresponse().read())
            if answer.get("outputs" if columnar else "predictions") != [4.0 * v + client + 2 for v in values]:
                wrong.append((client, request, answer))

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
