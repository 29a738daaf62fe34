"""Starting runs, against an installation on this machine."""

import json
import logging

import pytest
from kfp import dsl

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package

RUNS = "POST /apis/v2beta1/runs"


def test_a_run_has_the_package_the_arguments_and_what_the_profile_says(installation, open_target, hello):
    target = open_target(
        installation.url, experiment="flights", pipeline_root="s3://bucket/root", service_account="runner"
    )
    status = target.submit(hello, {"first": "good"})

    (run,) = installation.runs.values()
    assert status.id == run["run_id"]
    assert (status.name, status.state) == (run["display_name"], "waiting")
    assert status.name.startswith("hello-")
    assert status.url == f"{installation.url}/#/runs/details/{run['run_id']}"
    assert run["runtime_config"] == {"parameters": {"first": "good"}, "pipeline_root": "s3://bucket/root"}
    assert run["service_account"] == "runner"
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "hello"
    executors = run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == {"exec-concatenate", "exec-reverse"}
    (experiment,) = installation.experiments.values()
    assert (experiment["display_name"], experiment["experiment_id"]) == ("flights", run["experiment_id"])


def test_the_experiment_is_made_once(installation, target, hello):
    target.submit(hello, {})
    target.submit(hello, {})
    assert len(installation.experiments) == 1
    assert len(installation.runs) == 2


def test_nothing_is_printed(target, hello, capsys):
    target.submit(hello, {})
    assert capsys.readouterr() == ("", "")


def test_the_namespace_of_the_profile_is_used_also_when_it_is_kubeflow(installation, open_target, hello):
    installation.namespaces = {"kubeflow"}
    open_target(installation.url, namespace="kubeflow").submit(hello, {})
    (experiment,) = installation.experiments.values()
    assert experiment["namespace"] == "kubeflow"


def test_a_package_of_one_document_is_taken_too(installation, target, hello):
    pipeline_only = Package(hello.spec, hello.text.split("\n---\n")[0])
    target.submit(pipeline_only, {})
    (run,) = installation.runs.values()
    assert run["pipeline_spec"]["pipelineInfo"]["name"] == "hello"


def caching(run):
    spec = run["pipeline_spec"]["pipeline_spec"]
    dags = [spec["root"], *(component for component in spec["components"].values() if "dag" in component)]
    return {
        name: task.get("cachingOptions", {}).get("enableCache", False)
        for component in dags
        for name, task in component["dag"]["tasks"].items()
    }


@pytest.fixture
def branching(target, tmp_path):
    from kfp_hybrid.sources import compile_pipeline

    path = tmp_path / "package.yaml"
    compile_pipeline("train_without_code", target, path)
    return Package.load(path)


def test_caching_leaves_alone_the_steps_that_must_not_have_it(installation, target, branching):
    target.submit(branching, {}, caching=True)
    (run,) = installation.runs.values()
    cached = caching(run)
    assert cached["generate-statistics"] and not cached["report-rejection"]


def test_without_caching_also_the_steps_in_branches_have_none(installation, target, branching):
    target.submit(branching, {}, caching=False)
    (run,) = installation.runs.values()
    assert not any(caching(run).values())


def test_kfps_own_settings_of_the_user_are_neither_read_nor_written(
    installation, open_target, hello, tmp_path, monkeypatch
):
    from kfp.client import Client

    context = tmp_path / "context.json"
    context.write_text(json.dumps({"namespace": "somebody", "client_authentication_cookie": "session=old"}))
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(context))
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("KF_PIPELINES_IAP_OAUTH2_CLIENT_ID", "id")
    before = context.read_text()

    open_target(installation.url).submit(hello, {})

    assert all(request.headers["Cookie"] is None for request in installation.served.requests)
    assert installation.served.requests[0].query["namespace"] == ""
    assert context.read_text() == before


# ------------------------------------------------------------------------------------------------------- trouble


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_trouble_before_the_server_acts_is_tried_again_and_said(installation, target, hello, status, caplog):
    installation.fail(RUNS, status=status, body={"message": "upstream connect error"})
    with caplog.at_level(logging.WARNING):
        target.submit(hello, {})
    assert len(installation.runs) == 1
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"answers {status}" in said and said.endswith("upstream connect error; trying again")


@pytest.mark.parametrize(
    "how",
    [
        {"cut": True},
        {"cut": True, "status": 200, "body": {"run_id": "id-2", "display_name": "x" * 2000}},
        {"status": 502},
    ],
    ids=["reset", "cut in the middle", "gateway error"],
)
def test_a_run_whose_answer_is_lost_is_found_and_not_started_twice(installation, target, hello, how):
    installation.fail(RUNS, after=True, **how)
    status = target.submit(hello, {})
    assert list(installation.runs) == [status.id]
    assert len(installation.sent(RUNS)) == 1


def test_the_search_for_a_lost_run_can_fail_too(installation, target, hello):
    installation.fail(RUNS, after=True, cut=True)
    installation.fail("GET /apis/v2beta1/runs", status=503)
    assert target.submit(hello, {}).id in installation.runs
    assert len(installation.runs) == 1


def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(installation, target, hello, monkeypatch):
    from kfp_hybrid.targets.kubeflow import client

    monkeypatch.setattr(client, "READ_TIMEOUT", 2.0)
    installation.fail(RUNS, after=True, seconds=300.0)
    assert target.submit(hello, {}).id in installation.runs
    assert len(installation.runs) == 1


def test_an_installation_that_stays_broken_is_given_up(installation, target, hello, always):
    target.client.patience = 0.1
    installation.fail("* *", status=500, body={"message": "database is locked"}, times=always)
    with pytest.raises(UserError, match=r"answers 500 .*: database is locked; gave up after 0.1 s"):
        target.submit(hello, {})


def test_what_the_server_refuses_is_said_and_not_tried_again(installation, open_target, hello):
    target = open_target(installation.url)
    with pytest.raises(UserError, match=r"cannot start a run of hello: .* answers 400 .*: parameter third not found"):
        target.submit(hello, {"third": 3})
    assert len(installation.sent(RUNS)) == 1


def test_a_package_that_would_fail_is_refused_before_anything_is_sent(installation, target, tmp_path):
    @dsl.component(base_image="python:3.11")
    def show(text: str):
        print(text)

    @dsl.pipeline(name="embedded")
    def pipeline():
        show(text=f"run {dsl.PIPELINE_JOB_ID_PLACEHOLDER}")

    target.compile(pipeline, tmp_path / "package.yaml")
    with pytest.raises(UserError, match=r"^embedded would fail on .*: step show: .*KH102"):
        target.submit(Package.load(tmp_path / "package.yaml"), {})
    assert not installation.runs
