"""The main job, end to end, on the sample of real flights: what is published, and what each gate keeps back."""

import csv
import gzip
import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

import kfp_hybrid

SAMPLE = Path(kfp_hybrid.__file__).parent / "samples" / "flights.csv.gz"


def run(command_line, *parameters, **named):
    pairs = [f"-p{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in named.items()]
    return command_line("run", "train_and_publish", *parameters, *pairs)


@pytest.fixture(scope="module")
def published(shared_command_line):
    """One run that publishes; every later test of this module starts from its cached steps."""
    done = run(shared_command_line, destination="models", slice_columns=["origin"])
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def reports(done):
    return {step: Path(path) for step, path in re.findall(r"report of (\S+): (.+)", done.stdout)}


def test_a_good_model_is_published_as_version_1(published, shared_command_line):
    models = shared_command_line.folder / "models"
    assert (models / "LATEST").read_text().strip() == "1"
    assert (models / "1" / "saved_model.pb").is_file()
    assert (models / "1" / "edge" / "model.tflite").is_file()
    listed = shared_command_line("versions", "models").stdout
    assert re.match(r"\* 1 ", listed)


def test_every_step_of_the_main_job_has_run(published):
    for step in ("ingest-examples", "generate-statistics", "infer-schema", "validate-statistics", "train-model",
                 "evaluate-model", "export-tflite", "validate-serving", "push-model"):  # fmt: skip
        assert f"{step} done" in published.stdout
    assert re.search(r"^skipped: .*report-rejection", published.stdout, re.M)


def test_the_reasons_of_the_gates_are_shown(published):
    for step in ("validate-statistics", "evaluate-model", "export-tflite", "validate-serving"):
        assert re.search(rf"^{step}: \S.+", published.stdout, re.M), step


def test_the_reports_need_no_network(published):
    pages = reports(published)
    assert set(pages) == {"validate-statistics", "evaluate-model", "export-tflite", "validate-serving"}
    for page in pages.values():
        html = page.read_text("utf-8")
        assert "<html" in html
        assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", html), page


def test_publishing_the_same_model_again_changes_nothing(published, shared_command_line):
    again = run(shared_command_line, destination="models", slice_columns=["origin"])
    assert again.returncode == 0, again.stderr
    assert "train-model cached" in again.stdout
    assert "push-model done" in again.stdout
    assert (shared_command_line.folder / "models" / "LATEST").read_text().strip() == "1"


REJECTIONS = {
    "validate_statistics": {"constraints": {"features": {"carrier": {"domain": ["ZZ"]}}}},
    "evaluate_model": {"thresholds": {"auc": {"min": 0.99999}}},
    "export_tflite": {"max_size_bytes": 10},
    "validate_serving": {"max_serving_memory_mb": 0.001},
}


@pytest.mark.parametrize("gate", REJECTIONS)
def test_what_a_gate_rejects_is_not_published(published, shared_command_line, gate):
    done = run(shared_command_line, destination=f"rejected-by-{gate}", slice_columns=["origin"], **REJECTIONS[gate])
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (shared_command_line.folder / f"rejected-by-{gate}").exists()
    assert re.search(r"report-rejection\S* done", done.stdout)
    assert re.search(r"^skipped: .*push-model", done.stdout, re.M)
    page = next(shared_command_line.runs()[-1].rglob("report-rejection*/rejection"), None) or next(
        path for path in shared_command_line.folder.rglob("rejection") if gate in path.read_text()
    )
    assert gate in page.read_text()


@pytest.mark.parametrize("gate", REJECTIONS)
def test_a_strict_run_fails_when_a_gate_rejects(published, shared_command_line, gate):
    done = run(shared_command_line, destination="strict", slice_columns=["origin"], strict=True, **REJECTIONS[gate])
    assert done.returncode == 1
    assert gate in done.stderr
    assert "Traceback" not in done.stderr
    assert not (shared_command_line.folder / "strict").exists()


def sample_with(folder, bad_lines, name="flights.csv"):
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()
    path = folder / name
    path.write_text("\n".join([*lines[:100], *bad_lines, *lines[100:]]) + "\n", encoding="utf-8")
    return path


def manifest_of(folder):
    return json.loads(next(folder.rglob("examples/manifest.json")).read_text())


def test_a_few_bad_rows_are_set_aside_with_their_line_and_the_run_goes_on(command_line):
    source = sample_with(command_line.folder, ["1,2,3", "too,many" + ",x" * 40])
    done = run(command_line, source=str(source), epochs=1, quantizations=["float32"])
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = manifest_of(command_line.runs()[-1])
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as file:
        rows = sum(1 for _ in csv.DictReader(file))
    assert manifest["quarantine"]["rows"] == 2
    assert sum(split["rows"] for split in manifest["splits"].values()) == rows


def test_too_many_bad_rows_stop_the_run_in_one_line(command_line):
    source = sample_with(command_line.folder, ["1,2,3"] * 500)
    done = run(command_line, source=str(source))
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "500" in errors[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"source": "absent.csv"}, "absent.csv"),
     ({"split_column": "no_such_column", "split_values": {"train": [1], "eval": [2]}}, "no_such_column"),
     ({"label": "no_such_label"}, "no_such_label"),
     ({"module": "no_such_module.py"}, "no_such_module.py"),
     ({"thresholds": {"no_such_metric": {"min": 1}}}, "no_such_metric"),
     ({"quantizations": ["no_such_variant"]}, "no_such_variant"),
     ({"destination": "package.yaml/models"}, "package.yaml")],
)  # fmt: skip
def test_a_wrong_value_is_answered_with_one_line_that_names_it(published, shared_command_line, parameters, message):
    (shared_command_line.folder / "package.yaml").touch()
    done = run(shared_command_line, **{"slice_columns": ["origin"], **parameters})
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    assert message in errors[0]
    assert "Traceback" not in done.stderr


