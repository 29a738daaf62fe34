"""Requests are recorded in object stores, and nobody waits for a store that fails."""

import numpy as np
from faulty_proxy import SLOW_DOWN, times

from kfp_hybrid import storage
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.serving.recorded import Recorded
from kfp_hybrid.serving.recording import Limits, Recorder
from kfp_hybrid.serving.routing import Served
from kfp_hybrid.serving.rows import Rows
from kfp_hybrid.serving.servable import Feature


class Model:
    """As much of a version as recording looks at."""

    version, answer, outputs = "7", None, 1
    features = (Feature("x", "number", "FP32", True),)


def served(*values):
    rows = Rows(["x"], [(value,) for value in values])
    return Served(Model, rows, np.zeros((rows.count, 1), np.float32), 0.1, "v1", "")


def record(place, *requests):
    recorder = Recorder(Recorded(place, "m"), Limits(seconds=3600))
    recorder.start()
    for request in requests:
        recorder.observe(request)
    recorder.close(60)
    return recorder


def downloaded(place, folder):
    """The one artifact that was recorded, checked."""
    storage.download(place + "/", folder)
    (artifact,) = folder.iterdir()
    examples = Examples.open(artifact)
    examples.verify()
    return [row["x"] for batch in examples.batches("serving") for row in batch.to_pylist()]


def test_records_in_any_store_are_examples(place, tmp_path):
    assert record(place, served(1, 2), served(3)).rows["written"] == 3
    assert downloaded(place, tmp_path / "here") == [1, 2, 3]


def test_a_store_that_fails_for_a_while_gets_everything_in_the_end(s3, faults, tmp_path):
    faults.fault = times(3, SLOW_DOWN, lambda request: request.method == "PUT")
    assert record(s3, served(1, 2)).rows["written"] == 2
    assert downloaded(s3, tmp_path / "here") == [1, 2]


def test_a_store_that_refuses_is_told_and_counted(s3, monkeypatch, caplog):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    recorder = record(s3, served(1))
    assert (recorder.rows["written"], recorder.failures) == (0, 1)
    assert "requests cannot be recorded" in caplog.text
    assert "another-secret" not in caplog.text
