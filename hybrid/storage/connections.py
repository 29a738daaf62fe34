"""HTTP connections that are kept open, without redirects, proxies or anything else that stores do not need.

urllib3 would do all of this, too, but takes longer over a request than the rest of a small object's way takes. Its
errors are raised, so that they are read in one place only.
"""

import http.client
import select
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

import certifi
from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from kfp_hybrid.storage.certificates import ca_bundle

CONNECT_SECONDS = 10.0
SILENT_SECONDS = 60.0  # for which a server may neither take nor send a byte
LONG_SILENT_SECONDS = 300.0  # the same while it stores a part, which may wait for others, or puts all together
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
    headers: http.client.HTTPMessage
    data: bytes

    def read(self, cache_content: bool = True) -> bytes:
        """The body."""
        return self.data

    def close(self) -> None:
        """Nothing is left to be closed."""

    def release_conn(self) -> None:
        """Nothing is left to be released."""


class Connections:
    """Connections to any hosts, for any number of threads."""

    def __init__(self) -> None:
        self._idle: defaultdict[tuple[str, str], deque[HTTPConnection]] = defaultdict(deque)
        bundle = ca_bundle("AWS_CA_BUNDLE", "SSL_CERT_FILE")  # named wrongly, it is to be said at once
        self._certificates = bundle or certifi.where()
        self._context: ssl.SSLContext | None = None

    def request(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        """Send a request and read its whole answer.

        Raises:
            urllib3.exceptions.HTTPError: the server cannot be reached, or does not answer as it should.
        """
        parts = urlsplit(url)
        idle = self._idle[parts.scheme, parts.netloc]
        with _errors_of_urllib3(parts.netloc):
            connection = _take(idle) or self._open(parts.scheme, parts.hostname or "", parts.port)
            try:
                connection.sock.settimeout(LONG_SILENT_SECONDS if method in ("PUT", "POST") else SILENT_SECONDS)
                target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
                connection.request(method, target, _in_pieces(body), headers)
                response = connection.getresponse()
                answer = Answer(response.status, response.headers, response.read())
            except BaseException:
                connection.close()
                raise
        if connection.sock:
            idle.append(connection)
        return answer

    def clear(self) -> None:
        """Close what is open."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    def _open(self, scheme: str, host: str, port: int | None) -> HTTPConnection:
        if scheme == "https":
            self._context = self._context or ssl.create_default_context(cafile=self._certificates)
            connection: HTTPConnection = HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=self._context)
        else:
            connection = HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
        except ssl.SSLError:
            raise
        except socket.gaierror as error:
            raise NameResolutionError(host, connection, error) from error  # type: ignore[arg-type]
        except TimeoutError as error:
            raise ConnectTimeoutError(f"{host} does not answer within {CONNECT_SECONDS:g} s") from error
        except OSError as error:
            raise NewConnectionError(connection, str(error)) from error  # type: ignore[arg-type]
        return connection


def _take(idle: deque[HTTPConnection]) -> HTTPConnection | None:
    """A connection that the server has not closed meanwhile."""
    while idle:
        try:
            connection = idle.pop()
        except IndexError:  # another thread was faster
            return None
        poll = select.poll()
        poll.register(connection.sock, select.POLLIN)
        if not poll.poll(0):
            return connection
        connection.close()
    return None


def _in_pieces(body: bytes | None) -> bytes | Iterator[memoryview] | None:
    """The time in which a socket has to send counts for a piece, so that a slow way is not taken for a dead one."""
    if not body or len(body) <= PIECE_BYTES:
        return body
    view = memoryview(body)
    return (view[start : start + PIECE_BYTES] for start in range(0, len(body), PIECE_BYTES))


@contextmanager
def _errors_of_urllib3(host: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise SSLError(error) from error
    except TimeoutError as error:
        raise ReadTimeoutError(None, host, f"{host} was silent for too long") from error  # type: ignore[arg-type]
    except (OSError, HTTPException) as error:
        raise ProtocolError(f"the connection to {host} broke off", error) from error
