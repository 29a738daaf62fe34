"""How Kubeflow Pipelines is called: the sign-in of a profile, certificates, and patience for passing trouble."""

import contextlib
import functools
import io
import json
import logging
import os
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import kfp.client
import kfp_server_api
import tenacity
import urllib3
from kfp.client.token_credentials_base import TokenCredentialsBase
from kfp_server_api.rest import RESTClientObject

from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import KubeflowProfile
from kfp_hybrid.profiles.models import Auth, CookieAuth, PortForwardAuth, ServiceAccountAuth, TokenAuth
from kfp_hybrid.targets.kubeflow.port_forward import PortForward
from kfp_hybrid.targets.reality import reason

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

CONNECT_TIMEOUT, READ_TIMEOUT = 10.0, 60.0
"""Seconds to wait for a connection, and for each part of an answer."""
PATIENCE = 120.0
"""Seconds of trying again."""
PAUSE = 20.0
"""The longest pause between two tries, seconds."""

# What may go away by itself.
_PASSING = {429, 500, 502, 503, 504}

T = TypeVar("T")

log = logging.getLogger(__name__)


class Trouble(Exception):
    """A call that did not come to its answer.

    Attributes:
        status: The HTTP status; 0 when there was no answer.
        said: What the server or the connection said, in one line.
        passing: Whether it may go away by itself.
    """

    def __init__(self, status: int, said: str, *, passing: bool) -> None:
        super().__init__(said)
        self.status = status
        self.said = said
        self.passing = passing


class SignedOut(Trouble):
    """Instead of an answer came the way to a login page."""

    def __init__(self, said: str) -> None:
        super().__init__(401, said, passing=False)


