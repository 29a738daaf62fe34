"""predict_batch: what it writes for real rows, real SavedModels and real edge bundles."""

import json
import logging
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import tensorflow as tf

from kfp_hybrid.components.deployment.push_model.content import checksum, digest
from kfp_hybrid.preprocessing import Label, Numeric, Preprocessing
from kfp_hybrid.step import StepError

TOLERANCE = 1e-6


def row_by_row(model, table):
    """What Keras says of each row alone."""
    inputs = model.preprocessing.transform(table.combine_chunks().to_batches()[0])
    return model.keras.predict(inputs, batch_size=1, verbose=0)


def save_plain(path, function, **inputs):
    """A SavedModel that says nothing about itself; inputs: name -> dtype."""
    specs = {name: tf.TensorSpec([None], dtype, name) for name, dtype in inputs.items()}
    concrete = tf.function(function).get_concrete_function(**specs)
    tf.saved_model.save(tf.Module(), str(path), {"serving_default": concrete})
    return path


# ------------------------------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize("kind", ["saved", "bundle"])
def test_predictions_equal_those_of_keras_row_by_row(kind, model, flights, predict_with):
    source = {"saved": {"model": model.saved}, "bundle": {"bundle": model.bundle}}[kind]
    found = predict_with(**source, splits=["train"]).table("train").slice(0, 300)
    expected = row_by_row(model, flights.slice(0, 300))[:, 0]
    np.testing.assert_allclose(found["score"].to_numpy(), expected, atol=TOLERANCE, rtol=0)
    assert found["predicted"].to_pylist() == (found["score"].to_numpy() >= 0.5).astype(int).tolist()
    assert len(set(found["predicted"].to_pylist())) == 2


@pytest.mark.parametrize("kind", ["saved", "bundle"])
def test_each_class_has_a_score(kind, make_model, flights, predict_with):
    model = make_model("multiclass")
    source = {"saved": {"model": model.saved}, "bundle": {"bundle": model.bundle}}[kind]
    found = predict_with(**source, splits=["train"]).table("train").slice(0, 100)
    expected = row_by_row(model, flights.slice(0, 100))
    scores = np.stack([found[f"score_{name}"].to_numpy() for name in ("EWR", "JFK", "LGA")], axis=1)
    np.testing.assert_allclose(scores, expected, atol=TOLERANCE, rtol=0)
    assert found["predicted"].to_pylist() == [["EWR", "JFK", "LGA"][i] for i in expected.argmax(axis=1)]


def test_a_regression_predicts_a_number(make_model, flights, predict_with):
    model = make_model("regression")
    found = predict_with(model.saved, splits=["train"]).table("train").slice(0, 100)
    assert found.column_names == ["predicted", "model_version", "predicted_at"]
    np.testing.assert_allclose(found["predicted"].to_numpy(), row_by_row(model, flights.slice(0, 100))[:, 0], rtol=1e-5)


def test_keys_pass_through_and_the_order_of_rows_is_kept(model, flights, predict_with):
    prediction = predict_with(model.saved, key_columns=["note", "id", "late"])
    for split, rows in (("train", flights.slice(0, 1000)), ("eval", flights.slice(1000))):
        table = prediction.table(split)
        assert table.column_names == ["note", "id", "late", "score", "predicted", "model_version", "predicted_at"]
        assert table.select(["note", "id", "late"]).equals(rows.select(["note", "id", "late"]).combine_chunks())


def test_a_feature_can_be_a_key(model, flights, predict_with):
    table = predict_with(model.saved, key_columns=["carrier", "temp"], splits=["train"]).table("train")
    assert table.select(["carrier", "temp"]).equals(flights.slice(0, 1000).select(["carrier", "temp"]))


def test_every_row_says_which_model_predicted_it_and_when(model, predict_with):
    prediction = predict_with(model.saved, time="2026-01-31T07:00:00+01:00")
    table = prediction.table()
    assert pc.unique(table["predicted_at"]).to_pylist() == ["2026-01-31T06:00:00Z"]
    assert pc.unique(table["model_version"]).to_pylist() == [prediction.told.metadata["model_version"]]
    assert prediction.told.metadata["model_digest"].startswith(prediction.told.metadata["model_version"])


def test_predictions_are_an_examples_artifact_with_the_same_splits(model, predict_with):
    prediction = predict_with(model.saved, key_columns=["id"])
    artifact = prediction.artifact
    artifact.verify()
    assert {split: artifact.rows(split) for split in artifact.splits} == {"train": 1000, "eval": 5000, "empty": 0}
    assert prediction.told.rows == 6000
    made_by = json.loads((prediction.path / "manifest.json").read_text())["predictions"]
    assert made_by["model_digest"] == prediction.told.metadata["model_digest"]
    assert (made_by["rows"], made_by["key_columns"]) == (6000, ["id"])


