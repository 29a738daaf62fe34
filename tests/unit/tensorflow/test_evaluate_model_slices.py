import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_hybrid.components.evaluation.evaluate_model import slices
from kfp_hybrid.components.evaluation.evaluate_model.slices import MISSING, MOST_DISTINCT_NUMBERS, slice_column
from kfp_hybrid.step import StepError

texts = st.lists(st.one_of(st.none(), st.sampled_from(["UA", "é ✈", "", "a=b"])), min_size=1, max_size=30)
numbers = st.lists(st.one_of(st.none(), st.floats(allow_nan=False), st.integers(0, 5).map(float)), min_size=1)


def cut(type_, batches, buckets=5):
    column = slice_column("c", type_)
    for batch in batches:
        column.add(pa.array(batch, {"string": pa.string(), "double": pa.float64(), "int64": pa.int64()}[type_]))
    return list(column.slices(buckets))


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=4))
def test_rows_with_the_same_text_share_a_slice_whatever_the_batches(batches):
    rows = [value for batch in batches for value in batch]
    found = cut("string", batches)
    for one in found:
        value = None if one.value == MISSING else one.value
        assert one.rows.tolist() == [i for i, text in enumerate(rows) if text == value]
    assert sum(len(one.rows) for one in found) == len(rows)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=4), st.integers(2, 9))
def test_every_number_is_in_exactly_one_bucket_and_equal_numbers_share_it(batches, buckets):
    rows = [value for batch in batches for value in batch]
    found = cut("double", batches, buckets)
    assert sorted(i for one in found for i in one.rows) == list(range(len(rows)))
    bucket_of = {i: one.value for one in found for i in one.rows}
    for i, value in enumerate(rows):
        assert (bucket_of[i] == MISSING) == (value is None)
        assert bucket_of[i] == bucket_of[rows.index(value)]


@settings(deadline=None)
@given(st.integers(2, 6))
def test_buckets_of_many_distinct_numbers_hold_equally_many_rows_and_say_which(buckets):
    values = np.random.default_rng(buckets).permutation(6000).astype(float)
    found = cut("double", [values[:1000].tolist(), values[1000:].tolist()], buckets)
    assert len(found) == buckets
    for one in found:
        assert abs(len(one.rows) - 6000 / buckets) <= 1
        low, high = map(float, one.value.strip("[)]").split(","))
        inside = values[one.rows]
        assert inside.min() == low
        assert inside.max() == high if one.value.endswith("]") else inside.max() < high


def test_edges_are_written_with_as_many_digits_as_tell_them_apart():
    values = [1 + i * 1e-9 for i in range(100)]
    assert len({one.value for one in cut("double", [values], buckets=4)}) == 4
    values = [i / 3 for i in range(100)]
    assert [one.value for one in cut("double", [values], buckets=2)] == ["[0, 16.3333)", "[16.3333, 33]"]


def test_numbers_of_few_distinct_values_are_sliced_by_value():
    months = [1 + i % 12 for i in range(60)]
    assert [one.name for one in cut("int64", [months])] == [f"c={month}" for month in range(1, 13)]
    assert len(cut("int64", [list(range(MOST_DISTINCT_NUMBERS + 1))], buckets=4)) == 4


def test_missing_numbers_make_a_slice_of_their_own():
    found = cut("double", [[1.0, None, 2.0], [math.nan]])
    assert {one.value: one.rows.tolist() for one in found} == {"1": [0], "2": [2], MISSING: [1, 3]}
    assert [one.value for one in cut("double", [[None, None]])] == [MISSING]


def test_a_number_that_most_rows_share_does_not_break_the_buckets():
    values = [0.0] * 900 + [float(i) for i in range(1, 101)]
    found = cut("double", [values])
    assert sum(len(one.rows) for one in found) == 1000
    assert len(found[0].rows) >= 900


def test_a_column_that_identifies_rows_is_refused(monkeypatch):
    monkeypatch.setattr(slices, "MOST_DISTINCT_TEXTS", 10)
    with pytest.raises(StepError, match="'c' has more than 10 distinct values"):
        cut("string", [[f"id{i}" for i in range(11)]])


def test_a_column_without_any_value_is_one_slice():
    column = slice_column("c", "null")
    column.add(pa.nulls(3))
    assert [(one.value, len(one.rows)) for one in column.slices(5)] == [(MISSING, 3)]


def test_the_name_of_a_slice_is_one_short_line_whatever_its_value():
    values = ["two\nlines", "x" * 100_000, "é ✈"]
    names = [one.name for one in cut("string", [values])]
    assert names[0] == r"c=two\nlines" and names[2] == "c=é ✈"
    assert len(names[1]) < 100 and names[1].startswith("c=xxx")
