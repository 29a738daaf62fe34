"""predict_batch when it is killed, when files are damaged, and when there is more data than memory should hold."""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from kfp_hybrid.components.inference.predict_batch.options import Options
from kfp_hybrid.components.inference.predict_batch.predict import predict
from kfp_hybrid.step import StepError

TIME = "2026-01-31T06:00:00Z"
SHARDS = 12

KILLED = """
import json, os, sys
from pathlib import Path
from kfp_hybrid.components.inference.predict_batch import output, predict as job, shards
from kfp_hybrid.components.inference.predict_batch.options import Options

points = {
    "after a shard": (shards, "_note", 5, False),
    "within a shard": (shards, "_note", 5, True),
    "while publishing": (output, "write_manifest", 1, True),
    "while writing the table": (job, "write_table", 1, True),
}
module, name, call, before = points[sys.argv[1]]
original, calls = getattr(module, name), []

def deadly(*arguments, **keywords):
    calls.append(name)
    if before and len(calls) == call:
        os.kill(os.getpid(), 9)
    original(*arguments, **keywords)
    if len(calls) == call:
        os.kill(os.getpid(), 9)

setattr(module, name, deadly)
examples, bundle, predictions = map(Path, sys.argv[2:5])
job.predict(examples, None, bundle, predictions, Options(**json.loads(sys.argv[5])))
"""

FROM_FILES = """
import json, sys
from pathlib import Path
from kfp_hybrid.components.inference.predict_batch.predict import predict
from kfp_hybrid.components.inference.predict_batch.options import Options
print("begun", flush=True)
predict(None, None, Path(sys.argv[1]), Path(sys.argv[2]), Options(**json.loads(sys.argv[3])))
"""


def options(**changes):
    return {"shard_rows": 500, "time": TIME, "workers": 1, "key_columns": ["id", "note"], **changes}


def run(examples, model, output, **changes):
    return predict(examples, None, model.bundle, output, Options(**options(**changes)))


def kill(point, examples, model, output, **changes):
    arguments = [point, str(examples), str(model.bundle), str(output), json.dumps(options(**changes))]
    process = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, stderr=subprocess.DEVNULL)
    assert process.returncode == -9
    assert not output.exists()


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def shards_in(folder):
    return sorted(folder.glob("**/part-*.parquet"))


