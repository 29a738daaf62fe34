"""An HTTP proxy before a store that breaks what it is told to break."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """An answer instead of the store's."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/xml"})


@dataclass(frozen=True)
class CutAnswer:
    """The store's answer, whose connection breaks after so many bytes of the body."""

    after: int


@dataclass(frozen=True)
class CutRequest:
    """The connection breaks after so many bytes of the request's body; the store does not get it."""

    after: int


@dataclass(frozen=True)
class Slow:
    """The store's answer, late."""

    seconds: float


@dataclass(frozen=True)
class Garbled:
    """The request reaches the store with the last byte of its body changed."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    size: int
    number: int  # of all requests, from 1


Fault = Answer | CutAnswer | CutRequest | Slow | Garbled
SLOW_DOWN = Answer(503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")


class FaultyProxy:
    """What goes wrong is what `fault` returns for a request; None lets it pass.

    Attributes:
        requests: those that came.
        connections: how many are open.
    """

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.fault: Callable[[Request], Fault | None] = lambda request: None
        self.requests: list[Request] = []
        self.connections = 0
        self._lock = threading.Lock()

    def note(self, method: str, path: str, size: int) -> Fault | None:
        with self._lock:
            request = Request(method, path, size, len(self.requests) + 1)
            self.requests.append(request)
            return self.fault(request)

    def connected(self, change: int) -> None:
        with self._lock:
            self.connections += change

    def wait_until_gone(self, others: int) -> None:
        """Wait until the store has answered all that a client asked for before it ended.

        Args:
            others: How many connections were open before the client began.
        """
        end = time.monotonic() + 120
        while self.connections > others:
            assert time.monotonic() < end
            time.sleep(0.01)


def times(count: int, fault: Fault, matching: Callable[[Request], bool] = lambda request: True):
    """The fault for the first `count` requests that match."""
    left = [count]

    def choose(request: Request) -> Fault | None:
        if left[0] and matching(request):
            left[0] -= 1
            return fault
        return None

    return choose


@contextlib.contextmanager
def faulty_proxy(port: int) -> Iterator[tuple[FaultyProxy, str]]:
    proxy = FaultyProxy(port)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *arguments: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.proxy.connected(+1)
        self.upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream, timeout=60)

    def finish(self) -> None:
        self.upstream.close()
        with contextlib.suppress(OSError):
            super().finish()
        self.proxy.connected(-1)

    def _serve(self) -> None:
        try:
            self._pass()
        except (OSError, http.client.HTTPException):  # either side went away
            self._break()

    def _pass(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        fault = self.proxy.note(self.command, self.path, size)
        if isinstance(fault, CutRequest):
            self.rfile.read(min(size, fault.after))
            return self._break()
        body = self.rfile.read(size)
        if len(body) < size:  # the client went away; rclone's server would list what is not yet whole
            return self._break()
        if isinstance(fault, Garbled) and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        if isinstance(fault, Slow):
            time.sleep(fault.seconds)
        if isinstance(fault, Answer):
            return self._answer(fault.status, list(fault.headers.items()), fault.body)
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            self.upstream.putheader(name, value)
        self.upstream.endheaders(body)
        response = self.upstream.getresponse()
        data = response.read()
        cut = fault.after if isinstance(fault, CutAnswer) else None
        self._answer(response.status, response.getheaders(), data, cut)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, cut: int | None = None) -> None:
        self.send_response_only(status)
        length = None
        for name, value in headers:
            if name.lower() == "content-length":
                length = value
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        self.wfile.flush()
        if cut is not None:
            self._break()

    def _break(self) -> None:
        """Close with a reset, as a dying server or firewall does."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            self.connection.close()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = _serve
