"""Nodes of train_distributed as processes of this machine: they meet, train, and the first hands back the result."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from ports import unused_port

from kfp_hybrid.components.training.train_distributed.request import NODE_LOST, VARIABLE, Request
from kfp_hybrid.components.training.train_model.parameters import Parameters

WORKER = "kfp_hybrid.components.training.train_distributed.worker"
HELD_WORKER = f"""
import logging, runpy, time
make_record = logging.getLogRecordFactory()
def hold(*arguments, **more):
    record = make_record(*arguments, **more)
    if "epoch 2/" in record.getMessage():
        time.sleep(600)
    return record
logging.setLogRecordFactory(hold)
runpy.run_module({WORKER!r}, run_name="__main__")
"""
TRAIN = """
import sys
from kfp_hybrid.components.training.train_distributed.request import Request
from kfp_hybrid.components.training.train_model.training import train
from kfp_hybrid.step import step
with step():
    train(*sys.argv[1:4], Request.from_json(sys.argv[4]).parameters, *sys.argv[5:])
"""
OPTIONS = {"label": "late", "batch_size": 64, "epochs": 2, "early_stopping_patience": 0, "strategy": "multi_worker"}


@pytest.fixture
def ask(flight_artifacts, tmp_path):
    """Makes a request of two nodes for the small examples."""

    def make(**changes):
        inputs = {
            "examples": f"file://{flight_artifacts.examples}",
            "statistics": f"file://{flight_artifacts.statistics}",
            "schema": f"file://{flight_artifacts.schema}",
        }
        parameters = Parameters(**{**OPTIONS, **changes})
        addresses = [f"127.0.0.1:{unused_port()}" for _ in range(2)]
        return Request(inputs, f"file://{tmp_path}/model-staging", parameters, addresses)

    return make


@pytest.fixture
def start(tmp_path):
    """Starts a process with variables of its own; it is gone after the test."""
    processes = []

    def run(arguments, environment):
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, "KFP_HYBRID_CHECKPOINTS": str(tmp_path / "checkpoints"), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def start_node(start):
    """Starts a node as its pod would."""
    return lambda request, index, held=False: start(
        ["-c", HELD_WORKER] if held else ["-m", WORKER],
        {VARIABLE: request.to_json(), "JOB_COMPLETION_INDEX": str(index)},
    )


def finish(process):
    output, _ = process.communicate(timeout=900)
    return process.returncode, output


def weights(folder):
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    names = sorted(n for n in reader.get_variable_to_shape_map() if n.startswith("model_variables"))
    return [reader.get_tensor(name) for name in names]


def wait_for_epoch(process, number):
    """Read the log until an epoch has ended; return what was read."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if f"epoch {number}/" in line:
            return "".join(lines)
    pytest.fail("".join(lines))


def test_two_nodes_hand_back_the_model_that_train_model_makes_on_two_workers(
    ask, start, start_node, flight_artifacts, tmp_path
):
    request = ask()
    nodes = [start_node(request, index) for index in range(2)]
    for status, output in map(finish, nodes):
        assert status == 0, output
    staging = tmp_path / "model-staging"
    assert sorted(path.name for path in staging.iterdir()) == ["logs", "model", "result.json"]
    result = json.loads((staging / "result.json").read_text())
    assert result["metadata"]["task"] == "binary"
    assert result["metrics"]["epochs"] == 2
    assert list((staging / "logs").rglob("events.out*"))
    served = tf.saved_model.load(str(staging / "model")).signatures["serving_default"]
    row = {"delay": [20.0], "wind": [np.nan], "carrier": ["AA"], "weekday": [""]}
    assert served(**{name: tf.constant(value) for name, value in row.items()})["scores"].numpy() > 0.5

    again = ask()
    inputs = [str(flight_artifacts.examples), str(flight_artifacts.statistics), str(flight_artifacts.schema)]
    workers = [
        start(
            ["-c", TRAIN, *inputs, again.to_json(), str(tmp_path / f"model{index}"), str(tmp_path / f"logs{index}")],
            {"TF_CONFIG": json.dumps(again.tf_config(index))},
        )
        for index in range(2)
    ]
    for status, output in map(finish, workers):
        assert status == 0, output
    for ours, theirs in zip(weights(staging / "model"), weights(tmp_path / "model0"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_node_that_is_stopped_makes_the_others_end_so_that_all_can_start_again(ask, start_node, tmp_path):
    request = ask(epochs=4)
    nodes = [start_node(request, 0), start_node(request, 1, held=True)]
    wait_for_epoch(nodes[1], 1)
    nodes[1].send_signal(signal.SIGTERM)
    status, output = finish(nodes[1])
    assert status == 143, output
    status, output = finish(nodes[0])
    assert status == NODE_LOST, output
    assert "another worker has gone" in output.splitlines()[-1]
    assert not (tmp_path / "model-staging").exists()

    again = ask(epochs=4)
    nodes = [start_node(again, index) for index in range(2)]
    for status, output in map(finish, nodes):
        assert status == 0, output
    assert json.loads((tmp_path / "model-staging" / "result.json").read_text())["metrics"]["epochs"] == 4


def test_a_node_ends_when_the_launching_step_is_not_heard_of(ask, start_node):
    request = dataclasses.replace(ask(epochs=100_000, strategy="none"), lease_seconds=3.0)
    status, output = finish(start_node(request, 0))
    assert status == 1, output
    assert "the launching step has not been heard of for 3 s" in output


@pytest.mark.parametrize(
    ("index", "changes", "what"),
    [
        ("", {}, "error: JOB_COMPLETION_INDEX is '', must be the index of this pod"),
        ("2", {}, "error: this pod is node 2, but the training has nodes 0 to 1"),
        ("0", {"label": "wind_", "strategy": "none"}, "error: .*wind_"),
    ],
)
def test_what_another_try_would_not_mend_ends_with_status_1_and_one_line(ask, start, index, changes, what):
    request = ask(**changes)
    node = start(["-m", WORKER], {VARIABLE: request.to_json(), "JOB_COMPLETION_INDEX": index})
    status, output = finish(node)
    assert status == 1, output
    assert re.match(what, output.splitlines()[-1]), output
    assert "Traceback" not in output
