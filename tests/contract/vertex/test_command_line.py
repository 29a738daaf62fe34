"""The command line with a Vertex AI target."""

import pytest
from click.testing import CliRunner
from fake_vertex import State, task

from kfp_hybrid import images
from kfp_hybrid.cli import main
from kfp_hybrid.package import Package, ParameterType
from kfp_hybrid.sources import compile_pipeline, pipeline_names

PROFILE = """
[targets.cloud]
kind = "vertex"
project = "ml-production"
location = "europe-west4"
pipeline_root = "gs://ml-production-pipelines/root"
registry = "europe-west4-docker.pkg.dev/ml-production/ml"
"""
VALUES = {"STRING": "x", "NUMBER_INTEGER": 1, "NUMBER_DOUBLE": 0.5, "BOOLEAN": True, "LIST": [], "STRUCT": {}}


@pytest.fixture
def command(server, tmp_path, monkeypatch):
    """Runs a command and returns its exit status and lines."""
    config = tmp_path / "kfp-hybrid.toml"
    config.write_text(PROFILE)
    monkeypatch.setenv("KFP_HYBRID_CONFIG", str(config))

    def run(*arguments):
        result = CliRunner().invoke(main, [*arguments, *([] if arguments[0] == "doctor" else ["--target", "cloud"])])
        return result.exit_code, result.output

    return run


def test_a_run_is_started_and_watched_to_its_end(google, command):
    def succeed(job):
        job.state = State.PIPELINE_STATE_SUCCEEDED
        job.job_detail.task_details = [task("concatenate", "SUCCEEDED"), task("reverse", "SUCCEEDED", number=2)]

    google.vertex.story = [succeed]
    status, output = command("run", "hello", "-p", "first=good", "--watch")
    assert status == 0, output
    (job,) = google.vertex.jobs.values()
    assert dict(job.runtime_config.parameter_values) == {"first": "good"}
    assert "[2/2] reverse done 30.0 s" in output
    assert output.count("https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/hello-") == 2


def test_a_failed_run_names_the_step_and_how_to_see_its_log(google, command):
    def fail(job):
        job.state = State.PIPELINE_STATE_FAILED
        error = {"code": 9, "message": "The replica exited with status 1."}
        job.job_detail.task_details = [task("concatenate", "FAILED", job="42", error=error)]

    google.vertex.story = [fail]
    status, output = command("run", "hello", "--watch")
    assert status == 1
    (run,) = google.vertex.jobs
    assert "step concatenate failed: The replica exited with status 1." in output
    assert f"its log: kfp-hybrid logs {run} concatenate --target cloud" in output
    google.log.entries = {"42": ["error: the text is empty"]}
    assert command("logs", run) == (0, "error: the text is empty\n")


def test_a_run_is_listed_and_cancelled(google, command):
    command("run", "hello")
    (run,) = google.vertex.jobs
    assert run in command("runs")[1]
    assert command("cancel", run) == (0, f"run {run} is being cancelled\n")


def test_a_schedule_is_made_listed_and_deleted(google, command):
    status, output = command("schedule", "hello", "--cron", "TZ=Europe/Berlin 0 3 * * *", "--name", "nightly")
    assert status == 0
    assert output.startswith("schedule 1000 (nightly, TZ=Europe/Berlin 0 3 * * *): https://console")
    assert "nightly" in command("schedules")[1]
    assert command("unschedule", "1000") == (0, "deleted schedule 1000\n")
    assert not google.vertex.schedules


def test_a_package_is_registered_once(google, command):
    url = "gs://ml-production-pipelines/root/packages/hello/1.0.0.yaml"
    assert command("register", "hello", "--version", "1.0.0") == (0, f"registered hello, version 1.0.0: {url}\n")
    assert command("register", "hello", "--version", "1.0.0") == (0, f"unchanged: hello, version 1.0.0: {url}\n")


def test_doctor_prints_what_to_do(google, command):
    google.images.clear()
    status, output = command("doctor", "cloud")
    assert status == 1
    assert output.count("│ wrong │") == len(images.names())


@pytest.mark.parametrize("name", pipeline_names())
def test_every_pipeline_of_the_collection_is_taken(google, target, tmp_path, name):
    file = tmp_path / f"{name}.yaml"
    compile_pipeline(name, target, file)
    package = Package.load(file)
    kind_of = ParameterType.ParameterTypeEnum.Name
    target.submit(package, {name: VALUES[kind_of(spec.parameter_type)] for name, spec in package.parameters.items()})
    assert len(google.vertex.jobs) == 1
