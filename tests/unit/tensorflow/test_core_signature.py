"""What `core` is compared with `serving_default` by."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfp_hybrid.preprocessing import MISSING_ID, OUT_OF_VOCABULARY_ID, Categorical, Label, Numeric, Preprocessing
from kfp_hybrid.scoring.core import MOST_ROWS, made_up_rows
from kfp_hybrid.scoring.difference import largest_difference

PREPROCESSING = Preprocessing(
    "regression",
    Label("y"),
    (Numeric("a", 1.0, 2.0, 0.0, (0.0, 1.0, 2.0)), Numeric("b", 0.0, 1.0, 5.0, ())),
    (Categorical("c", "string", ("x", "y")), Categorical("n", "int", ("1", "7", "30"))),
)


def test_made_up_rows_have_a_value_for_each_id_that_the_preprocessing_gives():
    inputs = PREPROCESSING.transform(made_up_rows(PREPROCESSING))
    assert set(inputs["bucket"][:, 0]) == {MISSING_ID, 1, 2, 3, 4}
    assert set(inputs["bucket"][:, 1]) == {MISSING_ID, 1}
    assert set(inputs["categorical"][:, 0]) == {MISSING_ID, OUT_OF_VOCABULARY_ID, 2, 3}
    assert set(inputs["categorical"][:, 1]) == {MISSING_ID, OUT_OF_VOCABULARY_ID, 2, 3, 4}


def test_made_up_rows_are_always_the_same_and_begin_with_one_that_has_no_values():
    rows = made_up_rows(PREPROCESSING)
    assert rows == made_up_rows(PREPROCESSING)
    assert [values[0] for values in rows.values()] == [None] * 4
    assert len({len(values) for values in rows.values()}) == 1


def test_a_large_vocabulary_makes_a_bounded_number_of_rows():
    words = tuple(map(str, range(100_000)))
    rows = made_up_rows(Preprocessing("regression", Label("y"), (), (Categorical("c", "string", words),)))
    assert len(rows["c"]) == MOST_ROWS


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        ([[0.5], [0.25]], [[0.5], [0.5]], 0.25),
        ([[101.0]], [[100.0]], 0.01),
        ([[1.0], [4000.0]], [[0.0], [4000.0]], 0.0005),  # of a standard deviation of 2000
        ([[0.0], [math.nan]], [[1.0], [math.nan]], 1.0),
        ([[math.nan]], [[math.nan]], 0.0),
        ([[math.nan]], [[0.5]], math.inf),
        ([[0.5]], [[math.nan]], math.inf),
        ([[math.inf]], [[math.inf]], 0.0),
        ([[math.inf]], [[-math.inf]], math.inf),
        ([[math.inf]], [[1.0]], math.inf),
        (np.empty((0, 1)), np.empty((0, 1)), 0.0),
    ],
)
def test_the_largest_difference(found, expected, difference):
    assert largest_difference(np.array(found, np.float32), np.array(expected, np.float32)) == pytest.approx(difference)


@given(st.lists(st.floats(width=32), min_size=1))
def test_scores_do_not_differ_from_themselves(scores):
    assert largest_difference(np.array([scores], np.float32), np.array([scores], np.float32)) == 0.0
