"""HTTP/1.1 for the model server: it listens, bounds what a peer may use of it, and drains.

Bounded are the bytes of a body, of all bodies that arrive and of headers, requests in a pipeline, connections, and
the time that a request may take to arrive and to be answered.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator

from kfp_hybrid.serving.connection import JSON, Connection, Exchange

__all__ = ["JSON", "Connection", "Exchange", "Handler", "HttpServer"]

SWEEP_SECONDS = 1.0
IDLE_SECONDS = 0.2  # at the end; the request of a new connection may not have been read yet

Handler = Callable[[Exchange], None]


class HttpServer:
    """Listens, and hands each request to a handler.

    Args:
        handle: answers a request, now or later; called on the event loop.
        error: makes the body of an answer that says what is wrong.
        max_body_bytes: of one request.
        max_total_bytes: of all bodies that are arriving.
        max_connections: at the same time.
        read_seconds: a request must arrive within that time.
        idle_seconds: a connection without requests is ended after that time.
        answer_seconds: a request is answered within that time, or told that it is not.

    Attributes:
        draining: whether each connection is ended with its next answer.
        connections: those that are open.
    """

    def __init__(
        self,
        handle: Handler,
        error: Callable[[str], bytes],
        max_body_bytes: int,
        max_total_bytes: int,
        max_connections: int,
        read_seconds: float,
        idle_seconds: float,
        answer_seconds: float,
    ) -> None:
        self.handle = handle
        self.error = error
        self.max_body_bytes = max_body_bytes
        self.max_total_bytes = max_total_bytes
        self.max_connections = max_connections
        self.read_seconds = read_seconds
        self.idle_seconds = idle_seconds
        self.answer_seconds = answer_seconds
        self.connections: set[Connection] = set()
        self.body_bytes = 0
        self.draining = False
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def listen(self, host: str, port: int) -> int:
        """Listen, and return the port: the one given, or a free one for 0.

        Raises:
            OSError: the port is taken, or the address is not this machine's.
        """
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self), host, port, backlog=2048)
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)
        return int(self._listener.sockets[0].getsockname()[1])

    async def drain(self, accept_seconds: float, timeout: float) -> None:
        """Answer what was accepted, and end.

        Args:
            accept_seconds: how long connections are still taken, until whoever sends them has learned of the end.
            timeout: after so many seconds more, connections are ended all the same.
        """
        self.draining = True
        await asyncio.sleep(accept_seconds)
        if self._listener is not None:
            waiting = list(_take_waiting(self._listener))
            self._listener.close()
            for taken in waiting:
                await asyncio.get_running_loop().connect_accepted_socket(lambda: Connection(self), taken)
        end = time.monotonic() + timeout
        while self.connections and (now := time.monotonic()) < end:
            for connection in list(self.connections):
                connection.close_if_idle(now - IDLE_SECONDS)
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in list(self.connections):
            connection.sweep(now)
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)


def _take_waiting(listener: asyncio.Server) -> Iterator[socket.socket]:
    """The connections that the system has made and the event loop not yet taken: closing the listener resets them."""
    for listening in listener.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as ours:
            ours.setblocking(False)
            while True:
                try:
                    yield ours.accept()[0]
                except (BlockingIOError, ConnectionAbortedError):
                    break