def test_unicode_paths_work_throughout(command_line):
    folder = command_line.folder / "données 数据"
    folder.mkdir()
    source = sample_with(folder, [], "vols été.csv")
    done = run(
        command_line, "-o", "läufe", source=str(source), destination="modèles", epochs=1, quantizations=["float32"]
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (command_line.folder / "modèles" / "1" / "saved_model.pb").is_file()


def training_process(folder):
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "train_model" in words and any(str(folder) in word for word in words) and "python" in words[0]:
            return process
    return None


def test_training_that_is_killed_goes_on_where_it_was(command_line):
    started = command_line.start(
        "run", "train_and_publish", "-p", "epochs=30", "-p", "destination=models", "-p", 'quantizations=["float32"]'
    )
    deadline = time.monotonic() + 300
    log = None
    while not (log and re.search(r"epoch 3", log.read_text(errors="replace"))):
        assert time.monotonic() < deadline and started.poll() is None
        log = next((command_line.folder / "kfp-hybrid-runs").glob("*/logs/train-model.log"), None)
        time.sleep(0.05)
    process = training_process(command_line.folder)
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    output, _ = started.communicate(timeout=300)
    assert started.returncode == 1
    assert "ended by SIGKILL" in output
    assert not (command_line.folder / "models").exists()

    again = run(command_line, epochs=30, destination="models", quantizations=["float32"])
    assert again.returncode == 0, again.stdout + again.stderr
    assert "generate-statistics cached" in again.stdout
    log = (command_line.runs()[-1] / "logs" / "train-model.log").read_text()
    resumed = re.search(r"going on after epoch (\d+) from a checkpoint", log)
    assert resumed and int(resumed[1]) >= 2
    assert (command_line.folder / "models" / "LATEST").read_text().strip() == "1"


def test_two_runs_at_once_publish_one_after_the_other(published, shared_command_line):
    common = ["run", "train_and_publish", "-p", "destination=both", "-p", 'slice_columns=["origin"]', "-p", "epochs=1"]
    runs = [shared_command_line.start(*common, "-p", f"seed={seed}") for seed in (7, 8)]
    for started in runs:
        output, _ = started.communicate(timeout=600)
        assert started.returncode == 0, output
    both = shared_command_line.folder / "both"
    assert sorted(path.name for path in both.iterdir() if path.name.isdigit()) == ["1", "2"]
    assert (both / "LATEST").read_text().strip() == "2"