def test_splits_can_be_chosen(model, predict_with):
    assert list(predict_with(model.saved, splits=["eval"]).artifact.splits) == ["eval"]
    with pytest.raises(StepError, match="has no split 'evil'; it has: train, eval, empty"):
        predict_with(model.saved, splits=["evil"])


@pytest.mark.parametrize("kind", ["saved", "bundle"])
def test_a_split_without_rows_gives_predictions_without_rows(kind, model, predict_with):
    source = {"saved": {"model": model.saved}, "bundle": {"bundle": model.bundle}}[kind]
    prediction = predict_with(**source, splits=["empty"], key_columns=["id"])
    assert prediction.told.rows == 0
    assert prediction.artifact.splits["empty"].files == ()
    assert list(prediction.artifact.columns) == ["id", "score", "predicted", "model_version", "predicted_at"]


def test_the_threshold_decides_what_is_positive(model, predict_with):
    table = predict_with(model.saved, decision_threshold=0.9).table()
    assert table["predicted"].to_pylist() == (table["score"].to_numpy() >= 0.9).astype(int).tolist()


def test_workers_do_not_change_a_byte(model, predict_with):
    alone, together = (predict_with(model.saved, workers=workers, key_columns=["note"]) for workers in (1, 4))
    assert alone.files() == together.files()


# ------------------------------------------------------------------------- values that the model does not know


def test_missing_and_unknown_values_are_predicted_for_and_counted(model, flights, predict_with, write_examples):
    rows = flights.slice(0, 4).select(["dep_delay", "distance", "temp", "wind_dir", "pressure", "origin"])
    rows = rows.append_column("carrier", pa.array(["UA", None, "", "Ö ✈"]))
    rows = rows.append_column("dest", pa.nulls(4))
    rows = rows.set_column(0, "dep_delay", pa.array([None, 5, None, 7], pa.int64()))
    found = predict_with(model.saved, data=write_examples(eval=rows))
    batch = rows.combine_chunks().to_batches()[0]
    expected = model.keras.predict(model.preprocessing.transform(batch), verbose=0)[:, 0]
    np.testing.assert_allclose(found.table()["score"].to_numpy(), expected, atol=TOLERANCE)
    metrics = found.told.metrics
    assert (metrics["missing_dep_delay"], metrics["missing_carrier"], metrics["missing_dest"]) == (2, 2, 4)
    assert metrics["unknown_carrier"] == 1
    assert "missing_distance" not in metrics
    assert found.told.rows == 4


@pytest.mark.parametrize("kind", ["saved", "bundle"])
def test_a_missing_feature_is_an_error_that_names_it(kind, model, flights, predict_with, write_examples):
    source = {"saved": {"model": model.saved}, "bundle": {"bundle": model.bundle}}[kind]
    data = write_examples(eval=flights.drop_columns(["wind_dir"]))
    with pytest.raises(StepError, match=r"the model wants the column 'wind_dir', which the examples lack \(1 of its 8"):
        predict_with(**source, data=data)


def test_text_in_a_numeric_feature_is_an_error_that_names_it(model, flights, predict_with, write_examples):
    position = flights.schema.get_field_index("temp")
    data = write_examples(eval=flights.set_column(position, "temp", pa.array(["warm"] * flights.num_rows)))
    with pytest.raises(StepError, match=r"column 'temp' cannot be fed to the model's float32 input: .*'warm'"):
        predict_with(model.saved, data=data)


def test_a_row_without_a_finite_score_stays_and_is_counted(flights, predict_with, tmp_path, write_examples, caplog):
    reciprocal = save_plain(tmp_path / "m", lambda x: {"scores": 1 / x}, x=tf.float32)
    data = write_examples(eval=pa.table({"x": pa.array([1.0, 0.0, None, 4.0])}))
    prediction = predict_with(reciprocal, data=data, task="regression")
    assert prediction.table()["predicted"].to_pylist() == [1.0, None, None, 0.25]
    assert prediction.told.metrics["rows_without_score"] == 2
    assert prediction.told.metrics["missing_x"] == 1
    assert "2 rows have no score" in caplog.text


