"""The main job on Kubeflow Pipelines: it runs, what it leaves is whole, and its gates keep back what they reject."""

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from end_to_end_suite.store import RunStore
from end_to_end_suite.suite import SMALL

import kfp_hybrid
from kfp_hybrid.edge.bundle import Bundle

IMPOSSIBLE = {"auc": {"min": 0.99999}}
READ_STATISTICS = """
import sys
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList
with open(sys.argv[1], "rb") as file:
    found = DatasetFeatureStatisticsList.FromString(file.read())
for dataset in found.datasets:
    print(dataset.name, dataset.num_examples, len(dataset.features))
"""


def states(status):
    return {step.name: step.state for step in status.steps}


def rejections(status):
    return [step.name for step in status.steps if step.name.startswith("report-rejection") and step.state != "skipped"]


@pytest.fixture(scope="session")
def steps(main_job):
    """The steps of a run that publishes and does not deploy, and whether each may take its result from the cache."""
    found = tasks(main_job, main_job.spec.root.dag)
    return {name: cache for name, cache in found if not name.startswith(("report-rejection", "deploy-model"))}


def tasks(package, dag):
    for name, task in dag.tasks.items():
        component = package.spec.components[task.component_ref.name]
        if component.WhichOneof("implementation") == "dag":
            yield from tasks(package, component.dag)
        else:
            yield name, task.caching_options.enable_cache


@pytest.fixture
def artifact(store: RunStore, main_job, first, tmp_path):
    """Fetches an artifact of the first run."""
    return lambda step, name: store.artifact(main_job.name, first.id, step, name, tmp_path)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_every_step_of_the_main_job_runs(first, steps):
    assert first.state == "succeeded", first.message
    found = states(first)
    assert {step: found.get(step) for step in steps} == dict.fromkeys(steps, "done")
    assert rejections(first) == []
    assert found["deploy-model"] == "skipped"


def test_the_examples_are_those_that_their_manifest_describes(artifact):
    folder = artifact("ingest-examples", "examples")
    manifest = json.loads((folder / "manifest.json").read_text())
    files = [file for split in manifest["splits"].values() for file in split["files"]]
    assert files
    for file in files:
        assert sha256(folder / file["path"]) == file["sha256"], f"{file['path']} is not what the manifest says"
    with gzip.open(Path(kfp_hybrid.__file__).parent / "samples/flights.csv.gz", "rt") as sample:
        rows = sum(1 for _ in sample) - 1
    assert sum(split["rows"] for split in manifest["splits"].values()) == rows


def test_the_statistics_can_be_read_and_count_the_examples(artifact):
    splits = json.loads((artifact("ingest-examples", "examples") / "manifest.json").read_text())["splits"]
    file = artifact("generate-statistics", "statistics") / "stats.pb"
    command = [Path(sys.executable).with_name("kfp-hybrid"), "python", "validation", "-c", READ_STATISTICS, file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    datasets = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert {name: int(counts[0]) for name, counts in datasets.items()} == {
        name: split["rows"] for name, split in splits.items()
    }
    assert all(int(counts[1]) > 0 for counts in datasets.values())


def test_the_published_model_is_whole(artifact):
    versions = artifact("push-model", "pushed")
    assert (versions / "LATEST").read_text().strip() == "1"
    check_published(versions / "1")


def check_published(version: Path):
    manifest = json.loads((version / "MANIFEST.json").read_text())
    files = manifest["files"]
    for needed in ("saved_model.pb", "variables/variables.index", "edge/model.tflite"):
        assert needed in files, f"the manifest has no {needed}"
    for name, entry in files.items():
        assert sha256(version / name) == entry["sha256"], f"{name} is not what the manifest says"
    assert Bundle.open(version / "edge").quantization == "dynamic_range"


def test_the_edge_bundle_is_whole(artifact):
    assert Bundle.open(artifact("export-tflite", "bundle")).json("labels.json")["label"] == "late"


# ------------------------------------------------------------------------------------------------------- the cache


@pytest.fixture(scope="session")
def destination(target, store, name):
    """Where models are published: in the store when steps have credentials for it, else in the run."""
    root = store.root.partition("?")[0].rstrip("/")
    return f"{root}/models-{name}" if "storage" in target.profile.secrets else ""


@pytest.fixture(scope="session")
def second(first, suite, main_job, destination):
    assert first.state == "succeeded"
    return suite.run(main_job, **SMALL, destination=destination)


def test_a_second_run_takes_results_from_the_cache_but_publishes_anew(second, steps):
    assert second.state == "succeeded", second.message
    found = states(second)
    assert {step: found[step] for step in steps} == {
        step: "cached" if may_be_cached else "done" for step, may_be_cached in steps.items()
    }
    assert found["push-model"] == "done"


def test_steps_from_the_cache_start_no_program_and_write_nothing(second, store, main_job, pods, steps):
    for step in [step for step, may_be_cached in steps.items() if may_be_cached]:
        assert [pod["metadata"]["name"] for pod in pods.of(second.id, step)] == []
        assert store.keys(main_job.name, second.id, step) == [], step
    assert len(pods.of(second.id, "push-model")) == 1


def test_a_model_is_published_to_the_object_store(second, store, storage_secret, name, tmp_path):
    folder = f"models-{name}/1"
    for entry in store.store.entries(f"{folder}/"):
        file = tmp_path / entry.key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(store.store.read(entry.key))
    check_published(tmp_path / folder)


def test_data_are_read_from_the_object_store(suite, store, storage_secret, name, tmp_path):
    sample = Path(kfp_hybrid.__file__).parent / "samples/flights.csv.gz"
    key = f"data-{name}/flights.csv.gz"
    store.store.write_bytes(key, sample.read_bytes())
    package = suite.package("ingestion")
    status = suite.run(package, source=f"{store.root.partition('?')[0].rstrip('/')}/{key}")
    assert status.state == "succeeded", status.message
    folder = store.artifact(package.name, status.id, "ingest-examples", "examples", tmp_path)
    assert sum(split["rows"] for split in json.loads((folder / "manifest.json").read_text())["splits"].values()) > 0


# ------------------------------------------------------------------------------------------------------- the gates


def test_what_a_gate_rejects_is_not_published_and_the_reason_is_in_the_run(
    first, suite, store, main_job, destination, tmp_path, target, name
):
    assert first.state == "succeeded"
    elsewhere = destination.replace("models-", "rejected-models-")
    status = suite.run(main_job, **SMALL, thresholds=IMPOSSIBLE, destination=elsewhere)
    assert status.state == "succeeded", f"a gate that rejects is no failure: {status.message}"
    found = states(status)
    assert found["evaluate-model"] == "done"
    assert found["push-model"] == "skipped"
    (reporter,) = rejections(status)
    page = store.artifact(main_job.name, status.id, reporter, "rejection", tmp_path).read_text()
    assert "rejected by evaluate_model: " in page and "auc" in page
    assert any("rejected by evaluate_model: " in line for line in target.logs(status.id, reporter))
    assert store.keys(main_job.name, status.id, "push-model") == []
    assert f"rejected-models-{name}" not in store.store.folders()


def test_a_strict_gate_fails_the_run(first, suite, main_job):
    assert first.state == "succeeded"
    status = suite.run(main_job, **SMALL, thresholds=IMPOSSIBLE, strict=True)
    assert status.state == "failed"
    (reporter,) = rejections(status)
    assert states(status)[reporter] == "failed"
    assert states(status)["push-model"] == "skipped"
