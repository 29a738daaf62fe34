"""A sample of the requests and their answers becomes examples."""

import resource
import threading
import time
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from kfp_hybrid.data.examples import Examples
from kfp_hybrid.scoring.answer import Answer
from kfp_hybrid.serving import recording
from kfp_hybrid.serving.recorded import Part, Recorded, columns_of
from kfp_hybrid.serving.recording import HELD_PARTS, Limits, Recorder
from kfp_hybrid.serving.servable import Feature
from kfp_hybrid.storage import StorageError


@pytest.fixture
def servable(sums, tmp_path):
    return sums.load(tmp_path / "models", 7)


@pytest.fixture
def recorded(tmp_path):
    return Recorded(str(tmp_path / "log"), "sums")


def record(writer, *requests, **limits):
    """What a recorder counts after these requests were answered and it was closed."""
    recorder = Recorder(writer, Limits(**{"seconds": 3600, **limits}))
    recorder.start()
    for served in requests:
        recorder.observe(served)
    recorder.close(30)
    return recorder


def one_row(**values):
    return SimpleNamespace(columns={name: [value] for name, value in values.items()}, count=1, scores=None)


def opened(tmp_path):
    """The examples that were recorded, after a check of all their files."""
    found = [Examples.open(folder) for folder in sorted((tmp_path / "log").iterdir())]
    for examples in found:
        examples.verify()
    return found


def rows(examples):
    return [row for batch in examples.batches("serving") for row in batch.to_pylist()]


def test_requests_become_examples_with_features_and_predictions(sums, tmp_path, servable, recorded):
    before = time.time()
    one = sums.served(servable, [1, None], ["red", ""], key="user-1")
    record(recorded, one, sums.served(servable, [2.5], [None]))
    (examples,) = opened(tmp_path)
    assert examples.columns == {
        "x": "double", "colour": "string", "predicted_at": "string", "request_key": "string",
        "predicted": "double", "model_version": "string",
    }  # fmt: skip
    found = rows(examples)
    assert [(row["x"], row["colour"], row["request_key"], row["predicted"]) for row in found] == [
        (1.0, "red", "user-1", 7003.0),
        (None, None, "user-1", 7000.0),
        (2.5, None, None, 7002.5),
    ]
    assert {row["model_version"] for row in found} == {"7"}
    when = pa.array([found[0]["predicted_at"]]).cast(pa.timestamp("ms", "UTC"))[0].as_py().timestamp()
    assert before - 0.001 <= when <= time.time()


@pytest.mark.parametrize(
    "task, classes, scores, expected",
    [
        ("binary", ("no", "yes"), [[0.75]], {"score": 0.75, "predicted": "yes"}),
        ("binary", (0, 1), [[0.25]], {"score": 0.25, "predicted": 0}),
        ("multiclass", ("a", "b"), [[0.25, 0.75]], {"score_a": 0.25, "score_b": 0.75, "predicted": "b"}),
        (None, (), [[0.5]], {"score": 0.5}),
    ],
)
def test_scores_have_the_columns_of_batch_predictions(
    sums, tmp_path, servable, recorded, task, classes, scores, expected
):
    servable.answer = Answer(task, "late", classes) if task else None
    servable.outputs = len(scores[0])
    served = sums.served(servable, [1])._replace(scores=np.float32(scores))
    record(recorded, served)
    (row,) = rows(opened(tmp_path)[0])
    known = {"x", "colour", "predicted_at", "request_key", "model_version"}
    assert {name: value for name, value in row.items() if name not in known} == expected


def test_integers_stay_integers_and_what_is_none_counts_as_missing(sums, tmp_path, servable, recorded):
    servable.features = (Feature("x", "integer category", "INT64", True, ("1",)), servable.features[1])
    served = sums.served(servable, [1])
    for value in (3, 3.0, "3", "three", None, float("nan"), 10**30):
        record(
            recorded,
            served._replace(rows=SimpleNamespace(columns={"x": [value], "colour": ["red"]}, count=1, scores=None)),
        )
    (examples,) = opened(tmp_path)
    assert examples.columns["x"] == "int64"
    assert [row["x"] for row in rows(examples)] == [3, 3, 3, None, None, None]  # the last fits into no column


def test_numbers_that_are_not_finite_are_missing(sums, tmp_path, servable, recorded):
    record(recorded, sums.served(servable, [1])._replace(rows=sums.rows_of(servable, [float("inf")])))
    assert rows(opened(tmp_path)[0])[0]["x"] is None


def test_columns_that_a_feature_has_already_get_a_prefix(servable):
    servable.features = (*servable.features, Feature("predicted_at", "text", "BYTES", True))
    columns, _ = columns_of(servable)
    added = ["served_predicted_at", "served_request_key", "served_predicted", "served_model_version"]
    assert list(columns.types) == ["x", "colour", "predicted_at", *added]


def test_a_share_of_the_requests_is_recorded(sums, servable, recorded):
    served = sums.served(servable, [1])
    written = record(recorded, *[served] * 2000, percent=25).rows["written"]
    assert 400 < written < 600


def test_what_a_table_answered_is_not_recorded(sums, servable, recorded):
    served = sums.served(servable, [1])
    served.rows.scores = served.scores
    assert not any(record(recorded, served).rows.values())


def test_parts_are_written_when_there_are_enough_rows_or_time_is_over(sums, tmp_path, servable, recorded):
    for limits in ({"part_rows": 3, "seconds": 3600}, {"part_rows": 1000, "seconds": 0.05}):
        recorder = Recorder(recorded, Limits(**limits))
        recorder.start()
        recorder.observe(sums.served(servable, [1, 2, 3]))
        while not recorder.rows["written"]:
            time.sleep(0.005)
        recorder.close(30)
    (examples,) = opened(tmp_path)
    assert [file.path for file in examples.splits["serving"].files] == [
        "serving/part-00000.parquet",
        "serving/part-00001.parquet",
    ]


