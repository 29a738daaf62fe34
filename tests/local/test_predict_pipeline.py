"""The recurring job of static inference: files in, predictions by the model in use out, run after run."""

import json
from pathlib import Path

import pytest
from s3_server import ACCESS_KEY, SECRET_KEY, serve_s3

from kfp_hybrid import storage
from kfp_hybrid.components.deployment.push_model import publisher

BUNDLES = Path(__file__).parents[1] / "unit/serving/bundles"
READ = """
import json, sys
from kfp_hybrid.data.examples import Examples
print(json.dumps([row for batch in Examples.open(sys.argv[1]).batches("rows") for row in batch.to_pylist()]))
"""
MONDAY = ["id,a,b,c", "1,1,10,x", "2,2.5,,y", "3,,30,"]
TUESDAY = [*MONDAY, "4,-4,40,unheard of"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["paths", "s3"])
def places(request, command_line, monkeypatch):
    """Where models, the source and predictions are: their names, and a folder with the same names for the tests."""
    if request.param == "paths":
        return "", command_line.folder
    server = request.getfixturevalue("server")
    settings = {"S3_ENDPOINT": server.url, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    command_line.environ |= settings
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    bucket = server.make_bucket()
    return f"s3://{bucket}/team/", server.folder / bucket / "team"


@pytest.fixture
def job(command_line, places):
    """The job as a schedule would run it: always the same parameters, whatever lies at the places."""
    return Job(command_line, *places)


class Job:
    def __init__(self, command_line, start, folder):
        self.command_line = command_line
        self.start = start
        self.folder = folder

    def publish(self, bundle):
        models = self.start + "models" if self.start else str(self.folder / "models")
        publisher.publish(models, bundle=str(BUNDLES / bundle), blessed=True)

    def deliver(self, rows):
        place = self.start + "rows" if self.start else str(self.folder / "rows")
        storage.open_store(place).write_bytes("day.csv", "\n".join(rows).encode())

    def run(self, **parameters):
        names = {"model_uri": "models", "source": "rows/day.csv", "destination": "predictions"}
        given = {name: self.start + place for name, place in names.items()} | {"key_columns": ["id"]} | parameters
        pairs = [f"-p{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in given.items()]
        return self.command_line("run", "predict", *pairs)

    def predictions(self, number):
        """The rows of a version, by identifier: what was predicted, and by which version of the model."""
        read = self.command_line("python", "tensorflow", "-c", READ, self.folder / "predictions" / str(number))
        assert read.returncode == 0, read.stderr
        return {row["id"]: (row["predicted"], row["model_version"]) for row in json.loads(read.stdout)}

    def latest(self):
        return (self.folder / "predictions" / "LATEST").read_text().strip()


def succeeded(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_each_run_scores_what_is_there_with_the_model_that_is_in_use(job):
    job.publish("late")
    job.deliver(MONDAY)
    succeeded(job.run())
    monday = job.predictions(1)
    assert set(monday) == {1, 2, 3}
    assert set(monday.values()) <= {("no", "1"), ("yes", "1")}

    job.publish("sum")  # a regression: 4 a + b + the number of c
    job.deliver(TUESDAY)
    done = succeeded(job.run())
    assert "cached" not in done.stdout
    assert job.predictions(2) == {1: (16.0, "2"), 2: (13.0, "2"), 3: (30.0, "2"), 4: (25.0, "2")}
    assert "/predictions/2: 4 rows by model version 2; c has no value or one that the model has not" in done.stdout
    assert job.latest() == "2"
    assert job.predictions(1) == monday


@pytest.mark.parametrize("places", ["paths"], indirect=True)
def test_values_that_the_model_does_not_know_stop_a_run_before_it_publishes(job):
    job.publish("late")
    job.deliver(TUESDAY)
    succeeded(job.run(max_unfamiliar_fraction=0.5))
    job.deliver([*MONDAY, "4,1,2,X", "5,1,2,Y"])
    done = job.run(max_unfamiliar_fraction=0.5)
    assert done.returncode == 1
    assert "in 60.0% of the rows c has no value or one that the model has not learned" in done.stderr
    assert job.latest() == "1"
    assert not (job.folder / "predictions" / "2").exists()
