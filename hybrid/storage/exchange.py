"""One request and its answer over a connection, by HTTP/1.1 as far as stores speak it."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from urllib3 import HTTPHeaderDict
from urllib3.exceptions import ProtocolError

AHEAD_BYTES = 64 << 10  # what is taken from the socket at once of what is small
LINE_BYTES = 64 << 10
HEADERS = 100
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Answer:
    """An answer that was read to its end, as the minio client takes it.

    Attributes:
        status: the HTTP status.
        headers: case does not matter in their names.
        data: the body.
    """

    status: int
    headers: HTTPHeaderDict
    data: bytes

    def read(self, cache_content: bool = True) -> bytes:
        """The body."""
        return self.data

    def close(self) -> None:
        """Nothing is left to be closed."""

    def release_conn(self) -> None:
        """Nothing is left to be released."""


class Connection:
    """A connection to a server, for one request at a time.

    Attributes:
        sock: the socket, to be given timeouts.
        is_open: whether another request may follow.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.is_open = True
        self._file = sock.makefile("rb", AHEAD_BYTES)

    def close(self) -> None:
        """Close it."""
        self.is_open = False
        self._file.close()
        self.sock.close()

    def send(self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        """Send a request.

        Raises:
            OSError: the connection broke.
            ValueError: a header is none.
        """
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if method in ("PUT", "POST") and "Content-Length" not in headers:
            lines.append(f"Content-Length: {len(body or b'')}")
        head = "\r\n".join(lines)
        if head.count("\r") != len(lines) - 1 or head.count("\n") != len(lines) - 1:
            raise ValueError("a line break in a header of the request")
        view = memoryview(f"{head}\r\n\r\n".encode("latin-1") + (body or b"")[:AHEAD_BYTES])
        self.sock.sendall(view)
        view = memoryview(body or b"")
        # The time in which a socket has to send counts for a piece, so that a slow way is not taken for a dead one.
        for start in range(AHEAD_BYTES, len(view), PIECE_BYTES):
            self.sock.sendall(view[start : start + PIECE_BYTES])

    def receive(self, method: str) -> Answer:
        """Read the whole answer to a request; afterwards the connection is closed if the server wants that.

        Raises:
            OSError: the connection broke.
            urllib3.exceptions.ProtocolError: it ended too early, or this is no HTTP.
        """
        status = 100
        while status < 200:  # what comes before the answer
            version, status = self._status()
            headers = self._headers()
        length = headers.get("Content-Length")
        keeps = version == b"HTTP/1.1" and headers.get("Connection", "").lower() != "close"
        if method == "HEAD" or status in (204, 304):
            data = b""
        elif headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = self._chunks()
        elif length is not None:
            data = self._exactly(_number(length, 10))
        else:
            data, keeps = self._file.read(), False
        if not keeps:
            self.close()
        return Answer(status, headers, data)

    def _status(self) -> tuple[bytes, int]:
        version, _, rest = self._line().partition(b" ")
        if not version.startswith(b"HTTP/1."):
            raise ProtocolError("the server does not speak HTTP/1.1")
        return version, _number(rest[:3], 10)

    def _headers(self) -> HTTPHeaderDict:
        headers = HTTPHeaderDict()
        for _ in range(HEADERS):
            if not (line := self._line()):
                return headers
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon:
                raise ProtocolError("the answer has a header without a colon")
            headers.add(name, value.strip())
        raise ProtocolError(f"the answer has more than {HEADERS} headers")

    def _chunks(self) -> bytes:
        chunks = []
        while size := _number(self._line().partition(b";")[0], 16):
            chunks.append(self._exactly(size))
            self._line()
        self._headers()  # that may follow
        return b"".join(chunks)

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise ProtocolError(f"the answer ended after {len(data)} of {size} bytes")
        return data

    def _line(self) -> bytes:
        line = self._file.readline(LINE_BYTES)
        if not line.endswith(b"\n"):
            raise ProtocolError("the answer ended in its headers" if len(line) < LINE_BYTES else "a header is too long")
        return line.rstrip(b"\r\n")


def _number(text: str | bytes, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise ProtocolError("the answer has something else where a number belongs")
    return number
