import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_hybrid.components.training.train_model.training_input import LABEL, WEIGHT, TrainingInput, read_labels
from kfp_hybrid.data.examples import Examples, ExamplesWriter
from kfp_hybrid.preprocessing import Categorical, Label, Numeric, Preprocessing
from kfp_hybrid.step import StepError

PREPROCESSING = Preprocessing(
    "binary", Label("y", (0, 1)), (Numeric("id", 0.0, 1.0, 0.0, ()),), (Categorical("c", "string", ("a", "b")),)
)
ROW_BYTES = 16  # numeric and bucket, categorical, label: 4 bytes each


@pytest.fixture(scope="session")
def write_rows(tmp_path_factory):
    """Writes rows with a running number as feature `id`, in many small row groups."""

    def write(rows, group_rows=10, labels=None):
        path = tmp_path_factory.mktemp("examples") / "examples"
        with ExamplesWriter(path, {"id": "int64", "c": "string", "y": "int64"}, splits=["train"]) as writer:
            ids = np.arange(rows)
            table = pa.table({"id": ids, "c": np.where(ids % 2, "a", "b"), "y": ids % 2 if labels is None else labels})
            for batch in table.to_batches():
                writer.write("train", batch)
        rewrite_in_row_groups(path, table, group_rows)
        return Examples.open(path)

    return write


def rewrite_in_row_groups(path, table, rows):
    for file in Examples.open(path).files("train"):
        pa.parquet.write_table(table, file, row_group_size=rows)


def make_input(examples, batch_size=8, memory=1 << 20, seed=3, chunk_batches=4, **options):
    return TrainingInput(examples, "train", PREPROCESSING, batch_size, chunk_batches, seed, memory, **options)


def ids_of_batches(source, epoch):
    return [batch[:, 0].tolist() for chunk in source.chunks(epoch) for batch in chunk["numeric"]]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 200),
    group_rows=st.integers(1, 60),
    batch_size=st.integers(1, 64),
    memory_rows=st.sampled_from([4, 50, 150, 10_000]),
    epoch=st.integers(0, 3),
)
def test_an_epoch_has_every_row_once_in_full_batches(write_rows, rows, group_rows, batch_size, memory_rows, epoch):
    source = make_input(write_rows(rows, group_rows), batch_size, memory=memory_rows * ROW_BYTES)
    batches = ids_of_batches(source, epoch)
    assert sorted(id_ for batch in batches for id_ in batch) == list(range(rows))
    assert len(batches) == source.steps
    assert all(len(batch) == source.batch_size for batch in batches[:-1])


@pytest.mark.parametrize("memory", [1 << 20, 40 * ROW_BYTES], ids=["resident", "streamed"])
def test_the_order_follows_from_seed_and_epoch(write_rows, memory):
    examples = write_rows(100)
    first = make_input(examples, memory=memory)
    history = [ids_of_batches(first, epoch) for epoch in range(3)]
    assert history[0] != history[1] != history[2]
    assert ids_of_batches(make_input(examples, memory=memory), 2) == history[2]
    assert ids_of_batches(make_input(examples, memory=memory, seed=4), 2) != history[2]


def test_rows_stay_with_their_label_and_category(write_rows):
    source = make_input(write_rows(100), memory=40 * ROW_BYTES)
    for chunk in source.chunks(0):
        ids = chunk["numeric"][:, :, 0]
        np.testing.assert_array_equal(chunk[LABEL], ids % 2)
        np.testing.assert_array_equal(chunk["categorical"][:, :, 0], np.where(ids % 2, 2, 3))


def test_streaming_shuffles_row_groups_and_the_rows_of_a_buffer(write_rows):
    source = make_input(write_rows(1000), batch_size=10, memory=160 * ROW_BYTES)
    ids = [id_ for batch in ids_of_batches(source, 0) for id_ in batch]
    assert ids[:40] != sorted(ids[:40])  # rows are shuffled within a buffer of 4 row groups
    assert len({id_ // 10 for id_ in ids[:40]}) == 4  # that are 4 of the 100
    assert max(ids[:40]) - min(ids[:40]) > 40  # and not consecutive ones


def test_rows_that_fit_are_read_once(write_rows):
    examples = write_rows(100)
    source = make_input(examples)
    first = ids_of_batches(source, 0)
    for file in examples.files("train"):
        file.unlink()
    assert ids_of_batches(source, 0) == first


def test_a_chunk_has_at_most_so_many_batches(write_rows):
    sizes = [len(chunk[LABEL]) for chunk in make_input(write_rows(100), batch_size=8, chunk_batches=5).chunks(0)]
    assert sizes == [5, 5, 2, 1]


def test_a_batch_is_not_larger_than_the_split(write_rows):
    source = make_input(write_rows(5), batch_size=1000)
    assert (source.batch_size, source.steps) == (5, 1)


def test_class_weights_follow_the_label(write_rows):
    source = make_input(write_rows(50), class_weights=np.array([0.5, 2.0], np.float32))
    for chunk in source.chunks(0):
        np.testing.assert_array_equal(chunk[WEIGHT], np.where(chunk[LABEL], 2.0, 0.5))


def test_static_shapes_leave_an_incomplete_batch_out(write_rows):
    source = make_input(write_rows(50), batch_size=8, static_shapes=True)
    assert source.steps == 6
    assert [chunk[LABEL].shape for chunk in source.chunks(0)] == [(1, 8)] * 6


def test_replicas_share_a_batch(write_rows):
    tf = pytest.importorskip("tensorflow")
    source = make_input(write_rows(30), batch_size=8)
    whole = np.concatenate([chunk["numeric"][:, :, 0].ravel() for chunk in source.chunks(1)])
    elements = list(source.dataset(lambda: 1, range(2), 2).as_numpy_iterator())
    assert sorted(np.concatenate([e["numeric"].ravel() for e in elements])) == sorted(whole)
    assert [e["rows"].tolist() for e in elements] == [[8.0] * 3, [8.0] * 3, [6.0], [6.0]]
    assert {e["label"].shape for e in elements} == {(3, 4), (1, 3)}
    assert tf.data.experimental.get_structure(source.dataset(lambda: 1, range(1), 1))["rows"].shape == [None]


def test_a_file_that_vanishes_while_training_is_named(write_rows):
    examples = write_rows(100)
    source = make_input(examples, memory=40 * ROW_BYTES)
    file = examples.files("train")[0]
    file.unlink()
    with pytest.raises(StepError, match=f"cannot read {file}"):
        list(source.chunks(0))


def test_labels_are_counted_by_class(write_rows):
    assert read_labels(write_rows(31), "train", PREPROCESSING).tolist() == [16, 15]
    regression = dataclasses.replace(PREPROCESSING, task="regression", label=Label("id"))
    assert read_labels(write_rows(31), "train", regression).tolist() == [31]


def test_bad_labels_are_reported_with_their_split(write_rows):
    examples = write_rows(4, labels=pa.array([0, None, 1, 5]))
    with pytest.raises(StepError, match="split 'train': 1 labels in column 'y' are missing"):
        read_labels(examples, "train", PREPROCESSING)
    with pytest.raises(StepError, match="split 'train' has no rows"):
        read_labels(write_rows(0), "train", PREPROCESSING)
    elsewhere = dataclasses.replace(PREPROCESSING, label=Label("z", (0, 1)))
    with pytest.raises(StepError, match="label 'z' is not a column of the examples, which have id, c, y"):
        read_labels(write_rows(4), "train", elsewhere)
