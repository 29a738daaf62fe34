"""One HTTP/1.1 connection: httptools parses, uvloop moves the bytes, nothing stands between.

One request costs a few microseconds here, because there is no object for each header, no task and no queue between the
parser and the handler.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools

if TYPE_CHECKING:
    from kfp_hybrid.serving.http import HttpServer

JSON = "application/json"
MAX_HEADER_BYTES = 32768
MAX_PIPELINED = 64  # requests of one connection that wait for their answers
LINGER_SECONDS = 2.0  # how long a peer may go on sending what is not read

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_OK_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange:
    """A request and the place for its answer.

    Attributes:
        method: GET, POST, ...
        target: the path and the query, as sent.
        headers: name in lower case -> value.
        body: the body.
        started: when the request was there as a whole, in seconds of `time.monotonic`.
        cancel: called if the client goes away before it has its answer.
    """

    __slots__ = ("_connection", "_response", "body", "cancel", "headers", "keep_alive", "method", "started", "target")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._response: bytes | None = None
        self.method = ""
        self.target = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.keep_alive = True
        self.started = 0.0
        self.cancel: Callable[[], None] | None = None

    @property
    def answered(self) -> bool:
        """Whether there is an answer already."""
        return self._response is not None

    def respond(
        self, status: int, body: bytes, content_type: str = JSON, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Answer; a second answer is dropped.

        Args:
            status: the HTTP status.
            body: the body.
            content_type: what it is.
            headers: more headers.
        """
        if self._response is not None:
            return
        keep_alive = self.keep_alive = self.keep_alive and not self._connection.server.draining
        if status == 200 and keep_alive and content_type is JSON and not headers and self.method != "HEAD":
            self._response = b"%b%d\r\n\r\n%b" % (_OK_JSON, len(body), body)
        else:
            lines = [f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n"]
            lines += [f"{name}: {value}\r\n" for name, value in headers]
            lines.append("\r\n" if keep_alive else "connection: close\r\n\r\n")
            head = _STATUS_LINES[status] + "".join(lines).encode("latin-1", "replace")
            self._response = head if self.method == "HEAD" else head + body
        self._connection.flush()


class Connection(asyncio.Protocol):
    """One connection: requests in, answers out in the same order."""

    def __init__(self, server: "HttpServer") -> None:
        self.server = server
        self._exchanges: deque[Exchange] = deque()  # those whose answers have not been written
        self._transport: Any = None
        self._parser: Any = None
        self._arriving: Exchange | None = None
        self._parts: list[bytes] = []
        self._body_bytes = 0
        self._in_headers = False
        self._header_bytes = 0  # of headers that are not complete yet
        self._refused = False  # what still comes is not read
        self._linger = False  # the peer may still be sending what is not read
        self._unread = False  # the peer does not read its answers
        self._crowded = False  # too many requests wait for their answers
        self.since = time.monotonic()  # when the request that is arriving began, or the connection was idle

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self.server.connections.add(self)
        if len(self.server.connections) > self.server.max_connections:
            self._refuse(503, "too many connections; come back later", [("retry-after", "1")])

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.server.connections.discard(self)
        self._refused = True
        self._drop_body()
        for exchange in self._exchanges:
            if exchange.cancel is not None:
                exchange.cancel()
        self._exchanges.clear()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._unread = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._unread = False
        self._resume_reading()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        rest = memoryview(data)
        while rest and not self._refused:
            rest = self._parse(rest)

    def _parse(self, data: memoryview) -> memoryview:
        """Parse, and return what another parser has to take."""
        try:
            self._parser.feed_data(data)
            if self._in_headers:
                self._count_headers(len(data))
        except httptools.HttpParserUpgrade as upgrade:
            self._stay()
            return data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if not self._refused:
                self._refuse(400, f"this is not HTTP/1.1: {error}")
        return data[:0]

    # What httptools calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._arriving = Exchange(self)
        self._in_headers = True
        self.since = time.monotonic()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        assert self._arriving is not None
        self._arriving.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        assert self._arriving is not None
        self._arriving.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The headers are there; the body may follow."""
        exchange = self._arriving
        if self._refused or exchange is None:
            return
        self._in_headers = False
        self._header_bytes = 0
        exchange.method = self._parser.get_method().decode("ascii")
        length = exchange.headers.get(b"content-length", b"0")
        if int(length) > self.server.max_body_bytes:
            self._refuse_body()
        elif exchange.headers.get(b"expect", b"").lower() == b"100-continue" and self._may_go_on():
            self._transport.write(_CONTINUE)

    def _may_go_on(self) -> bool:
        return not self._exchanges and self._parser.get_http_version() == "1.1"

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if self._refused:
            return
        self._parts.append(body)
        self._body_bytes += len(body)
        self.server.body_bytes += len(body)
        if self._body_bytes > self.server.max_body_bytes:
            self._refuse_body()
        elif self.server.body_bytes > self.server.max_total_bytes:
            self._refuse(503, "too many bodies are arriving; come back later", [("retry-after", "1")])

    def on_message_complete(self) -> None:
        """The request is there as a whole."""
        if self._parser.should_upgrade():
            return  # the parser goes no further; see _stay
        exchange, self._arriving = self._arriving, None
        if self._refused or exchange is None:
            return
        parts = self._parts
        if parts:
            exchange.body = parts[0] if len(parts) == 1 else b"".join(parts)
            self._drop_body()
        # HTTP/1.0 would have to be told that the connection is kept.
        exchange.keep_alive = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
        exchange.started = time.monotonic()
        self._exchanges.append(exchange)
        self._refused = not exchange.keep_alive
        if len(self._exchanges) >= MAX_PIPELINED:
            self._crowded = True
            self._transport.pause_reading()
        self.server.handle(exchange)

    def _stay(self) -> None:
        """Pass over the offer to go on in another protocol, which clients of HTTP/2 make, as a server may.

        The parser ends there, before the body: another one is told the same request without the offer.
        """
        exchange = self._arriving
        if exchange is None:
            return
        if exchange.method == "CONNECT":
            self._refuse(405, "this is no proxy; it takes GET, HEAD and POST", [("allow", "GET, HEAD, POST")])
            return
        head = b"%b %b HTTP/1.1\r\n" % (exchange.method.encode(), exchange.target)
        kept = [header for header in exchange.headers.items() if header[0] not in (b"upgrade", b"connection")]
        lines = b"".join(b"%b: %b\r\n" % header for header in kept)
        self._parser = httptools.HttpRequestParser(self)
        self._parse(memoryview(head + lines + b"\r\n"))

    def flush(self) -> None:
        """Write the answers that are due, in the order of the requests."""
        exchanges = self._exchanges
        while exchanges and exchanges[0]._response is not None:
            exchange = exchanges.popleft()
            self._transport.write(exchange._response)
            if not exchange.keep_alive:
                self._end()
        if not exchanges:
            self.since = time.monotonic()
            if self._crowded:
                self._crowded = False
                self._resume_reading()

    @property
    def busy(self) -> bool:
        """Whether a request is arriving or waits for its answer."""
        return bool(self._exchanges) or self._arriving is not None

    def sweep(self, now: float) -> None:
        """End what takes too long: a request to arrive or to be answered, an idle connection."""
        for exchange in [e for e in self._exchanges if not e.answered and now - e.started > self.server.answer_seconds]:
            if exchange.cancel is not None:
                exchange.cancel()
            exchange.respond(503, self.server.error(f"there was no answer within {self.server.answer_seconds:g} s"))
        if self._refused:
            if not self._exchanges and now - self.since > LINGER_SECONDS:
                self._transport.abort()
        elif self._arriving is not None and now - self.since > self.server.read_seconds:
            self._refuse(408, f"the request did not arrive within {self.server.read_seconds:g} s")
        elif not self.busy and now - self.since > self.server.idle_seconds:
            self._transport.close()

    def close_if_idle(self, before: float) -> None:
        """End the connection if it is idle since a moment before the given one, in seconds of `time.monotonic`."""
        if not self.busy and self.since < before:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _end(self) -> None:
        """End the connection after the answer that was written last.

        Where the peer is still sending, closing at once would reset the connection before it has read the answer.
        """
        self._refused = True
        self._exchanges.clear()
        if self._linger:
            self._transport.write_eof()
        else:
            self._transport.close()

    def _count_headers(self, size: int) -> None:
        """Bound what arrives before the headers are complete."""
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES and not self._refused:
            self._refuse(431, f"the headers are longer than {MAX_HEADER_BYTES} bytes")

    def _refuse_body(self) -> None:
        self._refuse(413, f"the body is longer than {self.server.max_body_bytes} bytes; send fewer rows at a time")

    def _refuse(self, status: int, message: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer what cannot be read any further, after the answers that are still due, and end the connection."""
        exchange = self._arriving or Exchange(self)
        self._arriving = None
        self._refused = True
        self._drop_body()
        exchange.keep_alive = False
        self._exchanges.append(exchange)
        self._linger = True
        exchange.respond(status, self.server.error(message), headers=headers)

    def _drop_body(self) -> None:
        self.server.body_bytes -= self._body_bytes
        self._parts = []
        self._body_bytes = 0

    def _resume_reading(self) -> None:
        if not (self._unread or self._crowded or self._transport.is_closing()):
            self._transport.resume_reading()
