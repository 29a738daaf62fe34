"""Google Cloud's REST interfaces, with the credentials of the step and with patience for passing trouble."""

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import requests
import tenacity
from google.auth import default, exceptions
from google.auth.credentials import Credentials
from google.auth.transport.requests import AuthorizedSession

from kfp_hybrid.step import StepError

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
PASSING = {429, 500, 502, 503, 504}
PATIENCE = 300.0  # seconds of trying again
REQUEST_TIMEOUT = 60.0  # seconds for one request
POLL_SECONDS = 10.0

log = logging.getLogger(__name__)


class ConflictError(StepError):
    """Somebody else has changed the thing since it was read."""


class NotFoundError(StepError):
    """There is no such thing."""


class _PassingError(Exception):
    """What may go away by itself; the message is what to say when it does not."""


class GoogleApi:
    """One of Google Cloud's REST interfaces. What can be tried again is, with growing pauses, and that is logged."""

    def __init__(
        self,
        address: str,
        credentials: Credentials | None = None,
        *,
        patience: float = PATIENCE,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Prepare to call an interface; nothing is contacted yet, except for where the credentials come from.

        Args:
            address: Where it is, such as https://europe-west4-aiplatform.googleapis.com.
            credentials: Whom to call as; the step's service account when left out.
            patience: How long to try again, in seconds.
            poll_seconds: How long to wait between two looks at an operation.

        Raises:
            StepError: there are no credentials here.
        """
        if credentials is None:
            try:
                credentials, _ = default(scopes=[SCOPE])
            except exceptions.GoogleAuthError as error:
                raise StepError(
                    f"no Google Cloud credentials: {_line(error)}; run the step with a service account"
                ) from None
        self._session = AuthorizedSession(credentials)
        self._address = address.rstrip("/")
        self._patience = patience
        self._poll_seconds = poll_seconds

    def get(self, path: str, *, what: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Read something.

        Args:
            path: Its path, without the first slash.
            what: What is being done, to begin an error message with.
            query: What comes after the question mark.

        Raises:
            StepError: it was refused, or there was no usable answer in all that time.
        """
        return self._call("GET", path, what, query=query)

    def post(self, path: str, body: Mapping[str, Any], *, what: str) -> dict[str, Any]:
        """Ask for a change which does no harm when it is made twice: after a cut connection it is asked for again.

        Raises:
            StepError: as for `get`.
        """
        return self._call("POST", path, what, body=body)

    def patch(self, path: str, body: Mapping[str, Any], *, fields: str, what: str) -> dict[str, Any]:
        """Change some fields of something.

        Args:
            path: Its path, without the first slash.
            body: Their new values, and the `etag` of what they were read from.
            fields: Their names, with commas between them.
            what: What is being done, to begin an error message with.

        Raises:
            ConflictError: it is no longer what was read.
            StepError: as for `get`.
        """
        return self._call("PATCH", path, what, query={"updateMask": fields}, body=body)

    def list(
        self, path: str, items: str, *, what: str, query: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Read all pages of a list.

        Args:
            path: Its path, without the first slash.
            items: The name of the list in the answer, such as "endpoints".
            what: What is being done, to begin an error message with.
            query: What comes after the question mark.

        Raises:
            StepError: as for `get`.
        """
        page = ""
        while True:
            answer = self.get(path, what=what, query={**(query or {}), **({"pageToken": page} if page else {})})
            yield from answer.get(items, [])
            page = answer.get("nextPageToken", "")
            if not page:
                return

    def wait(self, operation: Mapping[str, Any], *, what: str) -> dict[str, Any]:
        """Wait for a long-running operation.

        Returns:
            Its response.

        Raises:
            StepError: it failed.
        """
        while not operation.get("done"):
            time.sleep(self._poll_seconds)
            operation = self.get(f"v1/{operation['name']}", what=what)
        if "error" in operation:
            raise StepError(f"{what}: {_line(operation['error'].get('message') or 'the operation failed')}")
        return operation.get("response", {})

    def _call(
        self,
        method: str,
        path: str,
        what: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PassingError),
            wait=tenacity.wait_random_exponential(multiplier=1, max=30),
            stop=tenacity.stop_after_delay(self._patience),
            before_sleep=lambda state: log.warning("%s; trying again", state.outcome and state.outcome.exception()),
            reraise=True,
        )
        try:
            return attempts(self._request, method, f"{self._address}/{path}", what, query, body)
        except _PassingError as error:
            raise StepError(f"{error}; gave up after {self._patience:g} s, run the step again later") from None

    def _request(
        self, method: str, url: str, what: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        try:
            response = self._session.request(method, url, params=query, json=body, timeout=REQUEST_TIMEOUT)
            answer = response.json()
        except exceptions.TransportError as error:
            raise _PassingError(f"{what}: getting a token: {_line(error)}") from None
        except exceptions.GoogleAuthError as error:
            raise StepError(f"{what}: the credentials are not accepted: {_line(error)}") from None
        except requests.exceptions.JSONDecodeError:
            answer = {}
        except requests.exceptions.RequestException as error:
            raise _PassingError(f"{what}: {_line(error)}") from None
        if response.ok and isinstance(answer, dict):
            return answer
        reason = f"{what}: {response.status_code} {_refusal(answer) or response.reason}"
        if response.status_code in PASSING or response.ok:
            raise _PassingError(reason)
        kind, advice = _REFUSALS.get(response.status_code, (StepError, ""))
        raise kind(reason + advice)


_REFUSALS: dict[int, tuple[type[StepError], str]] = {
    401: (StepError, "; is the service account of the run still there?"),
    403: (StepError, "; grant this to the service account of the run, and see that the API is enabled in the project"),
    404: (NotFoundError, ""),
    409: (ConflictError, ""),
    412: (ConflictError, ""),
}


def _refusal(answer: Any) -> str:
    """What Google says in the body of an error."""
    error = answer.get("error") if isinstance(answer, dict) else None
    return _line(error.get("message", "")) if isinstance(error, dict) else ""


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
