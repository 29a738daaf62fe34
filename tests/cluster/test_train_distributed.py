"""train_distributed against a real API server, with only the Role it is given; Kubeflow Trainer is played."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kubernetes import client

pytest.importorskip("kubeflow_trainer_api", reason="install kubeflow-trainer-api, which holds the models of TrainJobs")

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("cluster_tests_trainer", Path(__file__).with_name("trainer.py"))
trainer = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(trainer)

PROGRAM = """
import dataclasses, json, sys
from types import SimpleNamespace
from kfp_hybrid.components.training.train_distributed.launch import launch
from kfp_hybrid.components.training.train_distributed.placement import Placement
from kfp_hybrid.components.training.train_model.parameters import Parameters
from kfp_hybrid.step import step
asked = json.loads(sys.argv[1])
with step():
    trained = launch(asked["inputs"], Parameters(**asked["parameters"]), Placement.of(asked["placement"]),
                     SimpleNamespace(**asked["model"]), SimpleNamespace(**asked["logs"]), poll_seconds=0.3)
    print(json.dumps(dataclasses.asdict(trained)))
"""
RESULT = {
    "model/saved_model.pb": "a model",
    "model/variables/variables.index": "",
    "logs/events.out": "events",
    "result.json": json.dumps({"metrics": {"eval_auc": 0.9}, "metadata": {"task": "binary"}}),
}


@pytest.fixture(scope="module")
def train_jobs_defined(admin):
    """The cluster knows TrainJobs; the definition goes afterwards when it was not there before."""
    is_new = trainer.install(admin)
    yield
    if is_new:
        trainer.uninstall(admin)


@pytest.fixture
def play(admin, namespace, train_jobs_defined):
    """Starts a played Trainer in the namespace of the test; what it could not play fails the test."""
    started = []

    def start(script):
        one = trainer.Trainer(admin, namespace, script)
        one.start()
        started.append(one)
        return one

    yield start
    for one in started:
        one.stop()
        assert one.errors == []


@pytest.fixture
def step(account, tmp_path):
    """Starts the launching step as a process with the trainer's Role; it is gone after the test."""
    kubeconfig = account("trainer", ROOT / "manifests/base/trainer-role.yaml")
    processes = []

    def start(inputs=None, environment=None, parameters=None, task="task", **placement):
        asked = {
            "inputs": inputs or {name: f"file://{tmp_path}/{name}" for name in ("examples", "statistics", "schema")},
            "parameters": {"label": "late", **(parameters or {})},
            "placement": {
                "nodes": 2,
                "runtime": "kfp-hybrid-tensorflow",
                "image": "",
                "pod": {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]},
                "namespace": "",
                "storage_secret": "",
                "service_account": "",
                "timeout_seconds": 1500,
                **placement,
            },
            "model": {"uri": f"file://{tmp_path}/store/{task}/model", "path": str(tmp_path / "out" / "model")},
            "logs": {"uri": f"file://{tmp_path}/store/{task}/logs", "path": str(tmp_path / "out" / "logs")},
        }
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(asked)],
            env={**os.environ, "KUBECONFIG": kubeconfig, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def train_jobs(admin, namespace):
    """The TrainJobs of the namespace that are not being deleted."""

    def listed():
        found = client.CustomObjectsApi(admin).list_namespaced_custom_object(
            trainer.GROUP, trainer.VERSION, namespace, trainer.PLURAL
        )
        return [item for item in found["items"] if "deletionTimestamp" not in item["metadata"]]

    return listed


def finish(process, status=0):
    output, log = process.communicate(timeout=1600)
    assert process.returncode == status, log
    return output, log


def wait_for(process, *texts):
    """Read the log until it has these texts; return what was read."""
    read = ""
    for line in process.stderr:
        read += line
        if all(text in read for text in texts):
            return read
    pytest.fail(read)


def succeed(job):
    assert (job.staging / "lease").exists(), "the nodes see that they are waited for"
    job.hand_back(RESULT)
    job.set_condition("Complete")


def test_the_result_of_the_nodes_becomes_that_of_the_step_and_nothing_is_left_behind(play, step, train_jobs, tmp_path):
    played = play(succeed)
    output, _ = finish(step())
    assert json.loads(output) == {"metrics": {"eval_auc": 0.9}, "metadata": {"task": "binary"}}
    assert (tmp_path / "out/model/saved_model.pb").read_text() == "a model"
    assert (tmp_path / "out/logs/events.out").read_text() == "events"
    assert len(played.seen) == 1
    assert train_jobs() == []
    assert not list((tmp_path / "store").rglob("*-staging/*")), "the staging folder is empty"


def test_it_says_what_the_nodes_wait_for_and_how_the_first_gets_on(play, step, server_image):
    said = threading.Event()

    def script(job):
        for node in range(2):
            job.start_pod(node, server_image, f"echo INFO epoch 1/2 of node {node}; sleep 600")
        assert said.wait(1500)
        succeed(job)

    play(script)
    waiting = step()
    log = wait_for(waiting, "INFO node 0: INFO epoch 1/2 of node 0", "node 1: running")
    said.set()
    log += finish(waiting)[1]
    assert log.count("epoch 1/2 of node 0") == 1
    assert "of node 1" not in log


def test_a_failure_names_the_node_that_failed_first_and_why_and_keeps_the_train_job(
    play, step, train_jobs, server_image, tmp_path
):
    def script(job):
        first = job.start_pod(0, server_image, "sleep 2; echo error: another worker has gone; exit 75")
        second = job.start_pod(1, server_image, "echo reading; echo error: label late is missing; exit 1")
        job.wait_for_end(first, second)
        job.set_condition("Failed", "FailedJobs", "jobset failed")

    play(script)
    _, log = finish(step(), status=1)
    last = log.splitlines()[-1]
    assert last.startswith("error: the training has failed: node 1: label late is missing; TrainJob ")
    assert last.endswith("is kept")
    assert "node 1: reading" in log
    assert "Traceback" not in log
    assert len(train_jobs()) == 1
    assert not list((tmp_path / "store").rglob("*-staging/*"))


def test_a_step_that_is_tried_again_after_a_failure_starts_anew(play, step, train_jobs):
    outcomes = iter([lambda job: job.set_condition("Failed", "FailedJobs", "no luck"), succeed])
    played = play(lambda job: next(outcomes)(job))
    _, log = finish(step(), status=1)
    assert "error: the training has failed: FailedJobs: no luck" in log
    _, log = finish(step())
    assert "which failed in an earlier try" in log
    assert len({job["metadata"]["uid"] for job in played.seen}) == 2
    assert train_jobs() == []


def test_a_step_that_is_tried_again_after_a_kill_goes_on_waiting_for_its_train_job(play, step, train_jobs):
    go_on = threading.Event()
    played = play(lambda job: go_on.wait(1500) and succeed(job))
    killed = step()
    wait_for(killed, "started TrainJob")
    killed.kill()
    killed.wait()
    again = step()
    wait_for(again, "going on waiting for TrainJob")
    go_on.set()
    finish(again)
    assert len(played.seen) == 1
    assert train_jobs() == []


def test_a_result_that_was_not_fetched_is_fetched_by_the_next_try(play, step, train_jobs, tmp_path):
    played = play(succeed)
    (tmp_path / "out").write_text("no folder can be made here")
    finish(step(), status=1)
    assert len(train_jobs()) == 1
    (tmp_path / "out").unlink()
    finish(step())
    assert len(played.seen) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_a_stopped_step_takes_its_train_job_with_it(play, step, train_jobs, server_image, admin, namespace, number):
    ready = threading.Event()

    def script(job):
        job.start_pod(0, server_image, "sleep 600")
        ready.set()

    play(script)
    stopped = step()
    wait_for(stopped, "node 0: running")
    stopped.send_signal(number)
    _, log = finish(stopped, status=143)
    assert "stopped: deleted TrainJob" in log
    assert train_jobs() == []
    core = client.CoreV1Api(admin)
    deadline = time.monotonic() + 240
    while core.list_namespaced_pod(namespace).items and time.monotonic() < deadline:
        time.sleep(0.2)
    assert core.list_namespaced_pod(namespace).items == [], "its pods go with it"


def test_a_training_that_finds_no_machine_is_given_up_in_time_and_taken_away(play, step, train_jobs, server_image):
    play(lambda job: job.start_pod(0, server_image, "true", cpu="1000"))
    _, log = finish(step(timeout_seconds=15), status=1)
    last = log.splitlines()[-1]
    assert "the training is not done 15 s after its start: node 0: waits for a machine: " in last
    assert "nsufficient cpu" in last
    assert "FailedScheduling" in log
    assert train_jobs() == []


def test_a_train_job_that_somebody_deletes_ends_the_step(play, step, train_jobs, admin, namespace):
    play(lambda job: None)
    process = step()
    wait_for(process, "started TrainJob")
    (job,) = train_jobs()
    client.CustomObjectsApi(admin).delete_namespaced_custom_object(
        trainer.GROUP, trainer.VERSION, namespace, trainer.PLURAL, job["metadata"]["name"]
    )
    _, log = finish(process, status=1)
    assert "is gone; somebody has deleted it" in log.splitlines()[-1]


def test_the_train_job_belongs_to_the_pod_of_its_step(play, step, train_jobs, admin, namespace, server_image):
    core = client.CoreV1Api(admin)

    def make_pod(name):
        containers = [{"name": "main", "image": server_image, "command": ["/bin/sh", "-c", "sleep 600"]}]
        pod = {"metadata": {"name": name}, "spec": {"containers": containers, "terminationGracePeriodSeconds": 0}}
        made = core.create_namespaced_pod(namespace, pod)
        return {"KFP_POD_NAME": name, "KFP_POD_UID": made.metadata.uid}

    play(lambda job: None)
    first, second = make_pod("first"), make_pod("second")
    killed = step(environment=first)
    wait_for(killed, "started TrainJob")
    killed.kill()
    again = step(environment=second)
    wait_for(again, "going on waiting")
    deadline = time.monotonic() + 120
    while [each["uid"] for each in train_jobs()[0]["metadata"]["ownerReferences"]] != [second["KFP_POD_UID"]]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    again.kill()
    core.delete_namespaced_pod("second", namespace)
    deadline = time.monotonic() + 240
    while train_jobs() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert train_jobs() == [], "it goes with the pod, whatever happened to the step"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"parameters": {"epochs": -1}}, "parameter epochs is -1"),
        ({"parameters": {"hyperparameters": {"units": 1}}}, "units"),
        ({"parameters": {"module": "def build_model(:\n"}}, "module <module>, line 1"),
        ({"parameters": {"strategy": "tpu"}}, "set nodes to 1"),
        ({"inputs": {"examples": "/data"}}, "examples is at /data, which pods of a cluster cannot read"),
    ],
)
def test_what_the_nodes_would_refuse_is_refused_before_they_are_asked_for(step, train_jobs, play, changes, what):
    played = play(succeed)
    _, log = finish(step(**changes), status=1)
    assert what in log.splitlines()[-1]
    assert played.seen == []


