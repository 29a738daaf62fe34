"""Requests to S3 stores, each repeated until it has its whole answer."""

import ssl
from collections.abc import Mapping
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, SSLError

from kfp_hybrid.storage.connections import Connections
from kfp_hybrid.storage.exchange import Answer
from kfp_hybrid.storage.retries import retry

NO_SERVER_SECONDS = 60.0  # for refused connections: a service that is restarted is back by then
NO_NAME_SECONDS = 10.0  # for unknown hosts, which are mostly misspelt
PASSING_STATUSES = (408, 429, 500, 502, 503, 504)
PASSING_CODES = (b"RequestTimeout", b"IncompleteBody", b"SlowDown", b"InternalError")


class PassingError(Exception):
    """An answer that asks to come back later."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"HTTP status {answer.status}")
        self.answer = answer


class RetryingPool(urllib3.PoolManager):
    """Connections that send a request until its whole answer is there, it fails for good, or the deadline is over.

    A `PoolManager` because the minio client insists; it calls `urlopen` and `clear`, which are all that there is here.
    """

    def __init__(self) -> None:
        super().__init__()
        self._connections = Connections()

    def clear(self) -> None:
        """Close what is open."""
        self._connections.clear()

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, **_: Any
    ) -> Answer:
        """Send a request.

        Answers are read at once: ranges and parts are small, and a connection that breaks off is noticed here.
        """
        given = dict(headers or {})

        def send() -> Answer:
            answer = self._connections.request(method, url, body, given)
            if answer.headers.get("Content-Type", "").startswith("text/xml"):
                answer.headers["Content-Type"] = "application/xml"  # the only one that the client reads
            if _is_passing(method, answer):
                raise PassingError(answer)
            return answer

        try:
            return retry(send, f"{method} {url.partition('?')[0]}", _passing, _patience)
        except PassingError as error:
            return error.answer


def _is_passing(method: str, answer: Answer) -> bool:
    if answer.status in PASSING_STATUSES:
        return True
    if answer.status < 400 and method != "POST":  # completing an upload may fail after the status was sent
        return False
    beginning = answer.data[:1000]
    return b"<Error>" in beginning and any(b"<Code>%b</Code>" % code in beginning for code in PASSING_CODES)


def _passing(error: BaseException) -> str:
    if isinstance(error, PassingError):
        return str(error)
    if isinstance(error, SSLError) and isinstance(error.args[0], ssl.SSLCertVerificationError):
        return ""
    return type(error).__name__ if isinstance(error, (HTTPError, ConnectionError, TimeoutError)) else ""


def _patience(error: BaseException) -> float:
    if isinstance(error, NameResolutionError):
        return NO_NAME_SECONDS
    return NO_SERVER_SECONDS if isinstance(error, NewConnectionError) else float("inf")