class Client:
    """One installation of Kubeflow Pipelines, as a profile describes it."""

    def __init__(self, profile: KubeflowProfile, *, patience: float = PATIENCE) -> None:
        """Prepare to call Kubeflow Pipelines; nothing is contacted yet.

        Args:
            profile: The host, the sign-in and what else a target has.
            patience: How long to try again, in seconds.
        """
        self.profile = profile
        self.patience = patience

    @functools.cached_property
    def address(self) -> str:
        """Where the API is: the profile's host, or this end of a port-forward, which begins now and ends with Python.

        Raises:
            UserError: the port-forward cannot be made.
        """
        if isinstance(self.profile.auth, PortForwardAuth):
            return PortForward(self.profile.auth).open()
        return (self.profile.host or "").rstrip("/")

    @property
    def host(self) -> str:
        """What to call the installation in messages."""
        auth = self.profile.auth
        if isinstance(auth, PortForwardAuth):
            return f"service {auth.service} in namespace {auth.namespace}"
        return self.profile.host or ""

    def page(self, fragment: str) -> str:
        """The address of a page of the console, "" where only a port-forward leads to it."""
        return f"{self.profile.host.rstrip('/')}/#/{fragment}" if self.profile.host else ""

    @functools.cached_property
    def kfp(self) -> kfp.client.Client:
        """kfp's client, signed in.

        Raises:
            UserError: the token or cookie cannot be read, or the port-forward cannot be made.
        """
        auth = self.profile.auth
        bundle = self.profile.ca_bundle
        if bundle and not bundle.is_file():
            raise UserError(f"there is no file {bundle}, which the profile names as ca_bundle")
        with _without_variables("KF_PIPELINES_"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            client = _QuietClient(
                host=self.address,
                namespace=self.profile.namespace or "",
                credentials=_TokenFile(auth) if isinstance(auth, TokenAuth | ServiceAccountAuth) else None,
                cookies=auth.cookie() if isinstance(auth, CookieAuth) else None,
                ssl_ca_cert=str(bundle) if bundle else None,
                proxy=_proxy(self.address),
            )
        api = client.runs.api_client
        api.configuration.retries = False  # `call` tries again, and says so; urllib3 would do it in silence
        api.rest_client = _Transport(api.configuration)
        return client

    @functools.cached_property
    def core(self) -> "CoreV1Api | None":
        """The Kubernetes API, when the profile has a kubeconfig."""
        auth = self.profile.auth
        return PortForward(auth).core() if isinstance(auth, PortForwardAuth) else None

    @property
    def cluster_namespace(self) -> str:
        """The namespace in which steps run, as far as the profile knows it."""
        auth = self.profile.auth
        return self.profile.namespace or (auth.namespace if isinstance(auth, PortForwardAuth) else "kubeflow")

    def get(self, path: str, query: dict[str, str] | None = None, *, raw: bool = False) -> Any:
        """Read what kfp's client has no method for: the decoded JSON, or the response itself when it is `raw`."""
        return self.kfp.runs.api_client.call_api(
            path, "GET", query_params=list((query or {}).items()), response_type="object", auth_settings=["Bearer"],
            _preload_content=not raw, _return_http_data_only=True,
        )  # fmt: skip

    def call(self, doing: str, function: Callable[[], T], *, made: Callable[[], T | None] | None = None) -> T:
        """Call the API; what can pass is tried again with growing pauses, and that is logged.

        Args:
            doing: What is being done, such as "start the run", for messages.
            function: Does it. Without `made`, doing it twice must be no worse than once.
            made: Looks for what an earlier try may have made although its answer was lost; None when there is nothing.

        Raises:
            UserError: it was refused, or there was no answer in all that time.
        """
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, Trouble) and error.passing),
            wait=tenacity.wait_random_exponential(multiplier=1, max=PAUSE),
            stop=tenacity.stop_after_delay(self.patience),
            before_sleep=lambda state: log.warning(
                "cannot %s: %s; trying again", doing, state.outcome.exception() if state.outcome else ""
            ),
            reraise=True,
        )
        try:
            for attempt in attempts:
                with attempt, contextlib.redirect_stdout(io.StringIO()):  # kfp prints links
                    earlier = made() if made and attempt.retry_state.attempt_number > 1 else None
                    return function() if earlier is None else earlier
        except Trouble as trouble:
            gave_up = f"; gave up after {self.patience:g} s, try again later" if trouble.passing else ""
            raise UserError(f"cannot {doing}: {trouble}{gave_up}{self._advice(trouble)}") from None
        except kfp_server_api.OpenApiException as error:  # an answer, or a question, that its models do not fit
            raise UserError(f"cannot {doing}: {_line(error)}") from None
        raise AssertionError("tenacity ends with a result or an error")

    def _advice(self, trouble: Trouble) -> str:
        """What to do about a refusal."""
        auth = self.profile.auth
        if trouble.status == 401:
            return f"; {_how_to_sign_in(auth)}"
        if trouble.status == 403:
            where = f"namespace {self.profile.namespace}" if self.profile.namespace else "its namespace"
            return f"; ask for the role kubeflow-edit in {where}, or set another namespace in the profile"
        if "certificate" in trouble.said:
            return "; set ca_bundle in the profile to the certificate of the authority that signed the server's"
        if trouble.status == 0:
            return "; see host in the profile (https://…/pipeline as a rule), and whether a VPN or proxy is needed"
        return ""


def paged(fetch: Callable[[str], Any], field: str) -> Iterator[Any]:
    """All that a list holds.

    Args:
        fetch: Gets one page of the list, by its token, which is "" for the first.
        field: The field of a page that holds the things.
    """
    token = ""
    while True:
        page = fetch(token)
        yield from getattr(page, field) or []
        token = page.next_page_token
        if not token:
            return


def _how_to_sign_in(auth: Auth) -> str:
    if isinstance(auth, TokenAuth):
        return f"put a new token into {auth.file}"
    if isinstance(auth, ServiceAccountAuth):
        return f"the token in {auth.file} must be for the audience pipelines.kubeflow.org"
    if isinstance(auth, CookieAuth):
        return f"log in again and put the new cookie into {auth.file or f'the environment variable {auth.env}'}"
    return "it wants to know who asks: set another kind of auth in the profile"


