"""Recurring runs, against an installation on this machine."""

import logging

import pytest

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package
from kfp_hybrid.sources import compile_pipeline
from kfp_hybrid.targets.runs import Schedule

SCHEDULES = "POST /apis/v2beta1/recurringruns"


def test_a_schedule_is_a_recurring_run_of_the_package(installation, open_target, hello):
    target = open_target(installation.url, pipeline_root="s3://bucket/root", service_account="runner")
    made = target.schedule(hello, {"first": "good"}, name="nightly", cron="0 3 * * *")

    (found,) = installation.schedules.values()
    url = f"{installation.url}/#/recurringrun/details/{found['recurring_run_id']}"
    assert made == Schedule(found["recurring_run_id"], "nightly", "0 3 * * *", enabled=True, url=url)
    assert found["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert found["mode"] == "ENABLE"
    assert found["no_catchup"] is True
    assert found["runtime_config"] == {"parameters": {"first": "good"}, "pipeline_root": "s3://bucket/root"}
    assert found["service_account"] == "runner"
    assert found["pipeline_spec"]["platform_spec"]


def test_a_recurring_prediction_looks_at_the_model_and_the_files_each_time(installation, target, tmp_path):
    compile_pipeline("predict", target, tmp_path / "package.yaml")
    places = {
        "model_uri": "s3://models/flights",
        "source": "s3://data/*.csv",
        "destination": "s3://predictions/flights",
    }
    target.schedule(Package.load(tmp_path / "package.yaml"), places, name="nightly", cron="0 3 * * *", caching=True)
    (found,) = installation.schedules.values()
    tasks = found["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached == {"predict-batch"}  # whose inputs are new in each run
    assert found["runtime_config"]["parameters"] == places


def test_schedules_are_listed_and_deleted(installation, target, hello):
    first = target.schedule(hello, {}, name="nightly", cron="0 3 * * *")
    second = target.schedule(hello, {}, name="weekly", cron="30 4 * * 1")
    assert target.schedules() == [second, first]
    target.unschedule(first.id)
    assert target.schedules() == [second]


def test_schedules_come_in_pages(target, hello, monkeypatch):
    from kfp_hybrid.targets.kubeflow import schedules

    monkeypatch.setattr(schedules, "PAGE_SIZE", 2)
    made = [target.schedule(hello, {}, name=f"number-{number}", cron="0 3 * * *") for number in range(5)]
    assert target.schedules() == made[::-1]


def test_schedules_made_in_the_console_are_listed_as_they_are(installation, target, hello):
    for name, trigger in {
        "seconds": {"cron_schedule": {"cron": "30 0 3 * * *"}},
        "period": {"periodic_schedule": {"interval_second": "3600"}},
    }.items():
        made = target.schedule(hello, {}, name=name, cron="0 3 * * *")
        installation.schedules[made.id].update(trigger=trigger, mode="DISABLE", status="DISABLED")
    assert {found.name: (found.cron, found.enabled) for found in target.schedules()} == {
        "seconds": ("30 0 3 * * *", False),
        "period": ("@every 3600s", False),
    }


def test_a_name_that_is_taken(installation, target, hello):
    there = target.schedule(hello, {}, name="nightly", cron="0 3 * * *")
    with pytest.raises(UserError, match=f"there is a schedule nightly already .*kfp-hybrid unschedule {there.id}"):
        target.schedule(hello, {}, name="nightly", cron="0 4 * * *")
    assert len(installation.schedules) == 1


def test_a_schedule_that_is_not_there(target):
    with pytest.raises(UserError, match=r"cannot delete schedule nothing: .* 404 .*Job nothing not found"):
        target.unschedule("nothing")


def test_a_time_zone_cannot_be_kept_and_utc_only_as_a_rule(installation, target, hello, caplog):
    with pytest.raises(UserError, match="Europe/Berlin cannot be kept"):
        target.schedule(hello, {}, name="nightly", cron="TZ=Europe/Berlin 0 3 * * *")
    assert not installation.schedules
    with caplog.at_level(logging.WARNING):
        assert target.schedule(hello, {}, name="nightly", cron="TZ=UTC 0 3 * * *").cron == "0 3 * * *"
    assert "time zone of the installation" in caplog.text


@pytest.mark.parametrize("cron", ["", "0 3 * *", "0 0 3 * * *", "@daily"])
def test_what_is_no_five_fields_is_refused_before_anything_is_made(installation, target, hello, cron):
    with pytest.raises(UserError, match="is no cron expression of five fields"):
        target.schedule(hello, {}, name="nightly", cron=cron)
    assert not installation.served.requests


@pytest.mark.parametrize("how", [{"cut": True}, {"status": 502}], ids=["reset", "gateway error"])
def test_a_schedule_whose_answer_is_lost_is_not_made_twice(installation, target, hello, how):
    installation.fail(SCHEDULES, after=True, **how)
    made = target.schedule(hello, {}, name="nightly", cron="0 3 * * *")
    assert list(installation.schedules) == [made.id]
    assert len(installation.sent(SCHEDULES)) == 1


def test_a_deletion_whose_answer_is_lost_is_one(installation, target, hello):
    made = target.schedule(hello, {}, name="nightly", cron="0 3 * * *")
    installation.fail("DELETE *", after=True, cut=True)
    target.unschedule(made.id)
    assert not installation.schedules
