"""Looking after runs, against an installation on this machine."""

import io
import math

import pytest
from rich.console import Console

from kfp_hybrid.errors import UserError
from kfp_hybrid.targets.runs import StepStatus


@pytest.fixture
def run_id(target, hello):
    return target.submit(hello, {}).id


def states(status):
    return {step.name: step.state for step in status.steps}


def test_steps_are_those_of_the_package_in_its_order_and_nothing_else(target, run_id, play):
    play(run_id, "RUNNING", {"concatenate": "RUNNING"})
    status = target.status(run_id)
    assert status.state == "running"
    assert states(status) == {"concatenate": "running", "reverse": "waiting"}


@pytest.fixture(params=["2.16", "2.17"])
def play(request, play, installation):
    """The same for both; in 2.17 Argo may try everything again, and each node is one try of another."""

    def set_state(run_id, *state, **fields):
        play(run_id, *state, **fields)
        nodes = installation.runs[run_id]["run_details"]["task_details"]
        tries = [{**node, "display_name": f"{node['display_name']}(0)"} for node in nodes if node["state"] != "SKIPPED"]
        if request.param == "2.17":
            nodes += tries

    return set_state


def test_a_step_that_ended_says_how_long_it_took(target, run_id, play):
    play(run_id, "SUCCEEDED", {"concatenate": "SUCCEEDED", "reverse": "SUCCEEDED"})
    status = target.status(run_id)
    assert (status.state, status.ended) == ("succeeded", True)
    assert status.steps == (StepStatus("concatenate", "done", 6.0), StepStatus("reverse", "done", 6.0))


def test_a_result_from_the_cache_is_told_from_one_of_this_run(target, run_id, play):
    play(run_id, "SUCCEEDED", {"concatenate": "CACHED", "reverse": "SUCCEEDED"})
    assert states(target.status(run_id)) == {"concatenate": "cached", "reverse": "done"}


def test_a_failed_run_names_its_failed_step_and_what_never_began_was_skipped(target, run_id, play):
    play(run_id, "FAILED", {"concatenate": "FAILED", "reverse": "RUNTIME_STATE_UNSPECIFIED"})
    status = target.status(run_id)
    assert (status.state, status.message) == ("failed", "step concatenate failed")
    assert states(status) == {"concatenate": "failed", "reverse": "skipped"}


def test_a_step_fails_with_its_driver(target, run_id, play):
    play(run_id, "FAILED", {"concatenate": "DRIVER FAILED"})
    assert states(target.status(run_id)) == {"concatenate": "failed", "reverse": "skipped"}


def test_what_the_server_says_of_a_failure_is_the_message(target, run_id, play):
    play(run_id, "FAILED", {}, state_history=[{"state": "FAILED", "error": {"code": 13, "message": "quota\nexceeded"}}])
    assert target.status(run_id).message == "quota exceeded"


def test_steps_of_a_cancelled_run_were_stopped(target, run_id, play):
    play(run_id, "CANCELED", {"concatenate": "SUCCEEDED", "reverse": "RUNNING"})
    status = target.status(run_id)
    assert status.state == "cancelled"
    assert states(status) == {"concatenate": "done", "reverse": "stopped"}


def test_steps_inside_of_branches_are_steps_and_the_branches_are_none(installation, target, play, tmp_path):
    from kfp_hybrid.package import Package
    from kfp_hybrid.sources import compile_pipeline

    compile_pipeline("train_without_code", target, tmp_path / "package.yaml")
    run_id = target.submit(Package.load(tmp_path / "package.yaml"), {}).id
    play(run_id, "SUCCEEDED", {"ingest-examples": "CACHED", "condition-2": "SUCCEEDED", "train-model": "SUCCEEDED"})
    found = states(target.status(run_id))
    assert found["train-model"] == "done"
    assert found["report-rejection"] == "skipped"
    assert not any(name.startswith(("condition", "root", "executor")) or name.endswith("driver") for name in found)


def test_a_run_of_an_uploaded_version_has_its_steps_from_there(installation, target, hello, run_id, play):
    target.register(hello, version="1")
    (version,) = installation.versions.values()
    installation.runs[run_id].pop("pipeline_spec")
    installation.runs[run_id]["pipeline_version_reference"] = {
        name: version[name] for name in ("pipeline_id", "pipeline_version_id")
    }
    play(run_id, "RUNNING", {"concatenate": "SUCCEEDED"})
    assert states(target.status(run_id)) == {"concatenate": "done", "reverse": "waiting"}


def test_a_run_that_is_not_there(target):
    with pytest.raises(UserError, match=r"cannot look up run nothing: .* answers 404 .*: .*Run nothing not found$"):
        target.status("nothing")


def test_runs_are_listed_newest_first_without_their_steps(target, hello):
    ids = [target.submit(hello, {}).id for _ in range(3)]
    found = target.runs(2)
    assert [status.id for status in found] == ids[:0:-1]
    assert all(status.steps == () and status.created.tzinfo for status in found)


def test_as_many_runs_as_asked_for_come_in_pages(installation, target, hello, monkeypatch):
    from kfp_hybrid.targets.kubeflow import runs

    ids = [target.submit(hello, {}).id for _ in range(5)]
    monkeypatch.setattr(runs, "PAGE_SIZE", 2)
    assert [status.id for status in target.runs(20)] == ids[::-1]
    assert [status.id for status in target.runs(3)] == ids[:1:-1]


def test_an_installation_without_runs(target):
    assert target.runs() == []


def test_cancelling_terminates_a_run(installation, target, run_id):
    target.cancel(run_id)
    assert target.status(run_id).state == "running"
    assert installation.runs[run_id]["state"] == "CANCELING"


def test_cancelling_what_has_ended_does_nothing(installation, target, run_id, play):
    play(run_id, "FAILED")
    target.cancel(run_id)
    assert installation.runs[run_id]["state"] == "FAILED"
    assert not installation.sent("POST *:terminate")


def test_watching_shows_each_change_until_the_run_ends(target, run_id, play):
    scenes = iter((
        lambda: play(run_id, "RUNNING", {"concatenate": "RUNNING"}),
        lambda: play(run_id, "RUNNING", {"concatenate": "SUCCEEDED", "reverse": "RUNNING"}),
        lambda: play(run_id, "SUCCEEDED", {"concatenate": "SUCCEEDED", "reverse": "SUCCEEDED"}),
    ))  # fmt: skip
    console = Console(file=io.StringIO())
    status = target.watch(run_id, console, steps=["concatenate", "reverse"], sleep=lambda seconds: next(scenes)())
    assert status.state == "succeeded"
    assert console.file.getvalue().splitlines() == [
        "[1/2] concatenate running",
        "[1/2] concatenate done 6.0 s",
        "[2/2] reverse running",
        "[2/2] reverse done 6.0 s",
    ]


def test_watching_outlives_a_gateway_that_restarts(installation, target, run_id, play):
    play(run_id, "RUNNING", {"concatenate": "RUNNING"})

    def later(seconds):
        installation.fail("GET /apis/v2beta1/runs/*", status=502, times=3)
        installation.fail("GET /apis/v2beta1/runs/*", cut=True, times=2)
        play(run_id, "FAILED", {"concatenate": "FAILED"})

    assert target.watch(run_id, Console(file=io.StringIO()), sleep=later).state == "failed"


def test_a_missing_run_is_not_looked_for_again_and_again(installation, target):
    installation.fail("GET /apis/v2beta1/runs/*", status=404, body={"message": "no"}, times=math.inf)
    with pytest.raises(UserError):
        target.status("nothing")
    assert len(installation.sent("GET /apis/v2beta1/runs/*")) == 1