class _QuietClient(kfp.client.Client):
    """kfp's client without what it does by itself when it is made.

    It would take a namespace and a cookie from ~/.config/kfp/context.json, and ask the server five times, with a
    traceback each time, whether it is there.
    """

    def _load_context_setting_or_default(self) -> None:
        self._context_setting = {"namespace": ""}

    def get_kfp_healthz(self, sleep_duration: int = 5) -> kfp_server_api.V2beta1GetHealthzResponse:
        return kfp_server_api.V2beta1GetHealthzResponse(multi_user=False)


class _TokenFile(TokenCredentialsBase):
    """A token that is read anew for each request, so that it may be rotated while a run is watched."""

    def __init__(self, auth: TokenAuth | ServiceAccountAuth) -> None:
        self._auth = auth
        auth.token()

    def refresh_api_key_hook(self, config: Any) -> None:
        """Called by kfp's client before each request."""
        config.api_key["authorization"] = self._auth.token()


class _Transport(RESTClientObject):
    """kfp's transport, with timeouts, and with errors that say what happened."""

    def request(self, method: str, url: str, **options: Any) -> Any:
        """Send a request."""
        options["_request_timeout"] = (CONNECT_TIMEOUT, READ_TIMEOUT)
        host = urlsplit(url).netloc
        try:
            response = super().request(method, url, **options)
        except kfp_server_api.ApiException as error:
            if error.status == 0:  # what kfp makes of a TLS error
                raise Trouble(0, f"cannot reach {host}: {reason(error.__context__ or error)}", passing=False) from None
            raise _refusal(host, error) from None
        except urllib3.exceptions.NewConnectionError as error:
            unknown = isinstance(error, urllib3.exceptions.NameResolutionError)
            raise Trouble(0, f"cannot reach {host}: {reason(error)}", passing=not unknown) from None
        except urllib3.exceptions.TimeoutError as error:
            seconds = CONNECT_TIMEOUT if isinstance(error, urllib3.exceptions.ConnectTimeoutError) else READ_TIMEOUT
            raise Trouble(0, f"no answer from {host} within {seconds:g} s", passing=True) from None
        except urllib3.exceptions.HTTPError as error:
            raise Trouble(0, f"cannot reach {host}: {reason(error)}", passing=True) from None
        kind = response.getheader("Content-Type") or ""
        if "text/html" in kind:
            raise SignedOut(f"{host} shows a web page, probably to log in, instead of an answer of the API")
        if options.get("_preload_content", True) and "json" not in kind:
            raise Trouble(0, f"{host} does not answer like Kubeflow Pipelines", passing=False)
        return response


def _refusal(host: str, error: kfp_server_api.ApiException) -> Trouble:
    headers = error.headers or {}
    if 300 <= error.status < 400:
        return SignedOut(f"{host} sends to {urlsplit(headers.get('Location', '')).path or 'another address'} to log in")
    body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else str(error.body or "")
    try:
        answer = json.loads(body)
        said = answer.get("message") or answer.get("error_message") or answer.get("error") or ""
    except (ValueError, AttributeError):  # from something before the API server
        if error.status == 404:
            return Trouble(0, f"{host} does not answer like Kubeflow Pipelines: 404 Not Found", passing=False)
        said = "" if "<html" in body[:500].lower() else body
    answered = f"{host} answers {error.status} {error.reason or ''}".rstrip()
    return Trouble(error.status, f"{answered}: {_line(said)}" if said else answered, passing=error.status in _PASSING)


def _line(text: object) -> str:
    return " ".join(str(text).split())[:300].rstrip(".")


def _proxy(address: str) -> str | None:
    """The proxy that the environment names for an address; kfp's client does not look there."""
    parts = urlsplit(address)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


@contextlib.contextmanager
def _without_variables(prefix: str) -> Iterator[None]:
    """kfp's client takes hosts and client ids from variables; what holds is the profile."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(prefix)}
    try:
        yield
    finally:
        os.environ.update(hidden)
