"""Signing in, and what goes wrong on the way, against an installation on this machine."""

import os

import pytest

from kfp_hybrid.errors import UserError
from kfp_hybrid.targets.kubeflow import client as client_module

SECRET = "a-token-that-nobody-may-see"


def refusal(target):
    with pytest.raises(UserError) as caught:
        target.runs()
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return path


def test_a_token_is_sent_with_each_request(installation, open_target, file):
    installation.token = SECRET
    assert open_target(installation.url, auth={"kind": "token", "file": str(file)}).runs() == []


def test_a_token_that_is_rotated_while_a_command_runs_is_read_again(installation, open_target, file):
    installation.token = SECRET
    target = open_target(installation.url, auth={"kind": "token", "file": str(file)})
    target.runs()
    installation.token = "another"
    file.write_text("another")
    assert target.runs() == []


def test_the_token_volume_of_a_pod(installation, open_target, file):
    installation.token = SECRET
    assert open_target(installation.url, auth={"kind": "service-account", "file": str(file)}).runs() == []


def test_a_cookie_from_a_file(installation, open_target, tmp_path):
    installation.cookie = f"authservice_session={SECRET}"
    (tmp_path / "cookie").write_text(installation.cookie)
    assert open_target(installation.url, auth={"kind": "cookie", "file": str(tmp_path / "cookie")}).runs() == []


def test_a_cookie_from_a_variable(installation, open_target, monkeypatch):
    installation.cookie = f"oauth2_proxy_kubeflow={SECRET}"
    monkeypatch.setenv("KFP_COOKIE", installation.cookie)
    assert open_target(installation.url, auth={"kind": "cookie", "env": "KFP_COOKIE"}).runs() == []


def test_a_refused_token_says_which_file_to_renew(installation, open_target, file):
    installation.token = "another"
    said = refusal(open_target(installation.url, auth={"kind": "token", "file": str(file)}))
    assert "cannot list the runs" in said and "answers 401" in said
    assert said.endswith(f"put a new token into {file}")


def test_a_pod_whose_token_is_refused_is_told_of_the_audience(installation, open_target, file):
    installation.token = "another"
    said = refusal(open_target(installation.url, auth={"kind": "service-account", "file": str(file)}))
    assert said.endswith(f"the token in {file} must be for the audience pipelines.kubeflow.org")


def test_an_expired_cookie_is_noticed_by_the_way_to_the_login_page(installation, open_target, monkeypatch):
    installation.cookie = "authservice_session=new"
    monkeypatch.setenv("KFP_COOKIE", f"authservice_session={SECRET}")
    said = refusal(open_target(installation.url, auth={"kind": "cookie", "env": "KFP_COOKIE"}))
    assert "sends to /dex/auth to log in" in said
    assert said.endswith("log in again and put the new cookie into the environment variable KFP_COOKIE")


def test_a_login_page_instead_of_an_answer(installation, open_target, file):
    page = "<!doctype html><html><body><form action='/dex/auth'>Log in to Your Account</form></body></html>"
    installation.fail("GET *", status=200, body=page, headers={"Content-Type": "text/html; charset=utf-8"})
    said = refusal(open_target(installation.url, auth={"kind": "cookie", "file": str(file)}))
    assert "shows a web page, probably to log in" in said
    assert said.endswith(f"log in again and put the new cookie into {file}")


def test_an_installation_that_wants_a_sign_in_where_the_profile_has_none(installation, open_target):
    installation.token = "something"
    assert refusal(open_target(installation.url)).endswith("set another kind of auth in the profile")


def test_a_missing_right_names_the_role_and_the_namespace(installation, open_target):
    installation.namespaces = {"team-a"}
    said = refusal(open_target(installation.url, namespace="team-b"))
    assert "User 'anna@example.com' is not authorized in namespace team-b" in said
    assert "ask for the role kubeflow-edit in namespace team-b" in said


def test_a_token_file_that_is_missing(open_target, tmp_path):
    said = refusal(open_target("http://127.0.0.1:1", auth={"kind": "token", "file": str(tmp_path / "none")}))
    assert said == f"cannot read the bearer token from {tmp_path / 'none'}: No such file or directory"


def test_a_variable_that_is_not_set(open_target):
    said = refusal(open_target("http://127.0.0.1:1", auth={"kind": "cookie", "env": "NO_COOKIE"}))
    assert said == "the environment variable NO_COOKIE with the session cookie is not set; log in first"


def test_an_address_that_is_something_else(serve, open_target):
    server = serve(lambda request: (404, "404 page not found"))
    said = refusal(open_target(server.url))
    assert "does not answer like Kubeflow Pipelines: 404 Not Found" in said
    assert "see host in the profile (https://…/pipeline as a rule)" in said


def test_an_answer_that_is_no_json(serve, open_target):
    server = serve(lambda request: (200, "hello"))
    said = refusal(open_target(server.url))
    assert "cannot list the runs" in said and "does not answer like Kubeflow Pipelines" in said


def test_a_host_on_which_nothing_listens(open_target, free_port):
    target = open_target(f"http://127.0.0.1:{free_port}")
    target.client.patience = 0.05
    said = refusal(target)
    assert f"cannot reach 127.0.0.1:{free_port}: Connection refused" in said
    assert said.endswith("and whether a VPN or proxy is needed")


def test_a_host_that_does_not_exist_is_not_tried_again(open_target, caplog):
    assert "cannot reach kubeflow.invalid" in refusal(open_target("http://kubeflow.invalid"))
    assert not caplog.records


def test_a_server_that_does_not_answer(installation, open_target, monkeypatch):
    monkeypatch.setattr(client_module, "READ_TIMEOUT", 0.1)
    target = open_target(installation.url)
    target.client.patience = 0.15
    installation.fail("GET *", seconds=300, times=5)
    assert "no answer from 127.0.0.1" in refusal(target)


# ------------------------------------------------------------------------------------------------------------ TLS


@pytest.fixture
def with_tls(serve):
    server = serve(lambda request: (200, {"runs": []}), tls=True)
    return server


def test_a_private_authority_is_trusted_by_the_bundle_of_the_profile(with_tls, open_target):
    assert open_target(with_tls.url, ca_bundle=str(with_tls.ca_bundle)).runs() == []


def test_an_authority_that_is_not_trusted(with_tls, open_target, caplog):
    said = refusal(open_target(with_tls.url))
    assert "unable to get local issuer certificate" in said
    assert said.endswith("set ca_bundle in the profile to the certificate of the authority that signed the server's")
    assert not with_tls.requests and not caplog.records


def test_a_bundle_that_is_missing(with_tls, open_target, tmp_path):
    said = refusal(open_target(with_tls.url, ca_bundle=str(tmp_path / "none.pem")))
    assert said == f"there is no file {tmp_path / 'none.pem'}, which the profile names as ca_bundle"


# -------------------------------------------------------------------------------------------------------- proxies


def test_the_proxy_of_the_environment_is_used(serve, open_target, monkeypatch):
    seen = []
    proxy = serve(lambda request: seen.append(request.path) or (200, {"runs": []}))
    monkeypatch.setenv("http_proxy", proxy.url)
    assert open_target("http://kubeflow.invalid/pipeline").runs() == []
    assert seen == ["/pipeline/apis/v2beta1/runs"]


def test_a_host_without_a_proxy(installation, open_target, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert open_target(installation.url).runs() == []


def test_the_environment_is_as_it_was(installation, open_target, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:1")
    open_target(installation.url).runs()
    assert os.environ["KF_PIPELINES_ENDPOINT"] == "http://127.0.0.1:1"
