import json
import math
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfp_hybrid.preprocessing import Categorical, Label, Numeric, Preprocessing
from kfp_hybrid.step import StepError

PREPROCESSING = Preprocessing(
    task="binary",
    label=Label("late", ("no", "yes")),
    numeric=(Numeric("delay", 10.0, 2.0, 10.0, (5.0, 10.0, 15.0)), Numeric("wind", 0.5, 1.0, 0.5, ())),
    categorical=(Categorical("carrier", "string", ("UA", "ünï")), Categorical("weekday", "int", ("0", "1", "6"))),
)

ROWS = {
    "delay": [4, 5, None, 16],
    "wind": [0.5, 1.5, math.nan, None],
    "carrier": ["UA", "", None, "ZZ"],
    "weekday": [0, None, 6, 5],
}


def batch(rows):
    types = {"delay": pa.int64(), "wind": pa.float64(), "carrier": pa.string(), "weekday": pa.int64()}
    return pa.record_batch({name: pa.array(values, types[name]) for name, values in rows.items()})


@pytest.mark.parametrize("rows", [ROWS, batch(ROWS)], ids=["lists", "arrow"])
def test_rows_become_the_inputs_of_the_core(rows):
    inputs = PREPROCESSING.transform(rows)
    assert inputs["numeric"].tolist() == [[-3.0, 0.0], [-2.5, 1.0], [0.0, 0.0], [3.0, 0.0]]
    assert inputs["bucket"].tolist() == [[1, 1], [2, 1], [0, 0], [4, 0]]
    assert inputs["categorical"].tolist() == [[2, 2], [0, 0], [0, 4], [1, 1]]
    assert {name: str(array.dtype) for name, array in inputs.items()} == {
        "numeric": "float32",
        "bucket": "int32",
        "categorical": "int32",
    }


@pytest.mark.parametrize("rows", [ROWS, batch(ROWS)], ids=["lists", "arrow"])
def test_rows_become_the_inputs_of_serving_default(rows):
    inputs = PREPROCESSING.serving_inputs(rows)
    np.testing.assert_array_equal(inputs["delay"], np.array([4, 5, np.nan, 16], np.float32))
    assert inputs["delay"].dtype == np.float32
    assert inputs["carrier"].tolist() == ["UA", "", "", "ZZ"]
    assert inputs["weekday"].tolist() == ["0", "", "6", "5"]


numbers = st.one_of(st.none(), st.integers(-(2**53), 2**53), st.floats(width=64))
texts = st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["UA", "ünï", "Ua"]))


