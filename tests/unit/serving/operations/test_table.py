"""Static inference: a request is answered from the table of predictions, or by the model."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from kfp_hybrid.data.prediction_table_writer import TableWriter
from kfp_hybrid.serving.table import TableAnswers
from kfp_hybrid.step import StepError


@pytest.fixture
def folder(tmp_path):
    writer = TableWriter(tmp_path / "table", {"user": "string", "shop": "int64"}, 3, ("no", "yes"))
    keys = pa.table({"user": ["ann", "ann", "bob"], "shop": [1, 2, 1]})
    writer.add(keys, np.float32([[0.25], [0.5], [0.75]]), np.array([0, 1, 1]))
    writer.finish(task="binary", label="late", model_version="7", model_digest="d")
    return tmp_path / "table"


def test_a_request_of_known_keys_is_answered_with_their_scores(folder):
    answers = TableAnswers.open(folder)
    assert answers.lookup({"shop": [1, 2], "user": ["bob", "ann"], "distance": [3, 4]}).tolist() == [[0.75], [0.5]]
    assert (answers.hits, answers.misses) == (2, 0)


def test_a_request_with_one_unknown_key_is_left_to_the_model_as_a_whole(folder):
    answers = TableAnswers.open(folder)
    assert answers.lookup({"user": ["ann", "carl"], "shop": [1, 1]}) is None
    assert (answers.hits, answers.misses) == (0, 2)


def test_a_request_without_the_keys_is_no_miss(folder):
    answers = TableAnswers.open(folder)
    assert answers.lookup({"user": ["ann"], "distance": [3]}) is None
    assert (answers.hits, answers.misses) == (0, 0)


def test_the_folder_of_predictions_is_as_good_as_the_table_in_it(folder):
    assert TableAnswers.open(folder.parent).table.rows == 3


def test_only_the_version_that_wrote_the_table_is_answered_from_it_unless_any_may(folder):
    seventh, eighth = (SimpleNamespace(version=version, outputs=1) for version in "78")
    assert TableAnswers.open(folder).serves(seventh)
    assert not TableAnswers.open(folder).serves(eighth)
    assert TableAnswers.open(folder, any_version=True).serves(eighth)


def test_a_model_with_another_number_of_scores_is_never_answered_from_the_table(folder):
    assert not TableAnswers.open(folder, any_version=True).serves(SimpleNamespace(version="7", outputs=3))


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(StepError, match="is not a prediction table"):
        TableAnswers.open(tmp_path)
