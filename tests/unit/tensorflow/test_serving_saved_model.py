"""The model server with SavedModels: those of this library by `core`, any other by `serving_default`."""

import json
import logging
import shutil

import numpy as np
import pytest
import tensorflow as tf

from kfp_hybrid.preprocessing import Categorical, Label, Numeric, Preprocessing
from kfp_hybrid.serving.loading import ModelSource
from kfp_hybrid.serving.rows import InvalidRows, Reader
from kfp_hybrid.step import StepError

PREPROCESSING = Preprocessing(
    "binary",
    Label("y", ("no", "yes")),
    (Numeric("a", 1.0, 2.0, 0.0, (0.0, 2.0)), Numeric("wind speed", 0.0, 1.0, 5.0, (20.0,))),
    (Categorical("c", "string", ("x", "y")),),
)
ROWS = {"a": [1, 2.5, None], "wind speed": [10, None, 30.0], "c": ["x", None, "other"]}


class Trained(tf.Module):
    """As train_model exports: `core` behind the preprocessing, `serving_default` with it.

    `shift` sets them apart, for rows of which `a` is greater than `above`.
    """

    def __init__(self, shift=0.0, above=-np.inf):
        super().__init__()
        self.shift = shift
        self.above = above

    def core(self, numeric, bucket, categorical):
        total = tf.reduce_sum(numeric, 1) + tf.cast(
            tf.reduce_sum(bucket, 1) + tf.reduce_sum(categorical, 1), tf.float32
        )
        return {"scores": tf.sigmoid(total / 10.0)[:, tf.newaxis]}

    def save(self, path):
        ids = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["", "x", "y"], [0, 2, 3]), 1)
        self.ids = ids

        def bucket(values, missing, boundaries):
            found = 1 + tf.add_n([tf.cast(values >= boundary, tf.int32) for boundary in boundaries])
            return tf.where(missing, 0, found)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "a"),
                                      tf.TensorSpec([None], tf.float32, "feature_wind_speed"),
                                      tf.TensorSpec([None], tf.string, "c")])  # fmt: skip
        def serving(a, feature_wind_speed, c):
            numeric, buckets = [], []
            for values, n in zip((a, feature_wind_speed), PREPROCESSING.numeric, strict=True):
                missing = tf.math.logical_not(tf.math.is_finite(values))
                numeric.append((tf.where(missing, n.missing, values) - n.mean) / n.std)
                buckets.append(bucket(values, missing, n.boundaries))
            scores = self.core(tf.stack(numeric, 1), tf.stack(buckets, 1), ids.lookup(c)[:, tf.newaxis])["scores"]
            return {"scores": scores + tf.where(a > self.above, self.shift, 0.0)[:, tf.newaxis]}

        core = tf.function(self.core, input_signature=[
            tf.TensorSpec([None, 2], tf.float32, "numeric"), tf.TensorSpec([None, 2], tf.int32, "bucket"),
            tf.TensorSpec([None, 1], tf.int32, "categorical")])  # fmt: skip
        tf.saved_model.save(self, path, signatures={"serving_default": serving, "core": core})
        (path / "assets.extra").mkdir()
        PREPROCESSING.save(path / "assets.extra" / "preprocessing.json")


