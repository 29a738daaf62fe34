"""What steps may, and what of them can be seen."""

import json

import pytest
from end_to_end_suite.pods import rights_of_root, shown_secrets, step_of

from kfp_hybrid.images import USER


@pytest.fixture(scope="module")
def identity(suite):
    status = suite.run(suite.package("identity"))
    assert status.state == "succeeded", status.message
    return status


@pytest.fixture
def confined(target):
    if not target.profile.security_context:
        pytest.skip("the profile has security_context = false: the platform decides as whom steps run")


def test_a_step_is_not_root_and_cannot_become_it(identity, target):
    (line,) = [line for line in target.logs(identity.id, "tell-identity") if "identity: {" in line]
    told = json.loads(line.partition("identity: ")[2])
    assert told["uid"] != 0
    if target.profile.security_context:
        assert told["uid"] == USER
    assert int(told["capabilities"], 16) == 0
    assert told["no_new_privileges"] == "1"


def test_every_pod_of_a_run_is_confined(first, identity, pods, confined):
    found = pods.of(first.id)
    steps = {step.name for step in first.steps if step.state == "done"}
    assert steps <= {step_of(pod) for pod in found}, "not all pods were seen"
    assert [problem for pod in [*found, *pods.of(identity.id)] for problem in rights_of_root(pod)] == []


def test_no_package_shows_a_credential(suite, main_job, known_secrets):
    packages = (main_job, suite.package("ingestion"))
    assert [package.name for package in packages if shown_secrets(package.text, known_secrets)] == []


def test_no_pod_shows_a_credential(suite, first, pods, known_secrets):
    found = [pod for run_id in suite.run_ids for pod in pods.of(run_id)]
    assert found
    assert [pod["metadata"]["name"] for pod in found if shown_secrets(json.dumps(pod), known_secrets)] == []


def test_no_log_shows_a_credential(suite, target, first, pods, known_secrets):
    texts = {
        f"step {step.name}": "\n".join(target.logs(first.id, step.name)) for step in first.steps if step.state == "done"
    }
    assert all(texts.values()), f"steps without a log: {[step for step, text in texts.items() if not text]}"
    texts |= {pod["metadata"]["name"]: pods.logs(pod) for run_id in suite.run_ids for pod in pods.of(run_id)}
    assert [where for where, text in texts.items() if shown_secrets(text, known_secrets)] == []
