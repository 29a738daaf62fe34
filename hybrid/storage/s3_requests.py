"""Requests to S3 stores, each repeated until it has its whole answer."""

import ssl
from typing import Any

import certifi
import urllib3
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, SSLError

from kfp_hybrid.storage.certificates import ca_bundle
from kfp_hybrid.storage.retries import retry

CONNECTIONS = 32
CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
NO_SERVER_SECONDS = 60.0  # for refused connections: a service that is restarted is back by then
NO_NAME_SECONDS = 10.0  # for unknown hosts, which are mostly misspelt
PASSING_STATUSES = (408, 429, 500, 502, 503, 504)
PASSING_CODES = (b"RequestTimeout", b"IncompleteBody", b"SlowDown", b"InternalError")


class PassingError(Exception):
    """An answer that asks to come back later."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        super().__init__(f"HTTP status {response.status}")
        self.response = response


class RetryingPool(urllib3.PoolManager):
    """Connections that send a request until its whole answer is there, it fails for good, or the deadline is over."""

    @classmethod
    def make(cls) -> "RetryingPool":
        """A pool that trusts the site's certificates."""
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        bundle = ca_bundle("AWS_CA_BUNDLE", "SSL_CERT_FILE") or certifi.where()
        return cls(maxsize=CONNECTIONS, timeout=timeout, retries=False, cert_reqs="CERT_REQUIRED", ca_certs=bundle)

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send a request; see `urllib3.PoolManager.urlopen`.

        Answers are read at once: ranges and parts are small, and a connection that breaks off is noticed here.
        """
        options["preload_content"] = True

        def send() -> urllib3.BaseHTTPResponse:
            response = super(RetryingPool, self).urlopen(method, url, redirect=False, **options)
            if response.headers.get("Content-Type", "").startswith("text/xml"):
                response.headers["Content-Type"] = "application/xml"  # the only one that the client reads
            if _is_passing(method, response):
                raise PassingError(response)
            return response

        try:
            return retry(send, f"{method} {url.partition('?')[0]}", _passing, _patience)
        except PassingError as answer:
            return answer.response


def _is_passing(method: str, response: urllib3.BaseHTTPResponse) -> bool:
    if response.status in PASSING_STATUSES:
        return True
    if response.status < 400 and method != "POST":  # completing an upload may fail after the status was sent
        return False
    beginning = response.data[:1000]
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
