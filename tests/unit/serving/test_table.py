"""Static inference: answers from a table of predictions."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kfp_hybrid.data.examples import ExamplesWriter
from kfp_hybrid.serving.table import PredictionTable
from kfp_hybrid.step import StepError

TYPES = {pa.int64(): "int64", pa.string(): "string", pa.float64(): "double"}
id_texts = st.text(st.characters(exclude_characters="\0\x1f", exclude_categories=["Cs"]), min_size=1, max_size=20)


def write_table(folder, keys, scores=("score",), batches=1, **columns):
    """What predict_batch writes with keys: an examples artifact with two entries more in its manifest."""
    arrays = {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()}
    rows = pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))
    size = -(-max(1, rows.num_rows) // batches)
    with ExamplesWriter(folder, {name: TYPES[array.type] for name, array in arrays.items()}, ["a", "b"]) as writer:
        for number, start in enumerate(range(0, rows.num_rows, size)):
            writer.write("ab"[number % 2], rows.slice(start, size))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["predictions"] = {"model_version": "7", "model_digest": "d" * 64}
    manifest["table"] = {
        "keys": list(keys),
        "scores": list(scores),
        "task": "binary",
        "label": "late",
        "classes": [0, 1],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def open_table(folder, keys, scores=("score",), **columns):
    return PredictionTable.open(write_table(folder, keys, scores, **columns))


def test_a_known_key_is_answered_with_its_scores(tmp_path):
    table = open_table(tmp_path / "t", ["id"], id=[30, 10, 20], score=[0.3, 0.1, 0.2], batches=3)
    assert table.lookup({"id": [20, 30]}).tolist() == np.float32([[0.2], [0.3]]).tolist()
    assert (table.rows, table.hits, table.misses, table.model_version) == (3, 2, 0, "7")


def test_a_request_with_one_unknown_key_is_left_to_the_model_as_a_whole(tmp_path):
    table = open_table(tmp_path / "t", ["id"], id=[10, 20], score=[0.1, 0.2])
    assert table.lookup({"id": [10, 11]}) is None
    assert (table.hits, table.misses) == (0, 2)


def test_a_request_without_the_key_columns_is_left_to_the_model_and_not_counted(tmp_path):
    table = open_table(tmp_path / "t", ["id"], id=[10], score=[0.1])
    assert table.lookup({"distance": [3]}) is None
    assert table.misses == 0


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "", "x", 10.5, 2**63, True, [10], "1_0", " 10"])
def test_what_is_no_key_is_a_miss(tmp_path, value):
    table = open_table(tmp_path / "t", ["id"], id=[10, 1], score=[0.1, 0.5])
    assert table.lookup({"id": [value]}) is None


@pytest.mark.parametrize("value", [10, 10.0, "10", np.int64(10), np.float64(10)])
def test_an_integer_is_the_same_key_in_every_spelling_of_json(tmp_path, value):
    table = open_table(tmp_path / "t", ["id"], id=[10], score=[0.25])
    assert table.lookup({"id": [value]}) == 0.25


def test_several_columns_make_a_key(tmp_path):
    table = open_table(tmp_path / "t", ["user", "shop"], user=["a", "a", "ab"], shop=[1, 2, 1], score=[0.1, 0.2, 0.3])
    assert table.lookup({"user": ["ab", "a"], "shop": [1, 2]}).ravel().tolist() == pytest.approx([0.3, 0.2])
    assert table.lookup({"user": ["a"], "shop": [3]}) is None


def test_multiclass_scores_come_in_the_order_of_the_outputs(tmp_path):
    columns = {"score_x": [0.1, 0.6], "score_y": [0.9, 0.4]}
    table = open_table(tmp_path / "t", ["id"], ("score_y", "score_x"), id=[1, 2], **columns)
    assert table.lookup({"id": [2]}).tolist() == np.float32([[0.4, 0.6]]).tolist()


def test_rows_without_a_score_are_left_to_the_model(tmp_path):
    scores = pa.array([0.1, None], pa.float64())
    table = open_table(tmp_path / "t", ["id"], id=[1, 2], score=scores)
    assert table.rows == 1
    assert table.lookup({"id": [2]}) is None


def test_an_empty_table_answers_nothing(tmp_path):
    empty = {"id": pa.array([], pa.string()), "score": pa.array([], pa.float64())}
    assert open_table(tmp_path / "t", ["id"], **empty).lookup({"id": ["x"]}) is None


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(id_texts, st.floats(0, 1, width=32), min_size=1, max_size=30), st.lists(id_texts, max_size=10))
def test_each_key_has_its_own_scores_and_no_other_key_has_any(tmp_path_factory, known, others):
    folder = tmp_path_factory.mktemp("laws") / "t"
    table = open_table(folder, ["id"], id=list(known), score=list(known.values()), batches=3)
    assert table.lookup({"id": list(known)}).ravel().tolist() == list(known.values())
    for other in set(others) - set(known):
        assert table.lookup({"id": [other]}) is None


def refusal(folder, keys, **columns):
    with pytest.raises(StepError) as error:
        open_table(folder, keys, **columns)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_key_that_occurs_twice_is_refused(tmp_path):
    assert "1 keys occur more than once" in refusal(
        tmp_path / "t", ["id"], id=[1, 2, 1], score=[0.1, 0.2, 0.3], batches=3
    )


def test_keys_that_cannot_be_looked_up_are_refused(tmp_path):
    assert "no column of type int64 or string" in refusal(tmp_path / "a", ["id"], id=[1.5], score=[0.1])
    assert "a key is missing" in refusal(tmp_path / "b", ["id"], id=[1, None], score=[0.1, 0.2])
    assert "129 bytes" in refusal(tmp_path / "c", ["id"], id=["x" * 129], score=[0.1])
    assert "control character" in refusal(tmp_path / "d", ["id"], id=["x\0"], score=[0.1])


def test_a_damaged_table_is_refused(tmp_path):
    folder = write_table(tmp_path / "t", ["id"], id=[1], score=[0.1])
    part = next(folder.glob("a/*.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    with pytest.raises(StepError, match="is damaged"):
        PredictionTable.open(folder)


def test_examples_that_are_no_table_are_refused_with_what_to_do(tmp_path):
    with ExamplesWriter(tmp_path / "t", {"id": "int64"}):
        pass
    with pytest.raises(StepError, match="is not a prediction table"):
        PredictionTable.open(tmp_path / "t")
