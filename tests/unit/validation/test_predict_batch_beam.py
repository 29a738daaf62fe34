"""predict_batch_beam: with a runner of Beam the same bytes as without, however its workers get at the files."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from kfp_hybrid.components.inference.predict_batch.options import Options
from kfp_hybrid.components.inference.predict_batch.predict import predict
from kfp_hybrid.components.inference.predict_batch_beam import job
from kfp_hybrid.components.inference.predict_batch_beam.handler import EdgeBundleHandler
from kfp_hybrid.components.inference.predict_batch_beam.job import Runner
from kfp_hybrid.data import examples as examples_format
from kfp_hybrid.data.examples import ExamplesWriter
from kfp_hybrid.edge.bundle import LABELS, MODEL, PREPROCESSING, SAMPLES, write_bundle
from kfp_hybrid.preprocessing import Categorical, Label, Numeric, Preprocessing
from kfp_hybrid.step import StepError

ROWS, ROW_GROUP, SHARDS = 2000, 200, 11
VOCABULARY = ("AA", "UA", "Ö ✈")
OPTIONS = {"key_columns": ["id"], "table_duplicates": "last", "time": "2026-01-31T06:00:00Z", "shard_rows": ROW_GROUP}


class Core(tf.Module):
    """A small model behind the preprocessing: a line and a number for each category."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.float32, "numeric"),
            tf.TensorSpec([None, 2], tf.int32, "bucket"),
            tf.TensorSpec([None, 1], tf.int32, "categorical"),
        ]
    )
    def core(self, numeric, bucket, categorical):
        logits = numeric @ tf.constant([[0.7], [-1.3]]) + 0.1 * tf.cast(bucket[:, :1], tf.float32)
        weights = tf.one_hot(categorical[:, 0], 5) @ tf.constant([[0.2], [-0.4], [0.9], [-0.1], [0.5]])
        return {"scores": tf.sigmoid(logits + weights)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    numbers = (Numeric("delay", 5.0, 20.0, 5.0, (0.0, 10.0)), Numeric("distance", 1000.0, 700.0, 900.0, (500.0,)))
    preprocessing = Preprocessing(
        "binary", Label("late", (0, 1)), numbers, (Categorical("carrier", "string", VOCABULARY),)
    )
    preprocessing.save(folder / "preprocessing.json")
    core = Core()
    tf.saved_model.save(core, str(folder / "saved"), {"core": core.core})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"), signature_keys=["core"])
    files = {
        MODEL: converter.convert(),
        PREPROCESSING: (folder / "preprocessing.json").read_bytes(),
        LABELS: json.dumps({"task": "binary", "label": "late", "classes": [0, 1]}).encode(),
        SAMPLES: b"{}",
    }
    write_bundle(folder / "bundle", files, quantization="float32")
    return folder / "bundle"


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    random = np.random.default_rng(0)
    rows = pa.RecordBatch.from_pydict({
        "id": range(ROWS),
        "delay": random.normal(5, 20, ROWS),
        "distance": random.integers(100, 3000, ROWS),
        "carrier": random.choice([*VOCABULARY, "new", None], ROWS).tolist(),
    })  # fmt: skip
    path = tmp_path_factory.mktemp("data") / "examples é"
    types = {"id": "int64", "delay": "double", "distance": "int64", "carrier": "string"}
    with pytest.MonkeyPatch.context() as patch, ExamplesWriter(path, types, ["train", "eval", "empty"]) as writer:
        patch.setattr(examples_format, "ROW_GROUP_ROWS", ROW_GROUP)
        writer.write("train", rows)
        writer.write("eval", rows.slice(0, 50))
    return path


@pytest.fixture(scope="module")
def without_beam(examples, bundle, tmp_path_factory):
    output = tmp_path_factory.mktemp("plain") / "predictions"
    return output, predict(examples, None, bundle, output, Options(**OPTIONS, to_table=True))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def with_beam(examples, bundle, output, *pipeline_options, exchange="", runner="DirectRunner", **options):
    workers = Runner(runner, pipeline_options, exchange)
    return predict(examples, None, bundle, output, Options(**{**OPTIONS, **options}), workers)


def require_equal(told, output, without_beam):
    plain, plain_told = without_beam
    assert contents(output) == contents(plain)
    assert told.metadata == plain_told.metadata
    changing = {"seconds", "rows_per_second"}
    assert {n: v for n, v in told.metrics.items() if n not in changing} == {
        n: v for n, v in plain_told.metrics.items() if n not in changing
    }


def test_beam_gives_the_same_bytes_as_threads(examples, bundle, without_beam, tmp_path):
    told = with_beam(examples, bundle, tmp_path / "predictions", to_table=True)
    assert told.rows == ROWS + 50
    require_equal(told, tmp_path / "predictions", without_beam)


def test_paths_may_be_relative(examples, bundle, without_beam, tmp_path, monkeypatch):
    monkeypatch.chdir(examples.parent)
    with_beam(Path(examples.name), bundle, tmp_path / "predictions", to_table=True)
    assert contents(tmp_path / "predictions") == contents(without_beam[0])


def test_workers_in_processes_of_their_own_give_the_same_bytes(examples, bundle, without_beam, tmp_path):
    processes = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    told = with_beam(examples, bundle, tmp_path / "predictions", *processes, to_table=True)
    require_equal(told, tmp_path / "predictions", without_beam)


def test_workers_that_see_no_folder_of_the_step_work_through_a_store(
    examples, bundle, without_beam, tmp_path, monkeypatch
):
    finish = EdgeBundleHandler._finish
    seen = []

    def far_away(self, shard, model):
        seen.append(shard)
        assert not any(group.file.is_absolute() for group in shard.row_groups)
        return finish(self, shard, model)

    monkeypatch.setattr(EdgeBundleHandler, "_finish", far_away)
    told = with_beam(examples, bundle, tmp_path / "predictions", exchange=f"file://{tmp_path}/store", to_table=True)
    require_equal(told, tmp_path / "predictions", without_beam)
    assert len(seen) == SHARDS


def test_shards_of_an_interrupted_job_are_not_computed_again(examples, bundle, without_beam, tmp_path, monkeypatch):
    finish, done = EdgeBundleHandler._finish, []

    def failing(self, shard, model):
        if len(done) >= 4:
            raise OSError("the worker is lost")
        done.append(shard)
        return finish(self, shard, model)

    with monkeypatch.context() as patch:
        patch.setattr(EdgeBundleHandler, "_finish", failing)
        with pytest.raises(StepError, match=r"the DirectRunner failed: .*the worker is lost"):
            with_beam(examples, bundle, tmp_path / "predictions", to_table=True)
    assert not (tmp_path / "predictions").exists()
    told = with_beam(examples, bundle, tmp_path / "predictions", to_table=True)
    assert told.metrics["rows_of_earlier_run"] > 0
    assert contents(tmp_path / "predictions") == contents(without_beam[0])


def test_workers_that_do_not_see_the_folder_are_an_error_that_names_the_remedy(examples, bundle, tmp_path, monkeypatch):
    finish = EdgeBundleHandler._finish

    def elsewhere(self, shard, model):
        rows = finish(self, shard, model)
        shutil.rmtree(self._places.shards, ignore_errors=True)
        return rows

    monkeypatch.setattr(EdgeBundleHandler, "_finish", elsewhere)
    with pytest.raises(StepError, match=r"its workers do not see .*: give exchange, a URI"):
        with_beam(examples, bundle, tmp_path / "predictions")


def test_an_unknown_runner_is_named(examples, bundle, tmp_path):
    with pytest.raises(StepError, match="the NoSuchRunner failed"):
        with_beam(examples, bundle, tmp_path / "predictions", runner="NoSuchRunner")


def test_a_saved_model_is_refused(examples, bundle, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    work = type("Work", (), {"source": type("Source", (), {"bundle": None})})
    with pytest.raises(StepError, match="Beam runs edge bundles alone"):
        job.Runner("DirectRunner", (), "")(work)
