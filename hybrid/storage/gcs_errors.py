"""What Google Cloud Storage and the way to it answer: what to try again, and what to say in one line."""

import logging

import requests
from google.api_core import exceptions
from google.api_core.retry import Retry
from google.auth import exceptions as auth_exceptions
from google.resumable_media import DataCorruption, InvalidResponse

from kfp_hybrid.storage.errors import Changed, Damaged, NotFound, StorageError
from kfp_hybrid.storage.retries import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, deadline_seconds

PASSING_STATUSES = (408, 429, 500, 502, 503, 504)

log = logging.getLogger(__name__)


def make_retry() -> Retry:
    """Retries as the client does them, with this project's deadline, and said in the log."""
    deadline = deadline_seconds()

    def say(error: Exception) -> None:
        log.warning("a request to Google Cloud Storage failed (%s); trying for at most %g s", _passing(error), deadline)

    return Retry(
        predicate=lambda error: bool(_passing(error)),
        initial=FIRST_WAIT_SECONDS,
        maximum=LONGEST_WAIT_SECONDS,
        timeout=deadline,
        on_error=say,
    )


def explain(error: Exception, uri: str) -> StorageError:
    """The error of the client as one line without secrets."""
    if isinstance(error, exceptions.RetryError):
        return _unreachable(error.cause, uri)
    status = _status(error)
    if status == 404:
        return NotFound(f"there is no {uri}, or no such bucket; check the name")
    if status == 412:
        return Changed(f"{uri} was changed by another process; try again")
    if status == 401 or isinstance(error, auth_exceptions.InvalidOperation):
        return StorageError(f"{uri}: Google does not accept the credentials; get new ones")
    if status == 403:
        return StorageError(f"{uri}: access denied; check the credentials and what they may do there")
    if isinstance(error, auth_exceptions.DefaultCredentialsError):
        return StorageError(
            f"{uri}: there are no Google credentials; run gcloud auth application-default login, set "
            "GOOGLE_APPLICATION_CREDENTIALS, or give the workload an identity"
        )
    if isinstance(error, auth_exceptions.RefreshError):
        return StorageError(f"{uri}: the Google credentials cannot be renewed; check the identity of the workload")
    if isinstance(error, DataCorruption):
        return Damaged(f"{uri}: the bytes changed on their way; try again")
    return _unreachable(error, uri)


def _unreachable(error: BaseException | None, uri: str) -> StorageError:
    if isinstance(error, requests.exceptions.SSLError):
        return StorageError(
            f"{uri}: the store's TLS certificate is not trusted; set SSL_CERT_FILE to the site's CA certificates"
        )
    status = _status(error)
    what = f"HTTP status {status}" if status else type(error).__name__
    return StorageError(f"{uri}: Google Cloud Storage cannot be used ({what}); check the network, and try again")


def _passing(error: BaseException) -> str:
    """A few words on an error that may be gone the next time, else ""."""
    status = _status(error)
    if status:
        return f"HTTP status {status}" if status in PASSING_STATUSES else ""
    if isinstance(error, requests.exceptions.SSLError):
        return ""
    if isinstance(error, auth_exceptions.TransportError):
        return _passing(error.args[0]) if error.args and isinstance(error.args[0], BaseException) else "TransportError"
    passing = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, ConnectionError)
    return type(error).__name__ if isinstance(error, passing) else ""


def _status(error: BaseException | None) -> int:
    if isinstance(error, exceptions.GoogleAPICallError):
        return int(error.code or 0)
    if isinstance(error, InvalidResponse):
        return int(error.response.status_code)
    return 0
