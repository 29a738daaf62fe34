"""predict_batch on files as users have them, and the tables and parts that it writes."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from kfp_hybrid.components.inference.merge_predictions.merge import merge
from kfp_hybrid.components.inference.predict_batch.options import Options
from kfp_hybrid.components.inference.predict_batch.predict import predict
from kfp_hybrid.data.prediction_table import PredictionTable
from kfp_hybrid.step import StepError

TIME = "2026-01-31T06:00:00Z"


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------------------------------------- files


def as_feature(value):
    if value is None:
        return tf.train.Feature()
    if isinstance(value, str):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
    if isinstance(value, float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def write_tfrecord(table, file):
    with tf.io.TFRecordWriter(str(file)) as writer:
        for row in table.to_pylist():
            features = {name: as_feature(value) for name, value in row.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


WRITERS = {"csv": pa.csv.write_csv, "parquet": pq.write_table, "tfrecord": write_tfrecord}


@pytest.mark.parametrize("kind", ["csv", "parquet", "tfrecord"])
@pytest.mark.parametrize("by", ["model", "bundle"])
def test_files_are_predicted_for_like_examples(kind, by, model, flights, predict_with, tmp_path):
    rows = flights.slice(0, 1000).combine_chunks()
    WRITERS[kind](rows, tmp_path / f"rows.{kind}")
    source = {"model": {"model": model.saved}, "bundle": {"bundle": model.bundle}}[by]
    expected = predict_with(**source, splits=["train"], key_columns=["id", "note"]).table("train")
    found = predict_with(**source, data=None, source=f"{tmp_path}/*.{kind}", key_columns=["id", "note"])
    assert list(found.artifact.splits) == ["rows"]
    assert found.table("rows").select(["id", "note"]).equals(rows.select(["id", "note"]))
    np.testing.assert_allclose(found.table("rows")["score"], expected["score"], atol=1e-6)
    assert not list(found.path.parent.glob(".checkpoints"))  # nothing is left of the examples that were made


def test_rows_that_cannot_be_read_are_an_error_unless_they_are_allowed(model, flights, predict_with, tmp_path):
    pa.csv.write_csv(flights.slice(0, 50), tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("only,two\n")
    with pytest.raises(StepError, match="1 of 51 rows"):
        predict_with(bundle=model.bundle, data=None, source=str(tmp_path / "rows.csv"))
    told = predict_with(bundle=model.bundle, data=None, source=str(tmp_path / "rows.csv"), max_bad_fraction=0.1).told
    assert told.rows == 50


def test_examples_or_files_have_to_be_given_and_not_both(model, predict_with):
    with pytest.raises(StepError, match="give either examples or source"):
        predict_with(bundle=model.bundle, source="rows.csv")
    with pytest.raises(StepError, match="give either examples or source"):
        predict_with(bundle=model.bundle, data=None)


# ------------------------------------------------------------------------------------------------------------ tables


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_table_gives_by_key_what_was_predicted(task, make_model, predict_with):
    prediction = predict_with(bundle=make_model(task).bundle, key_columns=["id", "carrier"], to_table=True, prefix="p_")
    table = PredictionTable.open(prediction.path / "table")
    rows = pa.concat_tables([prediction.table("train"), prediction.table("eval")])
    assert (table.keys, table.rows) == ({"id": "int64", "carrier": "string"}, 6000)
    assert prediction.told.metadata["keys"] == 6000
    assert table.model_version == rows["p_model_version"][0].as_py()
    assert (table.manifest["task"], table.manifest["predicted_at"]) == (task, TIME)
    found = table.find({"id": rows["id"].to_pylist(), "carrier": rows["carrier"].to_pylist()})
    names = {"binary": ["p_score"], "multiclass": ["p_score_EWR", "p_score_JFK", "p_score_LGA"]}
    expected = np.stack([rows[name] for name in names.get(task, ["p_predicted"])], axis=1)
    np.testing.assert_array_equal(table.scores[found], expected)
    assert table.decisions(found) == ([] if task == "regression" else rows["p_predicted"].to_pylist())


def test_a_table_needs_keys_that_identify_a_row(model, predict_with):
    with pytest.raises(StepError, match=r"the key '\w\w' \(carrier\) comes twice"):
        predict_with(bundle=model.bundle, key_columns=["carrier"], to_table=True)
    with pytest.raises(StepError, match="needs key columns"):
        predict_with(bundle=model.bundle, to_table=True)
    with pytest.raises(StepError, match="'temp' has the type double"):
        predict_with(bundle=model.bundle, key_columns=["temp"], to_table=True)


def test_the_last_row_of_a_key_can_count(model, predict_with):
    prediction = predict_with(
        bundle=model.bundle, key_columns=["carrier"], to_table=True, splits=["eval"], table_duplicates="last"
    )
    table, rows = PredictionTable.open(prediction.path / "table"), prediction.table()
    last = dict(zip(rows["carrier"].to_pylist(), rows["score"].to_pylist(), strict=True))
    assert table.scores[table.find({"carrier": list(last)}), 0].tolist() == list(last.values())


def test_rows_without_a_score_are_left_to_the_model(predict_with, write_examples, tmp_path):
    specs = [tf.TensorSpec([None], tf.float32, "x")]
    signature = tf.function(lambda x: {"scores": tf.math.log(x)}).get_concrete_function(*specs)
    tf.saved_model.save(tf.Module(), str(tmp_path / "m"), {"serving_default": signature})
    data = write_examples(eval=pa.table({"id": [1, 2, 3], "x": [1.0, -1.0, 0.5]}))
    prediction = predict_with(tmp_path / "m", data=data, key_columns=["id"], to_table=True)
    table = PredictionTable.open(prediction.path / "table")
    assert (table.find({"id": [1, 2, 3]}) >= 0).tolist() == [True, False, True]
    assert (table.rows, table.classes, table.predicted) == (2, (), None)


def test_failing_to_write_a_table_publishes_nothing(model, examples, tmp_path):
    with pytest.raises(StepError, match="comes twice"):
        predict(
            examples, None, model.bundle, tmp_path / "out", Options(key_columns=["origin"], to_table=True, workers=1)
        )
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------------- parts


@pytest.fixture
def predict_parts(predict_with, model):
    """predict_parts(count): the folders that as many jobs put out."""

    def run(count, **options):
        given = {"bundle": model.bundle, "key_columns": ["id", "note"], "shard_count": count, **options}
        return [predict_with(shard_index=index, **given).path for index in range(count)]

    return run


@pytest.mark.parametrize("count", [2, 5, 14])  # there are 12 shards: two of the 14 have none
def test_parts_merged_are_what_one_job_writes_byte_for_byte(count, model, predict_with, predict_parts, tmp_path):
    whole = predict_with(bundle=model.bundle, key_columns=["id", "note"])
    merged = merge(predict_parts(count)[::-1], tmp_path / "merged", False, "error")
    assert contents(tmp_path / "merged") == contents(whole.path)
    assert (merged.rows, merged.metadata) == (6000, whole.told.metadata)
    ours = {name: value for name, value in whole.told.metrics.items() if name.startswith(("missing_", "unknown_"))}
    assert merged.metrics == {"rows": 6000, "rows_without_score": 0, **ours}


def test_parts_are_computed_once(predict_parts):
    rows = [json.loads((part / "manifest.json").read_text())["predictions"]["rows"] for part in predict_parts(5)]
    assert sorted(rows) == [1000, 1000, 1000, 1500, 1500]


def test_merged_parts_can_be_merged_and_have_the_table_of_one_job(model, predict_with, predict_parts, tmp_path):
    whole = predict_with(bundle=model.bundle, key_columns=["id"], to_table=True)
    parts = predict_parts(4, key_columns=["id"])
    halves = [tmp_path / "first", tmp_path / "second"]
    for half, two in zip(halves, (parts[:2], parts[2:]), strict=True):
        merge(two, half, False, "error")
    with pytest.raises(StepError, match="a table needs all 4 shards; these are 0, 1"):
        merge(halves[:1], tmp_path / "merged", True, "error")
    merge(halves, tmp_path / "merged", True, "error")
    assert contents(tmp_path / "merged") == contents(whole.path)


def test_parts_of_other_jobs_are_refused(model, flights, write_examples, predict_with, predict_parts, tmp_path):
    other = write_examples(train=flights.slice(1, 1000), eval=flights.slice(1000), empty=flights.slice(0, 0))
    parts = predict_parts(2)
    for given, message in (
        ([parts[0], predict_parts(2, decision_threshold=0.7)[1]], "is of another job than the first part"),
        ([parts[0], predict_parts(2, shard_rows=1000)[1]], "is of another job than the first part"),
        ([parts[0], predict_parts(2, data=other)[1]], "is of another job than the first part"),
        ([parts[0], predict_parts(3)[1]], "is of another job than the first part"),
        ([parts[0], parts[0]], "shard 0 comes twice"),
        ([predict_with(bundle=model.bundle).path], "is not a part of predictions"),
        ([], "there is nothing to merge"),
    ):
        with pytest.raises(StepError, match=message):
            merge(given, tmp_path / "merged", False, "error")
    assert not (tmp_path / "merged").exists()


def test_a_damaged_part_is_refused(predict_parts, tmp_path):
    parts = predict_parts(2)
    file = next(parts[1].rglob("*.parquet"))
    content = file.read_bytes()
    file.unlink()  # it may have a second name
    file.write_bytes(content[:-9] + b"x" + content[-8:])
    with pytest.raises(StepError, match="is damaged: its sha256"):
        merge(parts, tmp_path / "merged", False, "error")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_count": 0}, "shard_count is 0; it must be at least 1"),
        ({"shard_index": 2, "shard_count": 2}, "with shard_count 2 it must be from 0 to 1"),
        ({"shard_count": 2, "to_table": True}, "to_table needs all shards; give it to merge_predictions"),
        ({"table_duplicates": "first"}, "table_duplicates is 'first'; it must be error or last"),
    ],
)
def test_parameters_of_parts_and_tables_are_checked(options, message, model, predict_with):
    with pytest.raises(StepError, match=message):
        predict_with(bundle=model.bundle, **options)
