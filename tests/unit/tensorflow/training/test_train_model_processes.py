"""Trainings in processes of their own: killed, at the same time, on several devices and on several workers."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from ports import unused_port

PROGRAM = """
import json, os, sys
devices = int(os.environ.get("TEST_DEVICES", "1"))
if "TEST_FILE_BYTES" in os.environ:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["TEST_FILE_BYTES"]),) * 2)
if devices > 1:
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
if "TEST_HOLD_BEFORE" in os.environ:
    import logging, time
    make_record = logging.getLogRecordFactory()
    def hold(*arguments, **more):
        record = make_record(*arguments, **more)
        if os.environ["TEST_HOLD_BEFORE"] in record.getMessage():
            time.sleep(600)
        return record
    logging.setLogRecordFactory(hold)
from kfp_hybrid.step import step
from kfp_hybrid.components.training.train_model import training
examples, statistics, schema, parameters, out = sys.argv[1:]
with step():
    trained = training.train(examples, statistics, schema, training.Parameters(**json.loads(parameters)),
                             os.path.join(out, "model"), os.path.join(out, "logs"))
    print(json.dumps(trained.metrics))
"""


@pytest.fixture
def start(flight_artifacts, tmp_path):
    """Starts a training in a process and returns the process; the process is gone after the test."""
    processes = []

    def run(out, environment=None, **changes):
        parameters = {"label": "late", "epochs": 6, "batch_size": 64, "early_stopping_patience": 0, **changes}
        a = flight_artifacts
        command = [sys.executable, "-c", PROGRAM, a.examples, a.statistics, a.schema, json.dumps(parameters)]
        process = subprocess.Popen(
            [*map(str, command), str(tmp_path / out)],
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def finish(process):
    output, log = process.communicate(timeout=900)
    assert process.returncode == 0, log
    return json.loads(output.splitlines()[-1]), log


def weights(folder):
    reader = tf.train.load_checkpoint(str(folder / "model" / "variables" / "variables"))
    names = sorted(n for n in reader.get_variable_to_shape_map() if n.startswith("model_variables"))
    return [reader.get_tensor(name) for name in names]


def wait_for_epoch(process, number):
    """Read the log until an epoch has ended."""
    for line in process.stderr:
        if f"epoch {number}/" in line:
            return
    pytest.fail(f"the training ended before epoch {number}")


@pytest.mark.parametrize(
    "changes", [{}, {"early_stopping_patience": 3, "learning_rate": 0.02}], ids=["all epochs", "early stopping"]
)
def test_a_killed_training_goes_on_and_ends_as_if_it_had_not_been_killed(start, tmp_path, changes):
    options = {"epochs": 12, "hyperparameters": {"dropout": 0.2}, "checkpoint_dir": str(tmp_path / "checkpoints")}
    expected, _ = finish(start("whole", **{**options, **changes, "checkpoint_dir": str(tmp_path / "elsewhere")}))
    killed = start("killed", {"TEST_HOLD_BEFORE": "epoch 3/"}, **{**options, **changes})
    wait_for_epoch(killed, 2)
    time.sleep(0.05)  # somewhere inside the third epoch
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "model").exists()
    resumed, log = finish(start("killed", **{**options, **changes}))
    assert "going on after epoch" in log
    assert "epoch 1/12" not in log
    for name in ("train_loss", "eval_loss", "eval_auc", "epochs", "published_epoch"):
        assert resumed[name] == expected[name]
    for ours, theirs in zip(weights(tmp_path / "killed"), weights(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not (tmp_path / "checkpoints").exists()


def test_a_changed_training_does_not_go_on_from_foreign_checkpoints(start, tmp_path):
    options = {"epochs": 12, "checkpoint_dir": str(tmp_path / "checkpoints")}
    killed = start("killed", {"TEST_HOLD_BEFORE": "epoch 2/"}, **options)
    wait_for_epoch(killed, 1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    _, log = finish(start("changed", **{**options, "learning_rate": 0.002}))
    assert "epoch 1/12" in log
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1  # those of the killed training are still there


def test_sigterm_stops_a_training_without_a_trace_and_it_can_go_on(start, tmp_path):
    environment = {"KFP_HYBRID_CHECKPOINTS": str(tmp_path / "runner")}
    stopped = start("out", environment, epochs=100_000)
    wait_for_epoch(stopped, 1)
    stopped.terminate()
    stopped.communicate(timeout=120)
    assert stopped.returncode == 143
    assert [file.name for file in (tmp_path / "out").iterdir()] == []
    assert len(list((tmp_path / "runner").iterdir())) == 1
    resumed = start("out", environment, epochs=100_000)
    for line in resumed.stderr:
        if "going on after epoch" in line:
            break
    else:
        pytest.fail("the training started from the beginning")


def test_equal_trainings_at_once_both_succeed_with_the_same_model(start, tmp_path):
    checkpoints = str(tmp_path / "checkpoints")
    both = [start(name, {"TF_CPP_MIN_LOG_LEVEL": "3"}, checkpoint_dir=checkpoints) for name in ("one", "two")]
    (first, log), (second, _) = [finish(process) for process in both]
    assert first["eval_loss"] == second["eval_loss"]
    assert all(line.startswith("INFO ") for line in log.splitlines()), log  # and none of TensorFlow's own
    for ours, theirs in zip(weights(tmp_path / "one"), weights(tmp_path / "two"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not (tmp_path / "checkpoints").exists()


def test_mirrored_devices_learn_what_one_device_learns(start, tmp_path):
    options = {"class_weights": {"balanced": True}, "batch_size": 63}  # which two devices cannot share evenly
    one, _ = finish(start("one", strategy="none", **options))
    two, log = finish(start("two", {"TEST_DEVICES": "2"}, strategy="mirrored", **options))
    assert "strategy mirrored trains on 2 replicas" in log
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
    assert two["eval_auc"] == pytest.approx(one["eval_auc"], abs=1e-3)
    for ours, theirs in zip(weights(tmp_path / "one"), weights(tmp_path / "two"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_two_workers_learn_what_one_device_learns_and_the_chief_publishes(start, tmp_path):
    one, _ = finish(start("one", strategy="none", epochs=3))
    cluster = {"worker": [f"127.0.0.1:{unused_port()}" for _ in range(2)]}
    workers = [
        start(
            f"worker{i}",
            {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})},
            strategy="multi_worker",
            epochs=3,
        )
        for i in range(2)
    ]
    results = [finish(process)[0] for process in workers]
    assert results[0]["eval_loss"] == results[1]["eval_loss"]
    assert results[0]["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-3)
    assert (tmp_path / "worker0" / "model" / "saved_model.pb").exists()
    assert not (tmp_path / "worker1" / "model").exists()
    for ours, theirs in zip(weights(tmp_path / "one"), weights(tmp_path / "worker0"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.02)


@pytest.mark.parametrize(("limit", "what"), [(10_000, "cannot write a checkpoint"), (110_000, "cannot write .*model:")])
def test_a_full_disk_is_one_line_and_leaves_no_half_model(start, tmp_path, limit, what):
    process = start("full", {"TEST_FILE_BYTES": str(limit)}, epochs=1, checkpoint_dir=str(tmp_path / "checkpoints"))
    _, log = process.communicate(timeout=900)
    assert process.returncode == 1, log
    assert re.match(f"error: {what}", log.splitlines()[-1]), log
    assert "Traceback" not in log
    assert list((tmp_path / "full").iterdir()) == []


@pytest.mark.parametrize(
    ("strategy", "environment", "message"),
    [
        ("tpu", {}, "strategy is tpu, but no TPU was found"),
        ("multi_worker", {"TF_CONFIG": "{"}, "the environment variable TF_CONFIG is not usable"),
        ("multi_worker", {}, "the environment variable TF_CONFIG is not set"),
    ],
)
def test_a_strategy_without_its_machines_is_one_line(start, strategy, environment, message):
    process = start("none", environment, strategy=strategy)
    _, log = process.communicate(timeout=900)
    assert process.returncode == 1
    assert log.splitlines()[-1].startswith("error: ")
    assert message in log.splitlines()[-1]
    assert "Traceback" not in log
