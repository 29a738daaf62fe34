"""What `doctor` finds, against an installation on this machine."""

import pytest

from kfp_hybrid.errors import UserError
from kfp_hybrid.targets.doctor import CheckWarning


def found(target):
    """title -> what was found, or the error; like `doctor`, up to the first that later ones need."""
    results = {}
    for check in target.checks():
        try:
            results[check.title] = check.run()
        except UserError as error:
            results[check.title] = error
            if check.needed and not isinstance(error, CheckWarning):
                break
    return results


@pytest.fixture
def registry(serve):
    def answer(request):
        there = request.path in ("/v2/ml/tensorflow/manifests/1.4.0", "/v2/ml/validation/manifests/1.4.0")
        return (200, "", {"Docker-Content-Digest": "sha256:4f"}) if there else (404, "")

    return f"127.0.0.1:{serve(answer).port}"


def test_an_installation_that_is_ready(installation, open_target, registry):
    target = open_target(
        installation.url,
        registry=f"{registry}/ml",
        images={"tensorflow": "1.4.0", "validation": "1.4.0", "deployment": "1.3.0"},
    )
    results = found(target)
    assert results["the host is reachable"] == installation.url
    assert results["the sign-in is accepted"] == "for a single user"
    assert results["the version is 2.16 or later"] == "Kubeflow Pipelines 2.17.0"
    assert results["the experiment Default can be used"] == "it will be made by the first run"
    assert results["this machine's clock is right"].endswith("s apart")
    assert results["the image tensorflow is there"] == "sha256:4f"
    assert f"has no image {registry}/ml/deployment:1.3.0; push it" in str(results["the image deployment is there"])
    assert results["packages for this target pass the linter"] == "hello does"
    assert isinstance(results["the pipeline root can be written"], CheckWarning)


def test_looking_changes_nothing(installation, target):
    found(target)
    assert {request.method for request in installation.served.requests} <= {"GET", "HEAD"}


def test_the_experiment_that_is_there(installation, target, hello):
    target.submit(hello, {})
    assert found(target)["the experiment Default can be used"] == "it is there"


@pytest.mark.parametrize(("version", "kind", "said"), [
    ("2.15.2", UserError, "does not know the security context"),
    ("2.4.0", UserError, "does not know the security context"),
    ("dev-abc", CheckWarning, "see that it is 2.16 or later"),
])  # fmt: skip
def test_versions_that_are_too_old_or_unknown(installation, target, version, kind, said):
    installation.version = version
    error = found(target)["the version is 2.16 or later"]
    assert type(error) is kind and said in str(error)


def test_the_console_words_its_health_in_another_way(serve, open_target):
    server = serve(
        lambda request: (200, {"apiServerReady": True, "apiServerTagName": "2.16.1", "apiServerMultiUser": True})
    )
    results = found(open_target(server.url, namespace="team-a"))
    assert results["the version is 2.16 or later"] == "Kubeflow Pipelines 2.16.1"


def test_without_a_host_nothing_else_is_looked_at(open_target, free_port):
    target = open_target(f"http://127.0.0.1:{free_port}")
    target.client.patience = 0.01
    assert list(found(target)) == ["the host is reachable"]


def test_a_refused_sign_in_ends_the_looking(installation, open_target, tmp_path):
    (tmp_path / "token").write_text("old")
    installation.token = "new"
    results = found(open_target(installation.url, auth={"kind": "token", "file": str(tmp_path / "token")}))
    assert list(results) == ["the host is reachable", "the sign-in is accepted"]
    assert "put a new token into" in str(results["the sign-in is accepted"])


def test_an_installation_for_many_users_needs_a_namespace(installation, target):
    installation.namespaces = {"team-a"}
    assert "set the namespace of your runs in the profile" in str(found(target)["the sign-in is accepted"])


def test_what_only_the_cluster_knows_of_secrets_is_a_warning(installation, open_target):
    target = open_target(installation.url, secrets={"storage": {"secret": "s3-credentials", "env": {"A": "a"}}})
    assert isinstance(found(target)["the secret storage is there"], CheckWarning)