def test_without_the_role_it_says_which_right_is_missing(account, step, namespace, train_jobs_defined):
    powerless = account("powerless")
    _, log = finish(step(environment={"KUBECONFIG": powerless}), status=1)
    last = log.splitlines()[-1]
    assert "powerless may not get trainjobs.trainer.kubeflow.org" in last
    assert "manifests/base/trainer-role.yaml" in last


def test_two_nodes_train_for_real(play, step, tmp_path):
    python = [str(Path(sys.executable).with_name("kfp-hybrid")), "python", "tensorflow"]
    made = subprocess.run([*python, "-c", EXAMPLES, tmp_path, ROOT], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr

    def script(job):
        job.train(python)
        job.set_condition("Complete")

    play(script)
    output, _ = finish(step(parameters={"epochs": 1, "batch_size": 64}))
    trained = json.loads(output)
    assert trained["metrics"]["epochs"] == 1
    assert trained["metadata"]["label"] == "late"
    assert (tmp_path / "out/model/saved_model.pb").stat().st_size > 0
    assert list((tmp_path / "out/logs").rglob("events.out*"))


EXAMPLES = """
import importlib.util, sys, types
from pathlib import Path
folder, root = map(Path, sys.argv[1:])
pytest = types.ModuleType("pytest")  # of which the helpers need only the decorator
pytest.fixture = lambda function: function
sys.modules.setdefault("pytest", pytest)
path = root / "tests/unit/tensorflow/training/conftest.py"
spec = importlib.util.spec_from_file_location("training_conftest", path)
made = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = made
spec.loader.exec_module(made)
schema = 'feature { name: "late" not_in_environment: "SERVING" } default_environment: "TRAINING" ' \\
    'default_environment: "SERVING"'
made.write_artifacts(folder, {"train": made.flights(2000), "eval": made.flights(500, seed=1)}, schema)
"""
