"""What S3 stores and the way to them answer, in one line that says what to do."""

import ssl
import time
from email.utils import parsedate_to_datetime

from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import NameResolutionError, NewConnectionError, SSLError

from kfp_hybrid.storage.errors import Changed, Damaged, NotFound, StorageError

CREDENTIALS = {
    "InvalidAccessKeyId": "the store does not know the access key; check AWS_ACCESS_KEY_ID or the mounted secret",
    "SignatureDoesNotMatch": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY or the mounted secret",
    "ExpiredToken": "the session token has expired; get new credentials",
    "InvalidToken": "the session token is not valid; get new credentials, or unset AWS_SESSION_TOKEN",
    "AuthorizationHeaderMalformed": "the store expects another region; set AWS_REGION",
}


DENIALS = ("AccessDenied", "AllAccessDisabled", "MethodNotAllowed")
TOLERATED_SECONDS = 900.0  # by which S3 lets clocks differ; some stores only deny access then


def explain(error: Exception, uri: str) -> StorageError:
    """The error of the client as one line without secrets."""
    if isinstance(error, StorageError):
        return error
    if isinstance(error, S3Error):
        return _explain_answer(error, uri)
    if isinstance(error, (ServerError, InvalidResponseError)):
        status = getattr(error, "status_code", None) or getattr(error, "_code", "unknown")
        if status == 403:
            return _denied(uri)
        if status == 404:
            return NotFound(f"there is no {uri}; check the name, and that the endpoint is an S3 store")
        if status in (409, 412):
            return Changed(f"{uri} was changed by another process; try again")
        return StorageError(f"{uri}: the store answers HTTP status {status}; try again, or check the endpoint")
    if isinstance(error, SSLError):
        return _explain_tls(error, uri)
    if isinstance(error, NameResolutionError):
        return StorageError(f"{uri}: the host of the endpoint is unknown; check the endpoint and the network")
    if isinstance(error, NewConnectionError):
        return StorageError(f"{uri}: nothing answers at the endpoint; check it, and that the store is running")
    what = type(error).__name__
    return StorageError(f"{uri}: the connection to the store failed again and again ({what}); try again later")


def _explain_answer(error: S3Error, uri: str) -> StorageError:
    code = error.code
    skew = _skew_seconds(error)
    is_skewed = skew is not None and abs(skew) > TOLERATED_SECONDS
    if code == "RequestTimeTooSkewed" or (is_skewed and code in (*DENIALS, "BadRequest", "SignatureDoesNotMatch")):
        return StorageError(f"{uri}: {_skew(skew)}; set the clock, for instance by NTP")
    if code in CREDENTIALS:
        return StorageError(f"{uri}: {CREDENTIALS[code]}")
    if code == "NoSuchBucket":
        return NotFound(f"{uri}: there is no such bucket; check its name and the endpoint, or make it")
    if code == "NoSuchUpload":
        return Damaged(f"{uri}: the store gave the upload up; try again")
    if code in ("NoSuchKey", "ResourceNotFound"):
        return NotFound(f"there is no object {uri}; check the name")
    if code in ("BadDigest", "XAmzContentSHA256Mismatch"):
        return Damaged(f"{uri}: the bytes changed on their way; try again")
    if code in ("PreconditionFailed", "ConditionalRequestConflict"):
        return Changed(f"{uri} was changed by another process; try again")
    if code in DENIALS:
        return _denied(uri)
    status = getattr(error.response, "status", "")
    return StorageError(f"{uri}: the store refuses the request: {code} (HTTP status {status}); see its log")


def _denied(uri: str) -> StorageError:
    return StorageError(f"{uri}: access denied; check the credentials and what they may do there")


def _skew_seconds(error: S3Error) -> float | None:
    """By how much this machine's clock is ahead of the store's, None when the answer does not tell."""
    try:
        return time.time() - parsedate_to_datetime(error.response.headers["Date"]).timestamp()
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _skew(seconds: float | None) -> str:
    if seconds is None:
        return "this machine's clock differs too much from the store's"
    return f"this machine's clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the store's"


def _explain_tls(error: SSLError, uri: str) -> StorageError:
    reason = error.args[0] if error.args else None
    if isinstance(reason, ssl.SSLCertVerificationError):
        return StorageError(
            f"{uri}: the store's TLS certificate is not trusted ({reason.verify_message}); "
            "set AWS_CA_BUNDLE to the site's CA certificates"
        )
    return StorageError(f"{uri}: no TLS connection; use http:// in the endpoint if the store does not speak TLS")
