"""Laws of the sample: deterministic, spread over the split, and independent of how the rows are stored."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_hybrid.components.deployment.export_tflite.sampling import sample_positions, sample_rows
from kfp_hybrid.data.examples import Examples, ExamplesWriter


@given(rows=st.integers(1, 100_000), size=st.integers(1, 2_000))
def test_a_sample_takes_one_row_from_each_stretch_of_the_split(rows, size):
    positions = sample_positions(rows, size)
    count = min(rows, size)
    assert len(positions) == count
    limits = np.arange(count + 1) * rows // count
    assert (limits[:-1] <= positions).all() and (positions < limits[1:]).all()
    np.testing.assert_array_equal(positions, sample_positions(rows, size))


@given(rows=st.integers(1, 500))
def test_a_sample_as_large_as_the_split_is_the_split(rows):
    assert sample_positions(rows, rows + 3).tolist() == list(range(rows))


def test_a_sample_does_not_resonate_with_a_period_of_the_rows():
    hours = sample_positions(24 * 1000, 1000) % 24
    assert np.bincount(hours, minlength=24).min() > 20


@settings(deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(1, 400), max_size=5), size=st.integers(1, 500))
def test_a_sample_does_not_depend_on_how_the_rows_are_cut_into_batches(tmp_path_factory, cuts, size):
    folder = tmp_path_factory.mktemp("sampling")
    rows = pa.RecordBatch.from_pydict({"x": list(range(400)), "y": list(map(str, range(400)))})
    limits = sorted({0, 400, *cuts})
    with ExamplesWriter(folder / "examples", {"x": "int64", "y": "string"}, splits=["eval"]) as writer:
        for start, end in itertools.pairwise(limits):
            writer.write("eval", rows.slice(start, end - start))

    sample = sample_rows(Examples.open(folder / "examples"), "eval", size, ["y", "x"])
    assert sample.column("x").to_pylist() == sample_positions(400, size).tolist()
    assert sample.column("y").to_pylist() == [str(x) for x in sample.column("x").to_pylist()]


def test_a_sample_spans_several_batches_of_reading(tmp_path):
    count = 150_000
    with ExamplesWriter(tmp_path / "examples", {"x": "int64"}, splits=["eval"]) as writer:
        writer.write("eval", pa.RecordBatch.from_pydict({"x": np.arange(count)}))
    sample = sample_rows(Examples.open(tmp_path / "examples"), "eval", 1000, ["x"])
    assert sample.column("x").to_pylist() == sample_positions(count, 1000).tolist()


@pytest.mark.parametrize("size", [1, 2])
def test_the_smallest_samples_are_taken(size):
    assert len(sample_positions(10, size)) == size
