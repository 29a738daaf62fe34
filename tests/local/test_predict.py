"""`kfp-hybrid predict` as a user has it: files in, Parquet and a table out, with and without Beam."""

import contextlib
import csv
import gzip
import json
import os
import signal
import subprocess
import time
from importlib.resources import files

import pytest

MAKE_BUNDLE = """
import json, sys
from pathlib import Path
import keras
from kfp_hybrid.components.deployment.export_tflite.conversion import SourceModel, convert
from kfp_hybrid.components.training.train_model import serving
from kfp_hybrid.components.training.train_model.wide_and_deep import build_model
from kfp_hybrid.edge.bundle import LABELS, MODEL, PREPROCESSING, SAMPLES, write_bundle
from kfp_hybrid.preprocessing import Categorical, Label, Numeric, Preprocessing
folder = Path(sys.argv[1])
numbers = (Numeric("dep_delay", 10.0, 40.0, 0.0, (0.0, 20.0)), Numeric("distance", 1000.0, 700.0, 900.0, (500.0,)))
carrier = Categorical("carrier", "string", ("AA", "B6", "UA"))
preprocessing = Preprocessing("binary", Label("late", (0, 1)), numbers, (carrier,))
keras.utils.set_random_seed(1)
(folder / "schema.pbtxt").write_text("")
model = build_model(preprocessing, {"hidden_units": [16]})
serving.export(model, preprocessing, folder / "schema.pbtxt", folder / "model")
SourceModel(folder / "model").freeze(folder / "frozen")
preprocessing.save(folder / "preprocessing.json")
labels = {"task": "binary", "label": "late", "classes": [0, 1]}
contents = {MODEL: convert(folder / "frozen", "float32", {}), LABELS: json.dumps(labels).encode(), SAMPLES: b"{}",
            PREPROCESSING: (folder / "preprocessing.json").read_bytes()}
write_bundle(folder / "bundle", contents, quantization="float32")
"""
READ = """
import json, sys
from kfp_hybrid.data.examples import Examples
print(json.dumps([row for batch in Examples.open(sys.argv[1]).batches("rows") for row in batch.to_pylist()]))
"""
TIME = ("--time", "2026-01-31T06:00:00Z")


@pytest.fixture(scope="module")
def command_line(shared_command_line):
    """With a model, its edge bundle, and flights.csv, whose rows have numbers."""
    folder = shared_command_line.folder
    made = shared_command_line("python", "tensorflow", "-c", MAKE_BUNDLE, folder)
    assert made.returncode == 0, made.stderr
    with gzip.open(str(files("kfp_hybrid") / "samples/flights.csv.gz"), "rt") as source:
        rows = list(csv.reader(source))
    with (folder / "flights.csv").open("w", newline="") as target:
        csv.writer(target).writerows([["id", *rows[0]], *([i, *row] for i, row in enumerate(rows[1:]))])
    return shared_command_line


def predictions(command_line, folder):
    return json.loads(command_line("python", "tensorflow", "-c", READ, folder).stdout)


@pytest.fixture(scope="module")
def predicted(command_line):
    """The predictions of the bundle, with a table."""
    done = command_line("predict", "bundle", "flights.csv", "-o", "plain", "--key", "id", "--to-table", *TIME)
    assert done.returncode == 0, done.stderr
    assert "wrote plain: 6,000 rows by model version" in done.stdout
    assert done.stdout.endswith("and a table of 6,000 keys\n")
    return predictions(command_line, "plain")


def test_files_become_predictions_and_a_table(predicted, command_line):
    assert [row["id"] for row in predicted] == list(range(6000))
    assert {row["predicted"] for row in predicted} == {0, 1}
    assert sorted(path.name for path in command_line.folder.glob("plain/*")) == ["manifest.json", "rows", "table"]


def test_beam_in_its_own_image_gives_the_same_predictions(predicted, command_line):
    options = ("--runner", "DirectRunner", "--runner-option=--direct_num_workers=2", "--key", "id", "--to-table", *TIME)
    done = command_line("predict", "bundle", "flights.csv", "-o", "beam", *options)
    assert done.returncode == 0, done.stderr
    assert predictions(command_line, "beam") == predicted
    ours, theirs = (
        {file.name: file.read_bytes() for file in (command_line.folder / name / "table").glob("*.bin")}
        for name in ("plain", "beam")
    )
    assert ours == theirs


def test_options_of_a_runner_need_a_runner(command_line):
    done = command_line("predict", "bundle", "flights.csv", "-o", "none", "--exchange", "s3://bucket/exchange")
    assert done.returncode != 0
    assert "name it by --runner" in done.stderr


def test_a_command_that_was_killed_goes_on_when_it_is_started_again(predicted, command_line):
    command = [*command_line.program, "predict", "bundle", "flights.csv", "-o", "killed", "--key", "id", "--to-table"]
    start = {"cwd": command_line.folder, "env": command_line.environ, "start_new_session": True}
    process = subprocess.Popen([*command, *TIME], **start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(command_line.folder.glob(".checkpoints/*/rows/*.parquet")):
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):  # it was quicker
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = command_line(*command[1:], *TIME)
    assert done.returncode == 0, done.stderr
    assert predictions(command_line, "killed") == predicted
    assert not (command_line.folder / ".checkpoints").exists()
