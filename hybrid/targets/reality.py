"""Checks that every platform needs: is an image in its registry, and do two clocks agree?"""

import datetime
import ipaddress
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.utils import parse_dict_header

from kfp_hybrid.errors import UserError
from kfp_hybrid.targets.doctor import CheckWarning

TIMEOUT = 15.0
"""Seconds to wait for a connection, and then for each part of an answer."""

# Tokens are refused, and signed requests to object stores with them, when clocks are minutes apart.
SKEW_WARNING = datetime.timedelta(seconds=30)
SKEW_ERROR = datetime.timedelta(minutes=4)

_MANIFESTS = ", ".join((
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
))  # fmt: skip
_DOCKER_HUB = "registry-1.docker.io"


def image_in_registry(
    reference: str, *, credentials: tuple[str, str] | None = None, ca_bundle: Path | None = None
) -> str:
    """Ask a registry for an image's manifest, as the machine that pulls it does; nothing is downloaded.

    Args:
        reference: The image, such as `registry.example.com:5000/ml/tensorflow:1.4.0` or `...@sha256:...`.
        credentials: User name and password, for registries that do not show images to everybody.
        ca_bundle: The certificates (PEM) to trust instead of the system's.

    Returns:
        The digest of what the reference stands for.

    Raises:
        UserError: the registry has no such image.
        CheckWarning: the registry cannot be asked from here, or wants credentials. Those that pull the image may be in
            another network and have a pull secret.
    """
    registry, repository, version = _parts(reference)
    url = f"{'http' if _is_this_machine(registry) else 'https'}://{registry}/v2/{repository}/manifests/{version}"
    with requests.Session() as session:
        if ca_bundle:
            session.verify = str(ca_bundle)
        try:
            response = session.head(url, headers={"Accept": _MANIFESTS}, timeout=TIMEOUT, allow_redirects=True)
            if response.status_code == requests.codes.unauthorized:
                _sign_in(session, response.headers.get("WWW-Authenticate", ""), credentials)
                response = session.head(url, headers={"Accept": _MANIFESTS}, timeout=TIMEOUT, allow_redirects=True)
        except requests.RequestException as error:
            raise CheckWarning(
                f"cannot ask {registry} for {reference} from here ({reason(error)}); see that the nodes can pull it"
            ) from None
    if response.status_code in (requests.codes.unauthorized, requests.codes.forbidden):
        raise CheckWarning(
            f"{registry} shows {reference} only to those who sign in, or has no such repository; "
            "see that it is there and that the pull secret or service account may read it"
        )
    if response.status_code == requests.codes.not_found:
        raise UserError(f"{registry} has no image {reference}; push it, or set registry and images in the profile")
    if not response.ok:
        raise CheckWarning(f"{registry} answered {response.status_code} {response.reason} for {reference}")
    return response.headers.get("Docker-Content-Digest", "there")


def clock_skew(url: str, *, ca_bundle: Path | None = None) -> str:
    """Compare this machine's clock with that of a server.

    Args:
        url: Any address of the server; the answer may be a refusal.
        ca_bundle: The certificates (PEM) to trust instead of the system's.

    Returns:
        How far they are apart, in words.

    Raises:
        UserError: they are so far apart that tokens or signatures will be refused, or the server cannot be reached.
        CheckWarning: they are apart, or the server does not tell its time.
    """
    try:
        response = requests.head(
            url, timeout=TIMEOUT, allow_redirects=False, verify=str(ca_bundle) if ca_bundle else True
        )
    except requests.RequestException as error:
        raise UserError(f"cannot reach {urlsplit(url).netloc}: {reason(error)}") from None
    now = datetime.datetime.now(datetime.timezone.utc)
    try:
        theirs = parsedate_to_datetime(response.headers["Date"])
    except (KeyError, ValueError):
        raise CheckWarning(f"{urlsplit(url).netloc} does not tell its time") from None
    skew = now - (theirs if theirs.tzinfo else theirs.replace(tzinfo=datetime.timezone.utc))
    seconds, side = abs(skew.total_seconds()), "ahead of" if skew.total_seconds() > 0 else "behind"
    what = (
        f"this machine's clock is {seconds:.0f} s {side} that of {urlsplit(url).netloc}; "
        "set both by NTP (timedatectl set-ntp true)"
    )
    if abs(skew) >= SKEW_ERROR:
        raise UserError(what)
    if abs(skew) >= SKEW_WARNING:
        raise CheckWarning(what)
    return f"{seconds:.0f} s apart"  # the header has whole seconds


def reason(error: Exception) -> str:
    """Why a connection failed: the innermost cause, without the object names that libraries put around it."""
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT:.0f} s"
    while True:
        inner = error.__cause__ or getattr(error, "reason", None) or next(iter(error.args), None)
        if not isinstance(inner, Exception):
            break
        error = inner
    text = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(text.rpartition(">: ")[2].split())[:200]


def _parts(reference: str) -> tuple[str, str, str]:
    """Registry, repository, and tag or digest of an image."""
    name, _, digest = reference.partition("@")
    registry, slash, repository = name.partition("/")
    if not slash or not (registry == "localhost" or set(registry) & set(".:")):
        registry, repository = _DOCKER_HUB, name if slash else f"library/{name}"
    repository, _, tag = repository.partition(":")
    return registry, repository, digest or tag or "latest"


def _is_this_machine(registry: str) -> bool:
    """Container engines speak plain HTTP with a registry on the machine itself, and with no other."""
    host = urlsplit(f"//{registry}").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _sign_in(session: requests.Session, challenge: str, credentials: tuple[str, str] | None) -> None:
    """Get what a registry's challenge asks for: a token of its token service (also for nobody), or a password."""
    scheme, _, parameters = challenge.partition(" ")
    if scheme.lower() == "basic":
        session.auth = credentials
    if scheme.lower() != "bearer":
        return
    wanted = parse_dict_header(parameters)
    realm = wanted.pop("realm", "") or ""
    if not (realm.startswith("https://") or _is_this_machine(urlsplit(realm).netloc)):
        return  # no password in plain text, wherever a registry says it is to go
    response = session.get(realm, params=wanted, auth=credentials, timeout=TIMEOUT)
    if response.ok:
        answer = response.json()
        session.headers["Authorization"] = f"Bearer {answer.get('token') or answer.get('access_token')}"