@pytest.fixture(scope="module")
def uninterrupted(model, examples, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted") / "predictions"
    assert run(examples, model, output).metrics["rows_of_earlier_run"] == 0
    assert len(shards_in(output)) == SHARDS
    return output


@pytest.mark.parametrize(
    ("point", "finished"), [("after a shard", 5), ("within a shard", 4), ("while publishing", SHARDS)]
)
def test_a_killed_job_goes_on_and_gives_the_same_bytes(point, finished, model, examples, uninterrupted, tmp_path):
    kill(point, examples, model, tmp_path / "predictions")
    kept = {path.read_bytes(): path.stat().st_ino for path in shards_in(tmp_path / ".checkpoints")}
    told = run(examples, model, tmp_path / "predictions")
    assert told.metrics["rows_of_earlier_run"] == 500 * finished
    assert told.rows == 6000
    assert contents(tmp_path / "predictions") == contents(uninterrupted)
    files = shards_in(tmp_path / "predictions")
    taken_over = [path for path in files if kept.get(path.read_bytes()) == path.stat().st_ino]
    assert len(taken_over) == finished  # the very files, which nobody wrote again
    assert [path.name for path in tmp_path.iterdir() if "unfinished" not in path.name] == ["predictions"]


def test_a_job_that_is_killed_while_it_writes_its_table_goes_on(model, examples, tmp_path):
    kill("while writing the table", examples, model, tmp_path / "killed", to_table=True, key_columns=["id"])
    told = run(examples, model, tmp_path / "killed", to_table=True, key_columns=["id"])
    assert told.metrics["rows_of_earlier_run"] == 6000
    run(examples, model, tmp_path / "whole", to_table=True, key_columns=["id"])
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("seed", range(3))
def test_a_job_that_is_killed_again_and_again_at_random_loses_nothing(seed, model, flights, tmp_path):
    pa.csv.write_csv(flights, tmp_path / "flights.csv")
    files = {"source": str(tmp_path / "flights.csv"), "to_table": True, "key_columns": ["id"]}
    command = [sys.executable, "-c", FROM_FILES, model.bundle, tmp_path / "killed", json.dumps(options(**files))]
    random, kills = np.random.default_rng(seed), 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout.readline() == b"begun\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert process.wait(random.uniform(0.05, 0.5 * (kills + 1))) == 0  # later and later, so that it ends
            break
        process.kill()
        process.wait()
        kills += 1
        assert not (tmp_path / "killed").exists() or (tmp_path / "killed/table/manifest.json").is_file()
    predict(None, None, model.bundle, tmp_path / "whole", Options(**options(**files)))
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_job_that_goes_on_keeps_its_time(model, examples, tmp_path):
    kill("after a shard", examples, model, tmp_path / "predictions", time="")
    (job,) = (tmp_path / ".checkpoints").glob("*/job.json")
    job.write_text(json.dumps({"time": "2026-01-01T00:00:00Z"}))  # as if it had begun then
    assert run(examples, model, tmp_path / "predictions", time="").metadata["predicted_at"] == "2026-01-01T00:00:00Z"


def test_a_damaged_shard_of_a_killed_job_is_made_again(model, examples, uninterrupted, tmp_path):
    kill("after a shard", examples, model, tmp_path / "predictions")
    shard = next((tmp_path / ".checkpoints").glob("**/part-00001.parquet"))
    shard.write_bytes(shard.read_bytes()[:-10])
    assert run(examples, model, tmp_path / "predictions").metrics["rows_of_earlier_run"] == 2000
    assert contents(tmp_path / "predictions") == contents(uninterrupted)


@pytest.mark.parametrize("change", [{"decision_threshold": 0.7}, {"prefix": "p_"}, {"time": "2026-02-01T00:00:00Z"}])
def test_a_changed_job_takes_nothing_over(change, model, examples, tmp_path):
    kill("after a shard", examples, model, tmp_path / "predictions")
    assert run(examples, model, tmp_path / "predictions", **change).metrics["rows_of_earlier_run"] == 0


def test_another_model_takes_nothing_over(make_model, model, examples, tmp_path):
    kill("after a shard", examples, model, tmp_path / "predictions")
    assert run(examples, make_model("multiclass"), tmp_path / "predictions").metrics["rows_of_earlier_run"] == 0


def test_checkpoints_go_where_the_runner_says(model, examples, tmp_path, monkeypatch):
    monkeypatch.setenv("KFP_HYBRID_CHECKPOINTS", str(tmp_path / "runner"))
    kill("after a shard", examples, model, tmp_path / "first/predictions")
    assert run(examples, model, tmp_path / "second/predictions").metrics["rows_of_earlier_run"] == 2500
    assert not (tmp_path / "runner").exists()  # nothing is left behind


def test_earlier_predictions_stay_until_new_ones_are_complete(model, examples, write_examples, flights, tmp_path):
    run(examples, model, tmp_path / "predictions")
    before = contents(tmp_path / "predictions")
    damaged = write_examples(eval=flights)
    (file,) = (damaged / "eval").glob("part-00001.parquet")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(StepError, match=r"part-00001\.parquet"):
        run(damaged, model, tmp_path / "predictions")
    assert contents(tmp_path / "predictions") == before


def test_a_folder_of_something_else_is_not_overwritten(model, examples, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter-1.tex").write_text("...")
    with pytest.raises(StepError, match="exists and holds no predictions; it is not overwritten"):
        run(examples, model, tmp_path / "thesis")
    assert contents(tmp_path / "thesis") == {"chapter-1.tex": b"..."}


def test_examples_that_lost_a_file_are_an_error(model, write_examples, flights, tmp_path):
    data = write_examples(eval=flights)
    (data / "eval/part-00001.parquet").unlink()
    with pytest.raises(StepError, match=r"cannot read .*part-00001\.parquet.*run ingest_examples again"):
        run(data, model, tmp_path / "predictions")
    assert not (tmp_path / "predictions").exists()


def test_examples_with_other_rows_than_their_manifest_says_are_an_error(model, write_examples, flights, tmp_path):
    data = write_examples(eval=flights)
    shutil.copy(data / "eval/part-00000.parquet", data / "eval/part-00001.parquet")
    with pytest.raises(StepError, match="has 8000 rows, but its manifest says 6000"):
        run(data, model, tmp_path / "predictions")


def test_memory_does_not_grow_with_the_rows(model, flights, write_examples, tmp_path):
    code = (
        "import re, sys; from pathlib import Path\n"
        "from kfp_hybrid.components.inference.predict_batch.predict import predict\n"
        "from kfp_hybrid.components.inference.predict_batch.options import Options\n"
        "options = Options(shard_rows=30000, workers=2, key_columns=['note'])\n"
        "predict(Path(sys.argv[1]), None, Path(sys.argv[2]), Path(sys.argv[3]), options)\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]))"
    )
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2"}
    peaks = []
    for copies in (10, 80):
        table = pa.concat_tables([flights] * copies)
        data = write_examples(row_group_rows=30_000, eval=table)
        command = [sys.executable, "-c", code, data, model.bundle, tmp_path / str(copies)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
        peaks.append(int(output) / 1024)
    assert peaks[1] < peaks[0] + 40  # MiB; the larger table alone is 100 MiB
