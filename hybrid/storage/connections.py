"""HTTP connections that are kept open, without redirects, proxies or anything else that stores do not need.

urllib3 would do all of this, too, but takes longer over a request than the rest of a small object's way takes. Its
errors are raised, so that they are read in one place only.
"""

import select
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from kfp_hybrid.storage.exchange import Answer, Connection

CONNECT_SECONDS = 10.0
SILENT_SECONDS = 60.0  # for which a server may neither take nor send a byte
LONG_SILENT_SECONDS = 300.0  # the same while it stores a part, which may wait for others, or puts all together


class Connections:
    """Connections to any hosts, for any number of threads."""

    def __init__(self) -> None:
        self._idle: defaultdict[tuple[str, str], deque[Connection]] = defaultdict(deque)
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
                connection.send(method, target, body, headers)
                answer = connection.receive(method)
            except BaseException:
                connection.close()
                raise
        if connection.is_open:
            idle.append(connection)
        return answer

    def clear(self) -> None:
        """Close what is open."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    def _open(self, scheme: str, host: str, port: int | None) -> Connection:
        secure = scheme == "https"
        try:
            sock = socket.create_connection((host, port or (443 if secure else 80)), CONNECT_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if secure:
                self._context = self._context or ssl.create_default_context(cafile=self._certificates)
                sock = self._context.wrap_socket(sock, server_hostname=host)
        except ssl.SSLError:
            raise
        except socket.gaierror as error:
            raise NameResolutionError(host, None, error) from error  # type: ignore[arg-type]
        except TimeoutError as error:
            raise ConnectTimeoutError(f"{host} does not answer within {CONNECT_SECONDS:g} s") from error
        except OSError as error:
            raise NewConnectionError(None, str(error)) from error  # type: ignore[arg-type]
        return Connection(sock)


def _take(idle: deque[Connection]) -> Connection | None:
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


@contextmanager
def _errors_of_urllib3(host: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise SSLError(error) from error
    except TimeoutError as error:
        raise ReadTimeoutError(None, host, f"{host} was silent for too long") from error  # type: ignore[arg-type]
    except OSError as error:
        raise ProtocolError(f"the connection to {host} broke off", error) from error
