"""How Google Cloud is called: with the credentials of whoever starts a command, and patience for passing trouble."""

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import requests
import tenacity
import urllib3
from google.api_core.exceptions import GoogleAPICallError, from_http_response
from google.auth import default
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError

from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import VertexProfile
from kfp_hybrid.targets.reality import reason

if TYPE_CHECKING:  # these take seconds to import; each command pays for those that it needs
    from google.auth.credentials import Credentials
    from google.auth.transport.requests import AuthorizedSession
    from google.cloud.aiplatform_v1 import PipelineServiceClient, ScheduleServiceClient
    from google.cloud.storage import Client as StorageClient

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
CONSOLE = "https://console.cloud.google.com/vertex-ai"
SIGN_IN = "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
TIMEOUT = 60.0
"""Seconds for one request."""
PATIENCE = 120.0
"""Seconds of trying again."""
USER = "roles/aiplatform.user"

# What may go away by itself.
_PASSING = {408, 429, 500, 502, 503, 504}
_TROUBLE = (GoogleAPICallError, GoogleAuthError, requests.RequestException)

T = TypeVar("T")

log = logging.getLogger(__name__)


class Client:
    """The services of Google Cloud, as a profile describes them."""

    def __init__(self, profile: VertexProfile, *, patience: float = PATIENCE) -> None:
        """Prepare to call Google Cloud; nothing is contacted yet.

        Args:
            profile: The project, region and what else a target has.
            patience: How long to try again, in seconds.
        """
        self.profile = profile
        self.patience = patience

    @property
    def parent(self) -> str:
        """The resource name of the region in the project."""
        return f"projects/{self.profile.project}/locations/{self.profile.location}"

    @property
    def endpoint(self) -> str:
        """The address of the Vertex AI API."""
        return self.profile.api_endpoint or f"https://{self.profile.location}-aiplatform.googleapis.com"

    def page(self, kind: str, name: str) -> str:
        """The console's page of a resource, such as the run ("runs") with this resource name."""
        return (
            f"{CONSOLE}/locations/{self.profile.location}/pipelines/{kind}/{name.rpartition('/')[2]}"
            f"?project={self.profile.project}"
        )

    @functools.cached_property
    def credentials(self) -> "Credentials":
        """Whose rights are used: application default credentials.

        Raises:
            UserError: there are none.
        """
        for name in ("google.auth._default", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.ERROR)  # they warn of a missing project, and of what `call` says
        try:
            return default(scopes=[SCOPE])[0]
        except (GoogleAuthError, OSError) as error:
            why = _line(error).partition(". To set up")[0]  # which goes on with the address of a page
            raise UserError(f"there are no usable Google Cloud credentials ({why}); {SIGN_IN}") from None

    @functools.cached_property
    def jobs(self) -> "PipelineServiceClient":
        """Pipeline jobs."""
        from google.cloud.aiplatform_v1 import PipelineServiceClient

        options = {"api_endpoint": self.endpoint}
        return PipelineServiceClient(credentials=self.credentials, transport="rest", client_options=options)

    @functools.cached_property
    def schedules(self) -> "ScheduleServiceClient":
        """Schedules of pipeline jobs."""
        from google.cloud.aiplatform_v1 import ScheduleServiceClient

        options = {"api_endpoint": self.endpoint}
        return ScheduleServiceClient(credentials=self.credentials, transport="rest", client_options=options)

    @functools.cached_property
    def storage(self) -> "StorageClient":
        """Cloud Storage."""
        from google.cloud.storage import Client as StorageClient

        return StorageClient(project=self.profile.project, credentials=self.credentials)

    @functools.cached_property
    def session(self) -> "AuthorizedSession":
        """For services that have no client library here."""
        from google.auth.transport.requests import AuthorizedSession

        return AuthorizedSession(self.credentials)

    def get(self, url: str) -> dict[str, Any]:
        """Read JSON from a service that has no client library here."""
        return _answer(self.session.get(url, timeout=TIMEOUT))

    def post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send JSON to a service that has no client library here, and return its answer."""
        return _answer(self.session.post(url, json=body, timeout=TIMEOUT))

    def call(self, doing: str, function: Callable[[], T], *, role: str = USER, again: bool = True) -> T:
        """Call a service; what can pass is tried again with growing pauses, and that is logged.

        Args:
            doing: What is being done, such as "start the run", for messages.
            function: Does it.
            role: What whoever is refused should ask for.
            again: Whether doing it twice is no worse than once.

        Raises:
            UserError: it was refused, or there was no answer in all that time.
        """
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: again and _may_pass(error)),
            wait=tenacity.wait_random_exponential(multiplier=1, max=20),
            stop=tenacity.stop_after_delay(self.patience),
            before_sleep=lambda state: log.warning("cannot %s: %s; trying again", doing, _said(_failure(state))),
            reraise=True,
        )
        try:
            return attempts(function)
        except _TROUBLE as error:
            what = f"cannot {doing}: {_said(error)}"
            if _may_pass(error) and again:
                what += f"; gave up after {self.patience:g} s, try again later"
            elif _may_pass(error):
                what += "; it may have been done all the same, so look before you try again"
            raise UserError(what + self._advice(error, role)) from None

    def _advice(self, error: BaseException, role: str) -> str:
        """What to do about a refusal."""
        error = _cause(error)
        code, said = _code(error), _said(error)
        if code == requests.codes.unauthorized or isinstance(error, RefreshError):
            return f"; {SIGN_IN}"
        if code == requests.codes.not_found:
            return f"; see that project {self.profile.project} and location {self.profile.location} are right"
        if code == requests.codes.too_many_requests:
            return "; if that goes on, ask for more quota in the console (IAM & Admin, Quotas)"
        if code != requests.codes.forbidden:
            return ""
        if getattr(error, "reason", None) == "SERVICE_DISABLED":
            service = (getattr(error, "metadata", None) or {}).get("service", "aiplatform.googleapis.com")
            return f"; run `gcloud services enable {service} --project {self.profile.project}`"
        if "act as" in said or "actAs" in said:
            account = self.profile.service_account or "the service account of Compute Engine"
            return f"; ask for roles/iam.serviceAccountUser on {account}"
        return f"; ask for {role} in project {self.profile.project}"


def _answer(response: requests.Response) -> dict[str, Any]:
    if not response.ok:
        raise from_http_response(response)
    return response.json()


def _failure(state: tenacity.RetryCallState) -> BaseException:
    assert state.outcome
    return state.outcome.exception() or AssertionError("it did not fail")


def _may_pass(error: BaseException) -> bool:
    error = _cause(error)
    if (code := _code(error)) is not None:
        return code in _PASSING
    # A wrong certificate or name stays wrong, although requests counts both among the connections that fail.
    if isinstance(error, requests.exceptions.SSLError) or _is_unknown_host(error):
        return False
    return isinstance(error, requests.RequestException | TransportError)


def _is_unknown_host(error: BaseException) -> bool:
    pool = next(iter(error.args), None)
    return isinstance(getattr(pool, "reason", None), urllib3.exceptions.NameResolutionError)


def _cause(error: BaseException) -> BaseException:
    """What the clients, each in its way, have made of an answer or of its absence."""
    response = getattr(error, "response", None)
    if isinstance(response, requests.Response):
        return from_http_response(response)
    wrapped = next(iter(error.args), None) if isinstance(error, TransportError) else None
    return wrapped if isinstance(wrapped, requests.RequestException) else error


def _code(error: BaseException) -> int | None:
    """The HTTP status of a refusal; None when there was no answer."""
    cause = _cause(error)
    return cause.code if isinstance(cause, GoogleAPICallError) else None


def _said(error: BaseException) -> str:
    """What went wrong, in one line."""
    error = _cause(error)
    if isinstance(error, GoogleAPICallError):
        # Before the colon stand the method and address.
        return _line(f"{error.code} {error.message.partition(': ')[2] or error.message}")
    if isinstance(error, requests.RequestException):
        host = urlsplit(error.request.url if error.request is not None else "").netloc
        why = f"no answer within {TIMEOUT:.0f} s" if isinstance(error, requests.Timeout) else reason(error)
        return _line(f"cannot reach {host or 'Google Cloud'}: {why}")
    return _line(error)


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
