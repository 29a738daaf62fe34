"""How long the server takes to answer when several clients ask at once."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httptools
import numpy as np

from kfp_hybrid.components.inference.validate_serving.client import Client
from kfp_hybrid.components.inference.validate_serving.server_process import ServingFailure

WARM_UP = 4  # requests of each connection that do not count


@dataclass(frozen=True)
class Latency:
    """The times of all answers.

    Attributes:
        milliseconds: float64 [requests], sorted: from sending a request to the end of its answer.
        concurrency: Requests on their way at the same time.
        seconds: From the first request to the last answer.
    """

    milliseconds: np.ndarray
    concurrency: int
    seconds: float

    @property
    def p50(self) -> float:
        """The median, in milliseconds."""
        return float(np.percentile(self.milliseconds, 50))

    @property
    def p99(self) -> float:
        """The 99th percentile, in milliseconds."""
        return float(np.percentile(self.milliseconds, 99))

    @property
    def per_second(self) -> float:
        """Requests answered per second."""
        return len(self.milliseconds) / self.seconds


def measure_latency(client: Client, bodies: Sequence[bytes], requests: int, concurrency: int) -> Latency:
    """Ask from several connections at once, each of which sends its next request when it has its answer.

    Args:
        client: Where the server is.
        bodies: The bodies of V1 requests, to be sent in turns.
        requests: How many to send in all.
        concurrency: How many connections.

    Raises:
        ServingFailure: a request was not answered with status 200, or not in time.
    """
    return asyncio.run(_measure(client, bodies, requests, concurrency))


async def _measure(client: Client, bodies: Sequence[bytes], requests: int, concurrency: int) -> Latency:
    head = (
        f"POST {client.predict_path} HTTP/1.1\r\nHost: {client.host}:{client.port}\r\n"
        "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n"
    )
    encoded = [head.format(len(body)).encode() + body for body in bodies]
    loop = asyncio.get_running_loop()
    connections = [_Connection(loop) for _ in range(concurrency)]
    try:
        async with asyncio.timeout(client.timeout):
            for connection in connections:
                await loop.create_connection(lambda c=connection: c, client.host, client.port)  # type: ignore[misc]
        await _send_all(connections, encoded, WARM_UP * concurrency, client.timeout)
        begun = time.perf_counter()
        times = await _send_all(connections, encoded, requests, client.timeout)
        return Latency(np.sort(times) * 1000, concurrency, time.perf_counter() - begun)
    except TimeoutError:
        raise ServingFailure(f"a request was not answered within {client.timeout:g} s under load") from None
    except OSError as error:
        raise ServingFailure(f"a connection broke under load: {error}") from None
    finally:
        for connection in connections:
            connection.close()


async def _send_all(
    connections: Sequence["_Connection"], encoded: Sequence[bytes], requests: int, limit: float
) -> list[float]:
    """Send so many requests and return how many seconds each took."""
    numbers = iter(range(requests))
    times: list[float] = []

    async def keep_asking(connection: _Connection) -> None:
        for number in numbers:
            async with asyncio.timeout(limit):
                times.append(await connection.ask(encoded[number % len(encoded)]))

    await asyncio.gather(*map(keep_asking, connections))
    return times


class _Connection(asyncio.Protocol):
    """One connection, on which one request at a time is on its way."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._answered: asyncio.Future[float] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes) -> asyncio.Future[float]:
        """Send a request; the result is how many seconds its answer took."""
        assert self._transport is not None
        self._answered = self._loop.create_future()
        self._parser = httptools.HttpResponseParser(self)
        if self._transport.is_closing():
            self._fail("the server closed it")
            return self._answered
        self._sent = time.perf_counter()
        self._transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"what came is not HTTP: {error}")

    def on_message_complete(self) -> None:
        """The parser has read an answer."""
        seconds = time.perf_counter() - self._sent
        if (status := self._parser.get_status_code()) != 200:
            self._fail(f"a request was answered with status {status}")
        elif not self._answered.done():
            self._answered.set_result(seconds)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._fail(f"the server closed it{f' ({error})' if error else ''}")

    def close(self) -> None:
        """Close the connection."""
        self._answered.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, reason: str) -> None:
        if not self._answered.done():
            self._answered.set_exception(ConnectionError(reason))