def test_another_folder_begins_after_a_while(sums, tmp_path, servable):
    writer = Recorded(str(tmp_path / "log"), "sums", folder_seconds=0)
    record(writer, sums.served(servable, [1]))
    record(writer, sums.served(servable, [2]))
    assert sorted(row["x"] for examples in opened(tmp_path) for row in rows(examples)) == [1, 2]
    assert len(opened(tmp_path)) == 2


def test_versions_with_other_columns_have_folders_of_their_own(sums, tmp_path, servable, recorded):
    other = sums.load(tmp_path / "models", 8)
    other.features = (*other.features, Feature("weight", "number", "FP32", True))
    same = sums.load(tmp_path / "models", 9)
    third = sums.served(servable, [1])._replace(servable=other, rows=one_row(x=1, colour="red", weight=5))
    for _ in range(2):
        record(recorded, sums.served(servable, [1]), third, sums.served(same, [1]))
    found = {tuple(examples.columns)[2]: examples for examples in opened(tmp_path)}
    assert set(found) == {"weight", "predicted_at"}
    assert [row["model_version"] for row in rows(found["predicted_at"])] == ["7", "9", "7", "9"]
    assert [row["model_version"] for row in rows(found["weight"])] == ["8", "8"]


class Broken:
    """A store that fails as often as it is told, then works."""

    def __init__(self, failures):
        self.failures = failures
        self.parts = []

    def encode(self, entries):
        rows = sum(entry.served.rows.count for entry in entries)
        return [Part({}, b"", rows)], 0

    def write(self, part):
        if self.failures:
            self.failures -= 1
            raise StorageError("the store cannot be reached; check the network")
        self.parts.append(part)


def test_what_could_not_be_written_is_written_later(sums, servable, caplog):
    store = Broken(2)
    recorder = Recorder(store, Limits(part_rows=1, seconds=0.01))
    recorder.start()
    recorder.observe(sums.served(servable, [1, 2]))
    while not recorder.rows["written"]:
        time.sleep(0.005)
    recorder.close(30)
    assert (recorder.rows["written"], recorder.rows["dropped"], recorder.failures) == (2, 0, 2)
    assert "the store cannot be reached; check the network; parts that wait: 1" in caplog.text


def test_a_store_that_stays_away_costs_bounded_memory_and_rows_that_are_counted(sums, servable, caplog):
    recorder = Recorder(Broken(1 << 30), Limits(part_rows=1, seconds=3600))
    recorder.start()
    for sent in range(1, 31):
        recorder.observe(sums.served(servable, [1]))
        while recorder.failures < sent:
            time.sleep(0.001)
    recorder.close(30)
    assert len(recorder._parts) == HELD_PARTS
    assert recorder.rows == {"written": 0, "dropped": 30 - HELD_PARTS, "failed": 0}
    assert f"{HELD_PARTS} recorded rows were lost" in caplog.text


def test_requests_never_wait_for_a_store_that_hangs(sums, servable):
    hanging, writing = threading.Event(), threading.Event()
    store = Broken(0)
    store.write = lambda part: (writing.set(), hanging.wait(60))
    recorder = Recorder(store, Limits(part_rows=1, held_rows=5, seconds=3600))
    recorder.start()
    recorder.observe(sums.served(servable, [1]))
    writing.wait(30)
    for _ in range(10):  # none of these returns late, for the thread is in the store until the end of the test
        recorder.observe(sums.served(servable, [1]))
    assert recorder.rows["dropped"] == 5
    recorder.close(0.01)
    hanging.set()


def test_long_texts_are_bounded_too(sums, servable):
    recorder = Recorder(Broken(0), Limits(held_bytes=10_000))
    for _ in range(5):
        recorder.observe(sums.served(servable, [1], ["x" * 4000]))
    assert recorder.rows["dropped"] == 3


def test_a_full_disk_is_told_and_what_was_written_stays_readable(sums, tmp_path, servable, recorded, caplog):
    record(recorded, sums.served(servable, [1]))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # no file of more bytes: as on a full disk
    try:
        recorder = record(recorded, sums.served(servable, [2]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (recorder.rows["written"], recorder.failures) == (0, 1)
    assert "requests cannot be recorded: cannot write" in caplog.text
    assert [row["x"] for row in rows(opened(tmp_path)[0])] == [1]
    record(recorded, sums.served(servable, [3]))
    assert [row["x"] for row in rows(opened(tmp_path)[0])] == [1, 3]


def test_an_error_that_nobody_thought_of_does_not_end_the_recording(sums, servable, caplog):
    store = Broken(0)
    encode, calls = store.encode, []
    store.encode = lambda entries: calls.append(1) or (1 / 0 if len(calls) == 1 else encode(entries))
    recorder = Recorder(store, Limits(part_rows=1))
    recorder.start()
    recorder.observe(sums.served(servable, [1]))
    while not recorder.failures:
        time.sleep(0.005)
    recorder.observe(sums.served(servable, [2]))
    recorder.close(30)
    assert recorder.rows["written"] == 1
    assert "requests could not be recorded" in caplog.text


def test_recorded_scores_do_not_hold_the_batch_in_memory(sums, servable):
    recorder = Recorder(Broken(0))
    batch = np.zeros((1000, 1), np.float32)
    recorder.observe(sums.served(servable, [1])._replace(scores=batch[:1]))
    assert recorder._entries[0].served.scores.base is None
    assert isinstance(recorder._entries[0], recording.Entry)
