"""Runs that are disturbed, stopped and started by the clock."""

import re

import pytest

from kfp_hybrid.targets.kubeflow.runs import experiment_id

SECONDS = 30
"""How long a step takes whose pod is deleted meanwhile."""
RETRIES_WHAT_VANISHED = (2, 17)
"""The first version whose settings have Argo try again the pods that have vanished, and not those that have failed."""


@pytest.fixture
def patience(suite):
    return suite.package("patience")


@pytest.fixture
def version(target):
    """The version of the installation; one that does not say counts as new."""
    said = str(target.client.get("/apis/v2beta1/healthz").get("tag_name", ""))
    found = re.match(r"(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else RETRIES_WHAT_VANISHED


def test_a_step_whose_pod_is_deleted_is_tried_again(suite, patience, pods, version):
    run_id = suite.start(patience, seconds=SECONDS)
    pod = suite.wait_for(
        "the pod of step wait", lambda: suite.step_runs(run_id, "wait") and pods.running(run_id, "wait")
    )
    pods.delete(pod, at_once=version >= RETRIES_WHAT_VANISHED)
    status = suite.finish(patience, run_id)
    assert status.state == "succeeded", (
        f"{status.message}; which of pods that have failed or vanished are tried again is a setting of Argo: "
        "docs/testing-on-a-cluster.md, When something fails"
    )
    tries = pods.of(run_id, "wait")
    assert len(tries) > 1, "the run has succeeded without a second try"
    assert tries[-1]["metadata"]["uid"] != pod["metadata"]["uid"]


def test_a_cancelled_run_ends_and_its_pods_too(suite, target, patience, pods):
    run_id = suite.start(patience, seconds=3600)
    suite.wait_for("the pod of step wait", lambda: suite.step_runs(run_id, "wait") and pods.running(run_id, "wait"))
    target.cancel(run_id)
    status = suite.finish(patience, run_id)
    assert status.state == "cancelled"
    suite.wait_for("the end of all pods", lambda: not pods.left(run_id), share=0.1)
    target.cancel(run_id)  # does nothing to one that has ended


def test_a_schedule_starts_runs_until_it_is_deleted(suite, target, patience, name):
    schedule = target.schedule(patience, {"seconds": 1}, name=f"every-minute-{name}", cron="* * * * *")
    try:
        assert schedule.enabled and schedule.cron == "* * * * *"
        run_id = suite.wait_for("a run of the schedule", lambda: next(started(target, schedule.id), None))
        suite.run_ids.append(run_id)
        assert suite.finish(patience, run_id).state == "succeeded"
    finally:
        target.unschedule(schedule.id)
    assert schedule.id not in [each.id for each in target.schedules()]


def started(target, schedule_id):
    """The runs of a schedule."""
    client = target.client
    runs = client.kfp.list_runs(
        page_size=100, experiment_id=experiment_id(client), namespace=client.profile.namespace
    ).runs
    return (run.run_id for run in runs or [] if run.recurring_run_id == schedule_id)


def test_a_package_is_registered_once(target, patience):
    made = target.register(patience, version="1")
    assert made.new
    again = target.register(patience, version="1")
    assert (again.new, again.version) == (False, "1")
