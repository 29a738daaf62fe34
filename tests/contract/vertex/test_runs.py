"""Watching, listing and cancelling runs on Vertex AI, and reading their logs."""

import io
import math

import pytest
from fake_vertex import PARENT, State, TaskState, task
from kfp import dsl
from rich.console import Console

from kfp_hybrid.errors import UserError
from kfp_hybrid.targets import StepStatus

GET = "GET /v1/projects/*/pipelineJobs/*"
LIST = "GET /v1/projects/*/pipelineJobs"
ENTRIES = "POST /v2/entries:list"


def begins(*tasks):
    """A point of a story: the run goes on with these tasks."""

    def change(job):
        job.state = State.PIPELINE_STATE_RUNNING
        job.job_detail.task_details = list(tasks)

    return change


def ends(state, *tasks, message=""):
    """The last point of a story."""

    def change(job):
        job.state = State[f"PIPELINE_STATE_{state}"]
        job.job_detail.task_details = list(tasks)
        if message:
            job.error = {"code": 9, "message": message}

    return change


@pytest.fixture
def run(target, package):
    """The id of a run."""
    return target.submit(package, {"first": "hello"}).id


def watch(target, run, steps=("concatenate", "reverse")):
    output = io.StringIO()
    status = target.watch(run, Console(file=output, width=100), steps=steps, sleep=lambda seconds: None)
    return status, output.getvalue().splitlines()


def states(status):
    return {step.name: step.state for step in status.steps}


# ----------------------------------------------------------------------------------------------------------- watch


def test_a_run_is_watched_until_it_has_succeeded(google, target, run):
    google.vertex.story = [
        begins(task(run, "RUNNING", number=1), task("concatenate", "RUNNING", number=2, parent=1)),
        begins(task("concatenate", "SUCCEEDED", number=2), task("reverse", "PENDING", number=3)),
        ends("SUCCEEDED", task("concatenate", "SUCCEEDED", number=2), task("reverse", "SUCCEEDED", number=3)),
    ]
    status, lines = watch(target, run)
    assert status.state == "succeeded" and status.ended
    assert lines == ["[1/2] concatenate running", "[1/2] concatenate done 30.0 s", "[2/2] reverse done 30.0 s"]


def test_a_failed_run_says_which_step_failed_and_why(google, target, run):
    error = {"code": 9, "message": "The replica workerpool0-0 exited with a non-zero status of 1.\nSee the logs."}
    google.vertex.story = [
        ends("FAILED", task("concatenate", "FAILED", error=error), message="The DAG failed\nbecause some tasks failed.")
    ]
    status, lines = watch(target, run)
    assert (status.state, status.message) == ("failed", "The DAG failed because some tasks failed.")
    assert status.steps == (
        StepStatus(
            "concatenate", "failed", 30.0, "The replica workerpool0-0 exited with a non-zero status of 1. See the logs."
        ),
    )
    assert lines == ["[1/2] concatenate failed 30.0 s", "skipped: reverse"]


@pytest.mark.parametrize("theirs, ours", [
    ("PENDING", "waiting"), ("RUNNING", "running"), ("SUCCEEDED", "done"), ("SKIPPED", "cached"), ("FAILED", "failed"),
    ("NOT_TRIGGERED", "skipped"), ("CANCELLED", "stopped"), ("CANCELLING", "running"), ("CANCEL_PENDING", "running"),
])  # fmt: skip
def test_the_states_of_steps_are_those_of_all_targets(google, target, run, theirs, ours):
    google.vertex.story = [begins(task("reverse", theirs))]
    assert states(target.status(run)) == {"reverse": ours}


def test_no_state_of_the_api_is_forgotten(google, target, run):
    for state in TaskState:
        google.vertex.story = [begins(task("reverse", state.name))]
        (step,) = target.status(run).steps
        assert step.state != "waiting" or state.name in ("STATE_UNSPECIFIED", "PENDING")


@pytest.mark.parametrize("theirs, ours", [
    ("QUEUED", "waiting"), ("PENDING", "waiting"), ("RUNNING", "running"), ("SUCCEEDED", "succeeded"),
    ("FAILED", "failed"), ("CANCELLING", "running"), ("CANCELLED", "cancelled"), ("PAUSED", "waiting"),
])  # fmt: skip
def test_the_states_of_runs_are_those_of_all_targets(google, target, run, theirs, ours):
    google.vertex.story = [ends(theirs)]
    assert target.status(run).state == ours


@dsl.component(base_image="ghcr.io/elsewhere/tools:1", install_kfp_package=False)
def show(model: dsl.Input[dsl.Model], text: str):
    print(model.uri, text)


@dsl.component(base_image="ghcr.io/elsewhere/tools:1", install_kfp_package=False)
def tell(text: str) -> str:
    return text


@dsl.pipeline(name="branches")
def branches(uri: str, text: str):
    model = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model)
    told = tell(text=text)
    with dsl.If(told.output == "go"):
        show(model=model.output, text="once")
    with dsl.ParallelFor(["a", "b"]) as item:
        tell(text=item)


def test_only_what_runs_a_program_is_a_step(google, target, write_package):
    package = write_package(branches)
    run = target.submit(package, {"uri": "gs://models/1", "text": "go"}).id
    google.vertex.story = [ends(
        "SUCCEEDED",
        task(run, "SUCCEEDED", number=1), task("importer", "SUCCEEDED", number=2, parent=1),
        task("tell", "SKIPPED", number=3, parent=1), task("condition-1", "SUCCEEDED", number=4, parent=1),
        task("show", "SUCCEEDED", number=5, parent=4), task("for-loop-2", "SUCCEEDED", number=6, parent=1),
        task("tell-2", "SUCCEEDED", number=8, parent=6), task("tell-2", "FAILED", number=7, parent=6),
    )]  # fmt: skip
    status = target.status(run)
    assert {step.task for step in package.steps()} == {"tell", "show", "tell-2"}
    assert [(step.name, step.state, step.seconds) for step in status.steps] == [
        ("tell", "cached", None), ("show", "done", 30.0), ("tell-2", "failed", 30.0), ("tell-2[2]", "done", 30.0)
    ]  # fmt: skip


