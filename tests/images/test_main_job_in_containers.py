"""The main job as containers: the same results as in the environments of the images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kfp_hybrid.cli.options import cache_folder

PARAMETERS = ["-p", "epochs=2", "-p", 'slice_columns=["origin"]', "-p", "destination=models"]


class Job:
    """The main job, run once in a folder of its own."""

    def __init__(self, folder, *options):
        self.folder = folder
        cache = folder / "cache"
        cache.mkdir(parents=True)
        (cache_folder() / "environments").mkdir(parents=True, exist_ok=True)
        (cache / "environments").symlink_to(cache_folder() / "environments")
        self.done = subprocess.run(
            [str(Path(sys.executable).with_name("kfp-hybrid")), "run", "train_and_publish", *PARAMETERS, *options],
            cwd=folder, env={**os.environ, "KFP_HYBRID_CACHE": str(cache)}, capture_output=True, text=True,
        )  # fmt: skip
        assert self.done.returncode == 0, self.done.stdout + self.done.stderr
        (self.run,) = (folder / "kfp-hybrid-runs").iterdir()

    def file(self, name):
        (path,) = (self.run / "artifacts").glob(f"*/{name}")
        return path

    def json(self, name):
        return json.loads(self.file(name).read_text())

    def output(self, step):
        return self.json(f"{step}/executor_output.json")


@pytest.fixture(scope="module")
def containers(tmp_path_factory):
    return Job(tmp_path_factory.mktemp("containers") / "job", "--runner", "docker")


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
    return Job(tmp_path_factory.mktemp("environments") / "job")


def test_the_splits_are_the_same_to_the_byte(containers, environments):
    ours, theirs = (job.json("ingest-examples/examples/manifest.json")["splits"] for job in (containers, environments))
    assert ours == theirs
    assert any("sha256" in json.dumps(split) for split in ours.values())


@pytest.mark.parametrize("proto", ["generate-statistics/statistics/stats.pb", "infer-schema/schema/schema.pbtxt",
                                   "validate-statistics/anomalies/train.pbtxt",
                                   "validate-statistics/anomalies/eval.pbtxt"])  # fmt: skip
def test_the_protos_are_the_same(containers, environments, proto):
    assert containers.file(proto).read_bytes() == environments.file(proto).read_bytes()


def test_the_metrics_are_the_same_but_for_float_noise(containers, environments):
    ours, theirs = (job.json("evaluate-model/evaluation/evaluation.json") for job in (containers, environments))
    compared = [(ours["overall"]["metrics"], theirs["overall"]["metrics"])]
    compared += [(a["metrics"], b["metrics"]) for a, b in zip(ours["slices"], theirs["slices"], strict=True)]
    assert len(compared) > 3
    for a, b in compared:
        assert a == pytest.approx(b, rel=1e-3, abs=1e-4)
    assert ours["blessed"] is theirs["blessed"] is True


def test_the_same_edge_model_is_chosen_and_the_model_is_published(containers, environments):
    ours, theirs = (job.output("export-tflite")["parameterValues"] for job in (containers, environments))
    assert ours["accepted"] is theirs["accepted"] is True
    for job in (containers, environments):
        assert (job.folder / "models" / "1" / "saved_model.pb").is_file()
        assert (job.folder / "models" / "1" / "edge" / "model.tflite").is_file()


def test_what_containers_write_belongs_to_the_user_who_started_the_run(containers):
    owners = {path.stat().st_uid for path in (containers.folder / "models").rglob("*")}
    assert owners == {os.getuid()}
