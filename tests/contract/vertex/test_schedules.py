"""Schedules on Vertex AI."""

import math

import pytest
from google.cloud.aiplatform_v1 import types

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package
from kfp_hybrid.sources import compile_pipeline

CREATE = "POST /v1/projects/*/schedules"
CRON = "TZ=Europe/Berlin 0 3 * * *"


@pytest.fixture
def schedule(target, package):
    """Makes a schedule."""

    def make(name="nightly", cron=CRON, **more):
        return target.schedule(package, {"first": "hello"}, name=name, cron=cron, **more)

    return make


def test_a_schedule_starts_runs_as_a_submission_would(google, server, open_target, package):
    target = open_target(
        service_account="pipelines@ml-production.iam.gserviceaccount.com",
        encryption_key="projects/ml-production/locations/europe-west4/keyRings/ml/cryptoKeys/pipelines",
        network_attachment="projects/ml-production/regions/europe-west4/networkAttachments/vertex",
        labels={"team": "ml"},
    )
    target.submit(package, {"first": "hello"})
    target.schedule(package, {"first": "hello"}, name="nightly", cron=CRON)
    (submitted,), (resource,) = google.vertex.jobs.values(), google.vertex.schedules.values()
    scheduled = resource.create_pipeline_job_request.pipeline_job
    for field in ("pipeline_spec", "runtime_config", "service_account", "encryption_spec", "psc_interface_config",
                  "labels", "display_name"):  # fmt: skip
        assert getattr(scheduled, field) == getattr(submitted, field), field
    assert (resource.display_name, resource.cron) == ("nightly", CRON)


def test_a_schedule_can_do_without_caching(google, schedule):
    schedule(caching=False)
    (resource,) = google.vertex.schedules.values()
    tasks = resource.create_pipeline_job_request.pipeline_job.pipeline_spec["root"]["dag"]["tasks"]
    assert [task["cachingOptions"] for task in tasks.values()] == [{"enableCache": False}] * 2


def test_a_recurring_prediction_looks_at_the_model_and_the_files_each_time(google, target, tmp_path):
    compile_pipeline("predict", target, tmp_path / "package.yaml")
    places = {
        "model_uri": "gs://models/flights",
        "source": "gs://data/*.csv",
        "destination": "gs://predictions/flights",
    }
    target.schedule(Package.load(tmp_path / "package.yaml"), places, name="nightly", cron=CRON, caching=True)
    (resource,) = google.vertex.schedules.values()
    job = resource.create_pipeline_job_request.pipeline_job
    tasks = job.pipeline_spec["root"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached == {"predict-batch"}  # whose inputs are new in each run
    assert {name: job.runtime_config.parameter_values[name] for name in places} == places


def test_a_schedule_is_reported_and_listed_with_its_page_in_the_console(target, schedule):
    made = schedule()
    assert (made.name, made.cron, made.enabled) == ("nightly", CRON, True)
    assert made.url == (
        "https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/schedules/"
        f"{made.id}?project=ml-production"
    )
    assert target.schedules() == [made]


def test_all_pages_of_schedules_are_listed_but_none_of_notebooks(google, target, schedule):
    made = [schedule(name) for name in ("one", "two", "three")]
    google.vertex.schedules["9"] = types.Schedule(
        name="projects/1/schedules/9", create_notebook_execution_job_request={}
    )
    assert target.schedules() == made[::-1]


def test_a_paused_schedule_is_off(google, target, schedule):
    google.vertex.schedules[schedule().id].state = types.Schedule.State.PAUSED
    assert [found.enabled for found in target.schedules()] == [False]


def test_a_second_schedule_of_the_same_name_is_refused(google, schedule):
    made = schedule()
    with pytest.raises(UserError, match=f"there is a schedule nightly already .*`kfp-hybrid unschedule {made.id}`"):
        schedule(cron="0 4 * * *")
    assert list(google.vertex.schedules) == [made.id]


def test_a_schedule_is_deleted(google, target, schedule):
    target.unschedule(schedule().id)
    assert target.schedules() == []


def test_deleting_is_tried_again_when_its_answer_is_lost(google, server, target, schedule, no_pauses):
    made = schedule()
    server.fail("DELETE /v1/projects/*", after=True, cut=True)
    target.unschedule(made.id)
    assert not google.vertex.schedules


def test_an_unknown_schedule_is_one_line_with_what_to_do(target):
    with pytest.raises(
        UserError, match=r"there is no schedule 7 in project ml-production, .*`kfp-hybrid schedules` lists"
    ):
        target.unschedule("7")


@pytest.mark.parametrize("cron, message", [
    ("daily", "'daily' is no time for a schedule: it takes five fields"),
    ("0 3 * *", "takes five fields"),
    ("0 0 3 * * *", "takes five fields"),
    ("TZ=Europe/Bonn 0 3 * * *", "there is no time zone Europe/Bonn"),
])  # fmt: skip
def test_what_is_no_time_is_refused(server, schedule, cron, message):
    with pytest.raises(UserError, match=message):
        schedule(cron=cron)
    assert not server.requests


def test_a_name_that_is_too_long_is_refused(server, schedule):
    with pytest.raises(UserError, match=r"Vertex AI refuses the schedule aaa.*128"):
        schedule("a" * 129)
    assert not server.sent(CREATE)


def test_wrong_values_are_refused(server, target, package):
    with pytest.raises(UserError, match="needs a value for: first"):
        target.schedule(package, {}, name="nightly", cron=CRON)
    assert not server.sent(CREATE)


@pytest.mark.parametrize("fault", [{"cut": True}, {"status": 503}])
def test_a_lost_answer_is_not_followed_by_a_second_schedule(google, server, schedule, fault):
    server.fail(CREATE, after=True, times=math.inf, **fault)
    with pytest.raises(UserError, match=r"cannot make the schedule: .*; it may have been done all the same, so look"):
        schedule()
    assert len(google.vertex.schedules) == 1
    assert len(server.sent(CREATE)) == 1