def test_watching_goes_on_through_passing_trouble(google, server, target, run, no_pauses, caplog):
    google.vertex.story = [begins(), ends("SUCCEEDED")]
    server.fail(GET, status=503, times=2)
    server.fail(GET, cut=True)
    assert watch(target, run)[0].state == "succeeded"
    assert caplog.text.count("cannot look at the run: ") == 3


def test_an_unknown_run_is_one_line_with_what_to_do(target):
    with pytest.raises(
        UserError, match="there is no run nothing in project ml-production, europe-west4; `kfp-hybrid runs`"
    ):
        target.status("nothing")


# ------------------------------------------------------------------------------------------------ list and cancel


def test_the_newest_runs_come_first_and_no_more_than_asked_for(server, target, package):
    ids = [target.submit(package, {"first": "hello"}).id for _ in range(3)]
    found = target.runs(2)
    assert [status.id for status in found] == [ids[2], ids[1]]
    assert [(status.name, status.state, status.steps) for status in found] == [("greet", "waiting", ())] * 2
    assert found[0].created > found[1].created
    assert len(server.sent(LIST)) == 1, "the other pages are not read"


def test_runs_that_do_not_fit_on_a_page_are_listed_too(server, target, package):
    ids = [target.submit(package, {"first": "hello"}).id for _ in range(5)]
    assert [status.id for status in target.runs(4)] == [*ids[:0:-1]]
    assert len(server.sent(LIST)) == 2


def test_where_nothing_has_run_the_list_is_empty(target):
    assert target.runs() == []


def test_who_may_not_list_is_told_which_role_to_ask_for(server, target):
    server.fail(LIST, status=403, body={"error": {"message": "Permission denied."}}, times=math.inf)
    with pytest.raises(UserError, match=r"^cannot list the runs: 403 Permission denied; ask for roles/aiplatform.user"):
        target.runs()


def test_a_run_is_cancelled(google, target, run):
    target.cancel(run)
    assert target.status(run).state == "running"
    google.vertex.story = [ends("CANCELLED", task("concatenate", "CANCELLED"))]
    status = target.status(run)
    assert (status.state, states(status)) == ("cancelled", {"concatenate": "stopped"})


def test_a_run_that_has_ended_is_left_alone(google, server, target, run):
    google.vertex.story = [ends("SUCCEEDED")]
    target.cancel(run)
    assert not server.sent("POST *:cancel")


def test_cancelling_is_tried_again_when_its_answer_is_lost(server, target, run, no_pauses):
    server.fail("POST *:cancel", status=503)
    target.cancel(run)
    assert len(server.sent("POST *:cancel")) == 2


# ------------------------------------------------------------------------------------------------------------ logs


def test_the_lines_of_a_step_are_those_of_its_custom_job_page_by_page(google, server, target, run):
    google.vertex.story = [begins(task("concatenate", "RUNNING", job="42"), task("reverse", "RUNNING", job="43"))]
    google.log.entries = {
        "42": ["first", {"message": "second\nthird", "levelname": "INFO"}, {"attrs": {}}, "fourth"],
        "43": ["of another step"],
    }
    assert list(target.logs(run, "concatenate")) == ["first", "second", "third", "fourth"]
    assert len(server.sent(ENTRIES)) == 2


def test_the_log_of_a_step_that_was_tried_again_has_all_attempts(google, target, run):
    detail = task("concatenate", "SUCCEEDED", job="43")
    detail.executor_detail.container_detail.failed_main_jobs = [f"{PARENT}/customJobs/42"]
    google.vertex.story = [begins(detail)]
    google.log.entries = {"42": ["failed"], "43": ["worked"]}
    assert list(target.logs(run, "concatenate")) == ["failed", "worked"]


@pytest.mark.parametrize(
    "state, why", [("SKIPPED", "its results are from an earlier run"), ("PENDING", "it is waiting")]
)
def test_a_step_that_did_not_run_has_no_log(google, target, run, state, why):
    google.vertex.story = [begins(task("concatenate", state))]
    with pytest.raises(UserError, match=f"step concatenate of run {run} has no log: {why}; see https://console"):
        list(target.logs(run, "concatenate"))


def test_an_unknown_step_is_an_error_that_names_those_there_are(google, target, run):
    google.vertex.story = [begins(task("concatenate", "RUNNING", job="42"))]
    with pytest.raises(UserError, match=f"run {run} has no step concat; it has: concatenate"):
        list(target.logs(run, "concat"))


def test_who_may_not_read_logs_is_told_which_role_to_ask_for(google, server, target, run):
    google.vertex.story = [begins(task("concatenate", "RUNNING", job="42"))]
    server.fail(ENTRIES, status=403, body={"error": {"message": "Permission denied."}}, times=math.inf)
    with pytest.raises(UserError, match=r"^cannot read the log: 403 Permission denied; ask for roles/logging.viewer"):
        list(target.logs(run, "concatenate"))


def test_a_log_is_read_through_passing_trouble_without_a_line_twice(google, server, target, run, no_pauses):
    google.vertex.story = [begins(task("concatenate", "RUNNING", job="42"))]
    google.log.entries = {"42": ["1", "2", "3"]}
    server.fail(ENTRIES, status=200, body={"entries": []}, cut=True)
    server.fail(ENTRIES, status=429)
    assert list(target.logs(run, "concatenate")) == ["1", "2", "3"]