@given(st.lists(st.tuples(numbers, st.one_of(st.none(), st.floats()), texts, st.integers(-1, 9) | st.none())))
def test_lists_and_arrow_give_the_same(rows):
    columns = dict(zip(ROWS, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(ROWS, ())
    columns["delay"] = [None if x is None else float(x) for x in columns["delay"]]
    lists = {name: list(values) for name, values in columns.items()}
    arrow = pa.record_batch(
        [pa.array(lists["delay"], pa.float64()), pa.array(lists["wind"], pa.float64()),
         pa.array(lists["carrier"], pa.string()), pa.array(lists["weekday"], pa.int64())],
        names=list(ROWS),
    )  # fmt: skip
    for name, array in PREPROCESSING.transform(lists).items():
        np.testing.assert_array_equal(array, PREPROCESSING.transform(arrow)[name])


singles = st.floats(-(2.0**99), 2.0**99, width=32)


@given(st.lists(singles, min_size=1), st.lists(singles, max_size=9))
def test_a_bucket_is_one_plus_the_number_of_boundaries_reached(values, boundaries):
    boundaries = tuple(sorted(set(boundaries)))
    feature = Numeric("x", 0.0, 1.0, 0.0, boundaries)
    preprocessing = Preprocessing("regression", Label("y"), (feature,), ())
    buckets = preprocessing.transform({"x": values})["bucket"][:, 0]
    assert buckets.tolist() == [1 + sum(boundary <= value for boundary in boundaries) for value in values]
    assert buckets.max() < feature.buckets


@pytest.mark.parametrize("infinite", [math.inf, -math.inf, 1e300])
def test_what_float32_cannot_hold_is_missing(infinite):
    inputs = PREPROCESSING.transform({**ROWS, "delay": [infinite] * 4})
    assert inputs["numeric"][:, 0].tolist() == [0.0] * 4
    assert inputs["bucket"][:, 0].tolist() == [0] * 4


def test_a_column_without_any_value_is_missing():
    rows = pa.record_batch([pa.nulls(2)] * 4, names=list(ROWS))
    inputs = PREPROCESSING.transform(rows)
    assert not inputs["bucket"].any()
    assert not inputs["categorical"].any()
    assert PREPROCESSING.serving_inputs(rows)["carrier"].tolist() == ["", ""]


def test_integers_that_arrive_as_floats_or_text_are_the_same_category():
    for weekdays in ([0.0, None, 6.0], ["0", "", "6"], pa.array([0.0, None, 6.0]), np.array([0, np.nan, 6])):
        rows = {"delay": [1] * 3, "wind": [1] * 3, "carrier": ["UA"] * 3, "weekday": weekdays}
        assert PREPROCESSING.transform(rows)["categorical"][:, 1].tolist() == [2, 0, 4]


def test_groups_without_features_are_left_out():
    only_numbers = Preprocessing("regression", Label("y"), PREPROCESSING.numeric, ())
    assert set(only_numbers.transform(ROWS)) == {"numeric", "bucket"}
    only_categories = Preprocessing("regression", Label("y"), (), PREPROCESSING.categorical)
    assert set(only_categories.transform(ROWS)) == {"categorical"}


def test_a_missing_column_is_named():
    with pytest.raises(StepError, match="column 'carrier' is missing"):
        PREPROCESSING.transform({"delay": [1], "wind": [1], "weekday": [1]})
    with pytest.raises(StepError, match="column 'wind' is missing"):
        PREPROCESSING.transform(batch(ROWS).select(["delay", "carrier", "weekday"]))


@pytest.mark.parametrize("bad", [["x"], pa.array(["x"])], ids=["lists", "arrow"])
def test_text_in_a_numeric_column_is_refused(bad):
    with pytest.raises(StepError, match="column 'delay' holds a value that is not a number"):
        PREPROCESSING.transform({"delay": bad, "wind": [1], "carrier": ["UA"], "weekday": [1]})


def test_labels_become_positions_of_classes():
    assert PREPROCESSING.encode_labels(pa.array(["yes", "no"])).tolist() == [1, 0]
    integers = Preprocessing("multiclass", Label("y", (3, 5, 7)), PREPROCESSING.numeric, ())
    assert integers.encode_labels(pa.array([7, 3, 5])).tolist() == [2, 0, 1]
    assert integers.encode_labels([7.0, 3.0]).tolist() == [2, 0]
    regression = Preprocessing("regression", Label("y"), PREPROCESSING.numeric, ())
    assert regression.encode_labels(pa.array([1, 2])).tolist() == [1.0, 2.0]


def test_labels_that_are_missing_or_unknown_are_counted():
    with pytest.raises(StepError, match="2 labels in column 'late' are missing"):
        PREPROCESSING.encode_labels(pa.array(["yes", None, ""]))
    with pytest.raises(StepError, match=r"1 labels in column 'late' are none of the classes \(no, yes\).*'maybe'"):
        PREPROCESSING.encode_labels(["yes", "maybe"])
    regression = Preprocessing("regression", Label("y"), PREPROCESSING.numeric, ())
    with pytest.raises(StepError, match="2 labels in column 'y' are missing or not finite"):
        regression.encode_labels(pa.array([1.0, None, math.inf]))


def test_a_saved_file_loads_to_the_same(tmp_path):
    file = tmp_path / "preprocessing.json"
    PREPROCESSING.save(file)
    assert Preprocessing.load(file) == PREPROCESSING
    assert Preprocessing.load(tmp_path) == PREPROCESSING
    assert json.loads(file.read_text(encoding="utf-8"))["format"] == "kfp-hybrid/preprocessing"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a preprocessing file"),
        ({"version": 2}, "version 2 .* is not supported"),
        ({"task": "ranking"}, "task is 'ranking'"),
        ({"numeric": [{"name": "x"}]}, "missing or of a wrong type"),
        ({"label": {"name": "late", "classes": [1]}}, "wrong for binary"),
        ({"numeric": [{"name": "x", "mean": 0, "std": 0, "missing": 0, "boundaries": []}]}, "std 0"),
        ({"numeric": [{"name": "x", "mean": 0, "std": 1e-60, "missing": 0, "boundaries": []}]}, "std 1e-60"),
        ({"numeric": [{"name": "x", "mean": 1e99, "std": 1, "missing": 0, "boundaries": []}]}, "not a finite float32"),
        ({"numeric": [{"name": "x", "mean": 0, "std": 1, "missing": 0, "boundaries": [2, 1]}]}, "do not increase"),
        ({"categorical": [{"name": "c", "type": "float", "vocabulary": []}]}, "has type 'float'"),
        ({"categorical": [{"name": "c", "type": "string", "vocabulary": ["a", "a"]}]}, "'a' twice"),
        ({"categorical": [{"name": "c", "type": "string", "vocabulary": [""]}]}, "not text or is empty"),
        ({"numeric": [], "categorical": []}, "there is no feature"),
        ({"categorical": [{"name": "wind", "type": "string", "vocabulary": []}]}, "'wind' is listed twice"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_its_name(tmp_path, change, message):
    file = tmp_path / "preprocessing.json"
    file.write_text(json.dumps({**PREPROCESSING.to_dict(), **change}), encoding="utf-8")
    with pytest.raises(StepError, match=message) as error:
        Preprocessing.load(file)
    assert str(file) in str(error.value)


def test_a_file_that_is_absent_or_no_json_is_refused(tmp_path):
    with pytest.raises(StepError, match="no such file"):
        Preprocessing.load(tmp_path / "preprocessing.json")
    (tmp_path / "preprocessing.json").write_bytes(b"\xff{")
    with pytest.raises(StepError, match="cannot be read as JSON"):
        Preprocessing.load(tmp_path)


def test_names_that_tensorflow_cannot_use_are_adapted_without_collisions():
    names = ("plain", "dep delay (min)", "dep delay [min]", "class", "1st", "ünï", "_x", "feature_class", "self")
    numeric = tuple(Numeric(name, 0.0, 1.0, 0.0, ()) for name in names)
    adapted = Preprocessing("regression", Label("y"), numeric, ()).serving_names
    assert adapted["plain"] == "plain"
    assert adapted["feature_class"] == "feature_class"
    assert adapted["class"] == "feature_class_"
    assert adapted["self"] == "feature_self"  # which functions of TensorFlow call their own first argument
    assert len(set(adapted.values())) == len(names)
    assert all(name.isidentifier() and name.isascii() for name in adapted.values())


def test_neither_tensorflow_nor_pyarrow_is_needed_for_lists():
    code = (
        "import sys; from kfp_hybrid.preprocessing import *\n"
        "p = Preprocessing('binary', Label('y', (0, 1)), (Numeric('x', 0, 1, 0, (1,)),),"
        " (Categorical('c', 'string', ('a',)),))\n"
        "p.transform({'x': [1, None], 'c': ['a', None]})\n"
        "print(sorted({'tensorflow', 'pyarrow', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