def test_a_model_without_any_finite_score_is_an_error(predict_with, tmp_path, write_examples):
    broken = save_plain(tmp_path / "m", lambda x: {"scores": x * np.nan}, x=tf.float32)
    with pytest.raises(StepError, match="no finite score for any of the 3 rows; it is broken"):
        predict_with(broken, data=write_examples(eval=pa.table({"x": [1.0, 2.0, 3.0]})))


# ------------------------------------------------------------------------------------------------------------- models


def test_a_bundle_and_a_model_say_how_far_they_differ(model, predict_with):
    prediction = predict_with(model.saved, model.bundle)
    assert prediction.told.metadata["engine"] == "litert"
    assert 0 <= prediction.told.metrics["largest_difference"] <= TOLERANCE
    difference = prediction.table()["score"].to_numpy() - predict_with(model.saved).table()["score"].to_numpy()
    assert np.abs(difference).max() <= TOLERANCE


def test_a_bundle_alone_needs_no_tensorflow(model, examples, tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from kfp_hybrid.components.inference.predict_batch.predict import predict\n"
        "from kfp_hybrid.components.inference.predict_batch.options import Options\n"
        "predict(Path(sys.argv[1]), None, Path(sys.argv[2]), Path(sys.argv[3]), Options())\n"
        "assert 'tensorflow' not in sys.modules and 'kfp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, examples, model.bundle, tmp_path / "predictions"], check=True)


def test_a_core_that_disagrees_with_serving_default_is_not_used(predict_with, tmp_path, write_examples, caplog):
    preprocessing = Preprocessing("regression", Label("y"), (Numeric("x", 0.0, 1.0, 0.0, ()),), ())
    serve = tf.function(lambda x: {"scores": x + 1})
    core = tf.function(lambda numeric, bucket: {"scores": numeric + 2})
    signatures = {
        "serving_default": serve.get_concrete_function(x=tf.TensorSpec([None], tf.float32)),
        "core": core.get_concrete_function(
            numeric=tf.TensorSpec([None, 1], tf.float32), bucket=tf.TensorSpec([None, 1], tf.int32)
        ),
    }
    tf.saved_model.save(tf.Module(), str(tmp_path / "m"), signatures)
    (tmp_path / "m/assets.extra").mkdir()
    preprocessing.save(tmp_path / "m/assets.extra/preprocessing.json")
    prediction = predict_with(tmp_path / "m", data=write_examples(eval=pa.table({"x": [1.0, 2.0]})))
    assert prediction.table()["predicted"].to_pylist() == [2.0, 3.0]
    assert "the signature core differs from serving_default by 0.5" in caplog.text


def test_a_model_that_says_nothing_about_itself_has_its_scores_written(predict_with, tmp_path, write_examples):
    data = write_examples(eval=pa.table({"name": ["a", "ß", None], "x": [1, 2, 3]}))
    lengths = save_plain(
        tmp_path / "m",
        lambda name, x: {"scores": tf.stack([tf.cast(tf.strings.length(name), tf.float32), tf.cast(x, tf.float32)], 1)},
        name=tf.string,
        x=tf.int64,
    )
    table = predict_with(lengths, data=data).table()
    assert table.select(["score_0", "score_1"]).to_pydict() == {"score_0": [1, 2, 0], "score_1": [1, 2, 3]}
    assert "predicted" not in table.column_names
    told = predict_with(lengths, data=data, task="multiclass", classes=["short", "long"]).table()
    assert told["predicted"].to_pylist() == ["short", "short", "long"]
    with pytest.raises(StepError, match="gives 2 scores per row, which does not fit the task regression"):
        predict_with(lengths, data=data, task="regression")


def push(model, folder, version):
    """What push_model leaves behind: a version in the artifact's folder and a pointer to it."""
    files = {path.relative_to(model).as_posix(): path for path in model.rglob("*") if path.is_file()}
    for name, path in files.items():
        target = folder / str(version) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    content = digest({name: checksum(path) for name, path in files.items()})
    (folder / str(version) / "MANIFEST.json").write_text(json.dumps({"version": version, "digest": content}))
    (folder / "pushed.json").write_text(json.dumps({"destination": ".", "version": version, "digest": content}))
    return content


def test_a_pushed_model_predicts_under_its_version(model, predict_with, tmp_path):
    content = push(model.saved, tmp_path / "pushed", 7)
    prediction = predict_with(tmp_path / "pushed")
    assert pc.unique(prediction.table()["model_version"]).to_pylist() == ["7"]
    assert prediction.told.metadata["model_digest"] == content
    assert prediction.told.metadata["model_digest"] == predict_with(model.saved).told.metadata["model_digest"]


def test_a_model_pushed_to_a_store_is_fetched(model, predict_with, tmp_path):
    content = push(model.saved, tmp_path / "store", 12)
    (tmp_path / "artifact").mkdir()
    pointer = {"destination": f"file://{tmp_path}/store", "version": 12, "digest": content}
    (tmp_path / "artifact/pushed.json").write_text(json.dumps(pointer))
    assert predict_with(tmp_path / "artifact").told.metadata["model_version"] == "12"


def test_a_pushed_bundle_predicts_where_nothing_else_was_pushed(model, predict_with, tmp_path):
    shutil.copytree(model.bundle, tmp_path / "files/edge")
    push(tmp_path / "files", tmp_path / "pushed", 3)
    told = predict_with(tmp_path / "pushed").told
    assert (told.metadata["engine"], told.metadata["model_version"]) == ("litert", "3")


def test_a_pushed_model_with_other_bytes_is_refused(model, predict_with, tmp_path):
    push(model.saved, tmp_path / "pushed", 7)
    (tmp_path / "pushed/7/variables/variables.index").write_bytes(b"")
    with pytest.raises(StepError, match="are not those that were published; use another version"):
        predict_with(tmp_path / "pushed")


def test_a_model_that_push_model_refused_does_not_predict(predict_with, tmp_path):
    (tmp_path / "pushed.json").write_text(json.dumps({"destination": ".", "version": 0}))
    with pytest.raises(StepError, match="push_model refused this model"):
        predict_with(tmp_path)


def test_a_directory_of_versions_predicts_with_the_latest(model, predict_with, tmp_path):
    for version in (1, 2):
        push(model.saved, tmp_path / "models", version)
    (tmp_path / "models/pushed.json").unlink()
    (tmp_path / "models/LATEST").write_text("1\n")
    assert predict_with(tmp_path / "models").told.metadata["model_version"] == "1"


@pytest.mark.parametrize("where", ["model", "bundle"])
def test_what_is_no_model_is_an_error(where, predict_with, tmp_path):
    with pytest.raises(StepError, match=r"is neither a SavedModel nor an edge bundle|is not an edge bundle"):
        predict_with(**{where: tmp_path})
    with pytest.raises(StepError, match="give model, bundle or both"):
        predict_with()


# -------------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"shard_rows": -1}, "shard_rows is -1"),
        ({"workers": -1}, "workers is -1"),
        ({"decision_threshold": 1.0}, "must lie between 0 and 1"),
        ({"task": "ranking"}, "task is 'ranking'"),
        ({"time": "yesterday"}, "time is 'yesterday'; give a time such as"),
        ({"key_columns": ["idd"]}, "key_columns: the examples have no column 'idd'"),
        ({"task": "regression"}, "but the model was trained for binary"),
    ],
)
def test_wrong_parameters_are_named(options, message, model, predict_with):
    with pytest.raises(StepError, match=message):
        predict_with(model.saved, **options)