class Any(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "image"),
                                  tf.TensorSpec([None, 1], tf.int64, "n"),
                                  tf.TensorSpec([None], tf.string, "text")])  # fmt: skip
    def serve(self, image, n, text):
        length = tf.cast(tf.strings.length(text), tf.float32)[:, tf.newaxis]
        return {"out": tf.concat([tf.reduce_sum(image, 1, keepdims=True) + tf.cast(n, tf.float32), length], 1)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained")
    Trained().save(path)
    return path


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    path = tmp_path_factory.mktemp("other")
    module = Any()
    tf.saved_model.save(module, path, signatures=module.serve)
    return path


def test_core_gives_what_serving_default_gives(trained, caplog):
    servable = ModelSource(str(trained), "m").load()
    expected = tf.saved_model.load(str(trained)).signatures["serving_default"](
        a=tf.constant([1, 2.5, np.nan]), feature_wind_speed=tf.constant([10, np.nan, 30]), c=tf.constant(["x", "", "o"])
    )["scores"]
    np.testing.assert_allclose(servable.predict(ROWS), expected, atol=1e-6)
    assert (servable.engine, servable.outputs, servable.answer.classes) == ("tensorflow", 1, ("no", "yes"))
    assert [feature.name for feature in servable.features] == ["a", "wind speed", "c"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("above", [-np.inf, 1.5])
def test_serving_default_is_used_where_core_differs_from_it_for_some_rows(tmp_path, caplog, above):
    Trained(0.25, above).save(tmp_path / "model")
    servable = ModelSource(str(tmp_path / "model"), "m").load()
    same, shifted = servable.predict({"a": [0.0, 2.5], "wind speed": [10, 10], "c": ["x", "x"]})[:, 0]
    assert shifted > 0.25 + same if above > 0 else same > 0.25
    assert "core differs from serving_default by 0.25" in caplog.text


def test_rows_of_the_edge_bundle_beside_it_are_its_samples(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "m")
    (tmp_path / "m" / "edge").mkdir()
    (tmp_path / "m" / "edge" / "samples.json").write_text(json.dumps({"rows": ROWS, "scores": [[9.0]] * 3}))
    servable = ModelSource(str(tmp_path / "m"), "m").load()
    assert servable.samples.columns == ROWS


def test_any_other_saved_model(other):
    servable = ModelSource(str(other), "m").load()
    rows = [{"image": [1, 2, 3], "n": 4, "text": "abc"}, {"image": [0.5, 0, 0], "n": 1, "text": "ü"}]
    read = Reader(servable.features).rows(rows)
    assert servable.predict(read.columns).tolist() == [[10.0, 3.0], [1.5, 2.0]]
    assert servable.answer is None
    assert [(f.name, f.datatype, f.shape) for f in servable.features] == [
        ("image", "FP32", (3,)), ("n", "INT64", ()), ("text", "BYTES", ()),
    ]  # fmt: skip


def test_any_other_saved_model_with_arrays(other):
    servable = ModelSource(str(other), "m").load()
    columns = {"image": np.ones((300, 3), np.float32), "n": np.arange(300), "text": np.full(300, "ab", object)}
    scores = servable.predict(Reader(servable.features).columns(columns).columns)
    assert scores[:, 0].tolist() == [3.0 + n for n in range(300)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": [1, 2]}, "row 0: feature 'image' has the shape [2]; the model takes [3]"),
        ({"image": [1, [2], 3]}, "row 0: feature 'image' is no regular array"),
        ({"image": ["1", "2", "3"]}, "row 0: feature 'image' holds a value that is not a number"),
        ({"n": None}, "row 0: feature 'n' is null, and the model takes no missing value there"),
        ({"n": 1.5}, "row 0: feature 'n' is the number 1.5; it must be a whole number"),
        ({"text": 3}, "row 0: feature 'text' is the number 3; it must be a text"),
    ],
)
def test_values_that_it_cannot_take_are_refused(other, change, message):
    reader = Reader(ModelSource(str(other), "m").load().features)
    with pytest.raises(InvalidRows) as raised:
        reader.rows([{"image": [1, 2, 3], "n": 4, "text": "abc", **change}])
    assert str(raised.value) == message


def test_a_saved_model_that_reads_files_is_refused(tmp_path):
    class Reads(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "name")])
        def serve(self, name):
            return {"size": tf.map_fn(lambda n: tf.cast(tf.strings.length(tf.io.read_file(n)), tf.float32), name,
                                      fn_output_signature=tf.float32)}  # fmt: skip

    module = Reads()
    tf.saved_model.save(module, tmp_path / "m", signatures=module.serve)
    with pytest.raises(StepError, match="has the operation ReadFile"):
        ModelSource(str(tmp_path / "m"), "m").load()
