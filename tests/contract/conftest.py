"""A server on this machine that plays a platform: it records what clients send, answers, and fails as it is told.

`serve(answer)` starts one. `answer` is called with each `Request` and returns a status and a body (and headers):

    def answer(request):
        if request.is_("GET", "/v1/things/*"):
            return 200, {"name": request.path.rpartition("/")[2]}
        return 404, {"error": "there is no such thing"}

    server = serve(answer)
    server.fail("POST /v1/things", status=503)              # once, before `answer` sees the request
    server.fail("POST /v1/things", cut=True, after=True)    # `answer` sees it, but its answer is lost

What `answer` raises is a failure of the test, however the client takes it.
"""

import fnmatch
import json
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from ports import unused_port

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


@dataclass
class Request:
    """What a client sent."""

    method: str
    path: str
    query: dict[str, str]
    headers: Any
    """Looked up without regard to case, as an `http.client.HTTPMessage`."""
    body: bytes

    def is_(self, method: str, pattern: str) -> bool:
        """Whether it is a request of that method for a path like `pattern`, in which * stands for anything."""
        return self.method == method and fnmatch.fnmatchcase(self.path, pattern)

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass
class Fault:
    """How the server fails for requests like `pattern`."""

    pattern: str
    status: int = 0
    body: Any = ""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    """Close the connection without an answer; in the middle of the body when there is a status too."""
    seconds: float = 0.0
    """Wait so long before answering."""
    after: bool = False
    """Let the request have its effect first."""
    times: float = 1


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing, perhaps into another test, of a client that went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class LocalServer:
    """One such server."""

    def __init__(self, answer: Callable[[Request], Answer], authority: trustme.CA | None, folder: Path) -> None:
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []
        self._answer = answer
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._http = _HttpServer(("127.0.0.1", 0), self._handler())
        self.port = self._http.server_address[1]
        self.ca_bundle = folder / "ca.pem"
        if authority:
            authority.cert_pem.write_to_path(self.ca_bundle)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"{'https' if authority else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def fail(self, pattern: str, **how: Any) -> None:
        """Fail for the next request like `pattern` ("POST /v1/things"); `times=math.inf`: always; see `Fault`."""
        with self._lock:
            self._faults.append(Fault(pattern, **how))

    def sent(self, pattern: str) -> list[Request]:
        """The requests like `pattern` so far."""
        return [request for request in self.requests if _like(request, pattern)]

    def stop(self) -> None:
        """End it; nothing listens any more."""
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _fault(self, request: Request) -> Fault:
        with self._lock:
            self.requests.append(request)
            for fault in self._faults:
                if fault.times > 0 and _like(request, fault.pattern):
                    fault.times -= 1
                    return fault
        return Fault("")

    def _respond(self, request: Request, handler: BaseHTTPRequestHandler) -> None:
        fault = self._fault(request)
        answer: Answer = (fault.status, fault.body, fault.headers)
        if fault.after or not (fault.status or fault.cut):
            try:
                with self._lock:
                    answered = self._answer(request)
            except BaseException as error:
                self.errors.append(error)
                answered = 500, f"{type(error).__name__}: {error}"
            answer = answered if not fault.status else answer
        self._stopping.wait(fault.seconds)
        if fault.cut and not fault.status:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            handler.close_connection = True
            return
        _send(handler, answer, cut=fault.cut)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                address = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                query = {name: values[-1] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
                server._respond(Request(self.command, address.path, query, self.headers, body), self)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *args: Any) -> None:
                """What clients do is not for the test's output."""

        return Handler


def _like(request: Request, pattern: str) -> bool:
    return fnmatch.fnmatchcase(f"{request.method} {request.path}", pattern)


def _send(handler: BaseHTTPRequestHandler, answer: Answer, *, cut: bool) -> None:
    status, body, *rest = answer
    headers: dict[str, str] = rest[0] if rest else {}
    kind = "text/plain; charset=utf-8" if isinstance(body, str | bytes) else "application/json"
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    try:
        handler.send_response_only(status)
        for name, value in {"Date": handler.date_time_string(), "Content-Type": kind, **headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data[: len(data) // 2] if cut else data)
    except OSError:  # the client did not wait
        cut = True
    if cut:
        handler.close_connection = True


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A private certificate authority."""
    return trustme.CA()


@pytest.fixture
def serve(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., LocalServer]]:
    """Starts a server on this machine: `serve(answer)`, or `serve(answer, tls=True)` with a certificate of
    `authority`, which clients find in its `ca_bundle`."""
    servers: list[LocalServer] = []

    def start(answer: Callable[[Request], Answer], *, tls: bool = False) -> LocalServer:
        folder = tmp_path_factory.mktemp("server")
        servers.append(LocalServer(answer, authority if tls else None, folder))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
    errors = [error for server in servers for error in server.errors]
    if errors:
        raise errors[0]


@pytest.fixture
def free_port() -> int:
    """A port on which nothing listens."""
    return unused_port()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, credentials or configuration of whoever runs the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "kubeconfig"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between retries end at once."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