def test_a_key_with_the_name_of_an_added_column_asks_for_a_prefix(model, flights, predict_with, write_examples):
    data = write_examples(eval=flights.append_column("score", flights["id"]))
    with pytest.raises(StepError, match="would be called 'score'; give prefix"):
        predict_with(model.saved, data=data, key_columns=["score"])
    table = predict_with(model.saved, data=data, key_columns=["score"], prefix="new_").table()
    assert table.column_names == ["score", "new_score", "new_predicted", "new_model_version", "new_predicted_at"]


def test_batches_of_any_size_give_the_same_scores(model, predict_with):
    reference = predict_with(model.saved).table()["score"].to_numpy()
    for batch_size in (1, 77, 100_000):
        found = predict_with(model.saved, splits=["eval"], batch_size=batch_size).table()["score"].to_numpy()
        np.testing.assert_allclose(found, reference, atol=TOLERANCE)


def test_a_job_tells_what_it_did(model, predict_with, caplog):
    caplog.set_level(logging.INFO)
    told = predict_with(model.saved, key_columns=["id"]).told
    assert told.metadata == {
        "model_version": told.metadata["model_digest"][:12],
        "model_digest": told.metadata["model_digest"],
        "predicted_at": "2026-01-31T06:00:00Z",
        "engine": "tensorflow",
        "rows": 6000,
        "rows_without_score": 0,
    }
    assert told.metrics["rows"] == 6000
    assert told.metrics["largest_difference"] <= TOLERANCE
    assert told.metrics["rows_per_second"] > 0
    assert "predicted 6,000 rows (0 by an earlier run)" in caplog.text
