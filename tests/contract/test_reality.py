"""Checks that every platform needs, against a registry and a server on this machine."""

import datetime
from email.utils import format_datetime

import pytest

from kfp_hybrid.errors import UserError
from kfp_hybrid.targets.doctor import CheckWarning
from kfp_hybrid.targets.reality import clock_skew, image_in_registry

DIGEST = f"sha256:{'4f' * 32}"


class Registry:
    """A registry with one image, `ml/tensorflow:1.4.0`, in the terms of the OCI distribution specification."""

    def __init__(self, authentication: str = "") -> None:
        self.authentication = authentication
        self.url = ""

    def __call__(self, request):
        if request.is_("GET", "/token"):
            assert request.query == {"service": "registry.local", "scope": "repository:ml/tensorflow:pull"}
            known = request.headers["Authorization"] == "Basic YW5uYTpzZWNyZXQ="  # anna:secret
            if self.authentication == "private" and not known:
                return 403, {"errors": [{"code": "DENIED"}]}
            return 200, {"token": "a-token"}
        assert request.method == "HEAD"
        assert "application/vnd.oci.image.index.v1+json" in request.headers["Accept"]
        if self.authentication and request.headers["Authorization"] != "Bearer a-token":
            challenge = (
                f'Bearer realm="{self.url}/token",service="registry.local",scope="repository:ml/tensorflow:pull"'
            )
            return 401, {"errors": [{"code": "UNAUTHORIZED"}]}, {"WWW-Authenticate": challenge}
        if request.path in ("/v2/ml/tensorflow/manifests/1.4.0", f"/v2/ml/tensorflow/manifests/{DIGEST}"):
            return 200, "", {"Docker-Content-Digest": DIGEST}
        return 404, {"errors": [{"code": "MANIFEST_UNKNOWN"}]}


@pytest.fixture
def registry(serve):
    def start(authentication=""):
        plays = Registry(authentication)
        server = serve(plays)
        plays.url = server.url
        return f"127.0.0.1:{server.port}"

    return start


@pytest.mark.parametrize("version", [":1.4.0", f"@{DIGEST}", f":1.4.0@{DIGEST}"])
def test_an_image_is_found_by_tag_and_by_digest(registry, version):
    assert image_in_registry(f"{registry()}/ml/tensorflow{version}") == DIGEST


def test_a_missing_image_is_an_error_that_names_it(registry):
    host = registry()
    with pytest.raises(UserError, match=rf"{host} has no image {host}/ml/tensorflow:9; push it") as caught:
        image_in_registry(f"{host}/ml/tensorflow:9")
    assert not isinstance(caught.value, CheckWarning)


def test_a_public_registry_that_wants_a_token_is_asked_for_one(registry):
    assert image_in_registry(f"{registry('public')}/ml/tensorflow:1.4.0") == DIGEST


def test_a_private_registry_gives_a_warning_without_credentials(registry):
    with pytest.raises(CheckWarning, match="only to those who sign in"):
        image_in_registry(f"{registry('private')}/ml/tensorflow:1.4.0")


def test_a_private_registry_is_asked_with_credentials(registry):
    found = image_in_registry(f"{registry('private')}/ml/tensorflow:1.4.0", credentials=("anna", "secret"))
    assert found == DIGEST


def test_a_registry_that_cannot_be_reached_gives_a_warning(free_port):
    with pytest.raises(CheckWarning, match="Connection refused"):
        image_in_registry(f"127.0.0.1:{free_port}/ml/tensorflow:1.4.0")


def at(offset):
    now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=offset)
    return lambda request: (401, "who are you?", {"Date": format_datetime(now, usegmt=True)})


@pytest.mark.parametrize(("offset", "error"), [(0, None), (90, CheckWarning), (-90, CheckWarning), (600, UserError)])
def test_clocks_that_are_apart_are_noticed_also_when_the_server_refuses(serve, offset, error):
    server = serve(at(offset))
    if error is None:
        assert clock_skew(server.url).endswith("s apart")
        return
    with pytest.raises(error, match=f"s {'behind' if offset > 0 else 'ahead of'} that of 127.0.0.1") as caught:
        clock_skew(server.url)
    assert type(caught.value) is error


def test_a_server_with_a_private_authority_is_trusted_by_its_bundle(serve):
    server = serve(at(0), tls=True)
    assert clock_skew(server.url, ca_bundle=server.ca_bundle).endswith("s apart")
    with pytest.raises(UserError, match="unable to get local issuer certificate"):
        clock_skew(server.url)
