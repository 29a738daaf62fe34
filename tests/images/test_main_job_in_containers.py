"""The main job as containers: the same results as in the environments of the images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kfp_hybrid import images
from kfp_hybrid.cli.options import cache_folder

pytestmark = pytest.mark.timeout(1800)  # the job runs twice before the first test, as a fixture
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


ASK = """
import json, sys, time, urllib.error, urllib.request
server = "http://127.0.0.1:8080"
deadline = time.monotonic() + 120
while True:
    try:
        urllib.request.urlopen(f"{server}/v2/health/ready")
        break
    except OSError:
        assert time.monotonic() < deadline, "the server does not become ready"
        time.sleep(0.2)
samples = json.load(open("/model/edge/samples.json"))["rows"]
rows = [dict(zip(samples, values)) for values in zip(*samples.values())]
body = json.dumps({"instances": rows}).encode()
print(urllib.request.urlopen(f"{server}/v1/models/model:predict", body).read().decode())
"""


def test_the_published_model_is_served_by_the_image_serving(containers, docker, somebody):
    """As a restricted pod serves it. The server is ready once it has tried the samples that came with the model."""
    model = containers.folder / "models" / "1"
    started = docker(
        "run", "--detach", "--user", somebody, "--read-only", "--tmpfs", "/tmp:rw,mode=1777", "--network", "none",
        "--cap-drop", "ALL", "--volume", f"{model}:/model:ro", images.SERVING,
        "python3", "-m", "kfp_hybrid.serving", "/model",
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    name = started.stdout.strip()
    try:
        asked = docker("exec", "--interactive", name, "python3", "-", input=ASK)
        assert asked.returncode == 0, asked.stderr + docker("logs", name).stderr
        predictions = json.loads(asked.stdout)["predictions"]
    finally:
        docker("rm", "--force", name)
    samples = json.loads((model / "edge" / "samples.json").read_text())
    expected = [score if isinstance(score, float) else score[-1] for score in samples["scores"]]
    assert predictions == pytest.approx(expected, abs=0.02)


def test_what_containers_write_belongs_to_the_user_who_started_the_run(containers):
    owners = {path.stat().st_uid for path in (containers.folder / "models").rglob("*")}
    assert owners == {os.getuid()}
