"""The prediction table: what is written under a key is found under it, and nothing else is."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfp_hybrid.data import prediction_table, prediction_table_writer
from kfp_hybrid.data.prediction_table import MISS, PredictionTable, key_of
from kfp_hybrid.data.prediction_table_writer import TableWriter
from kfp_hybrid.step import StepError

TYPES = {"int64": pa.int64(), "string": pa.string()}
FACTS = {"task": "binary", "label": "late", "model_version": "7"}
KEYS = {"carrier": "string", "flight": "int64"}


def write(path, keys, rows, batch=3, classes=("no", "yes"), **options):
    """A table of keys (tuples): the score of row i is i / 7, and it is "yes" when i is odd."""
    writer = TableWriter(path, keys, len(rows), classes, **options)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        columns = {n: pa.array([r[i] for r in part], TYPES[t]) for i, (n, t) in enumerate(keys.items())}
        numbers = np.arange(start, start + len(part))
        writer.add(pa.table(columns), (numbers / 7).astype(np.float32)[:, np.newaxis], numbers % 2)
    assert writer.finish(**FACTS) <= len(rows)
    return PredictionTable.open(path)


def find(table, keys, rows):
    return table.find({name: [row[i] for row in rows] for i, name in enumerate(keys)}).tolist()


def scores_of(table, keys, rows):
    return table.scores[find(table, keys, rows), 0].tolist()


TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("\x1f\\"), max_size=6)
ROWS = st.lists(st.tuples(TEXTS, st.integers(-(2**63), 2**63 - 1), TEXTS), unique=True, max_size=40)


@given(rows=ROWS, others=ROWS)
def test_each_key_is_found_with_its_prediction_and_no_other_key_is(rows, others, tmp_path_factory):
    keys = {"a": "string", "n": "int64", "b": "string"}
    table = write(tmp_path_factory.mktemp("t") / "table", keys, rows)
    assert table.rows == len(rows)
    found = find(table, keys, rows)
    assert table.scores[found, 0].tolist() == [np.float32(i / 7) for i in range(len(rows))]
    assert table.decisions(np.array(found, np.int64)) == [("no", "yes")[i % 2] for i in range(len(rows))]
    strangers = [row for row in others if row not in rows]
    assert find(table, keys, strangers) == [MISS] * len(strangers)


@given(rows=ROWS.filter(bool))
def test_the_last_of_equal_keys_counts_when_that_is_wanted(rows, tmp_path_factory):
    keys = {"a": "string", "n": "int64", "b": "string"}
    twice = [*rows, *reversed(rows)]
    table = write(tmp_path_factory.mktemp("t") / "table", keys, twice, duplicates="last")
    last = {row: np.float32(i / 7) for i, row in enumerate(twice)}
    assert (table.rows, scores_of(table, keys, rows)) == (len(rows), [last[row] for row in rows])


def test_a_key_that_comes_twice_is_an_error_that_names_it(tmp_path):
    with pytest.raises(StepError, match=r"the key 'UA, 1545' \(carrier, flight\) comes twice"):
        write(tmp_path / "table", KEYS, [("UA", 1545), ("B6", 1), ("UA", 1545)])


def test_keys_with_the_same_hash_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_table, "hash_of", lambda key: bytes([0, len(key) % 2] * 4))
    rows = [("x" * (i % 3), i) for i in range(20)]
    table = write(tmp_path / "table", KEYS, rows)
    assert scores_of(table, KEYS, rows) == [np.float32(i / 7) for i in range(20)]
    assert find(table, KEYS, [("y", 3), ("", 99)]) == [MISS, MISS]


def test_buckets_do_not_change_a_byte(tmp_path, monkeypatch):
    rows = [(f"é{i}", i) for i in range(1000)]
    write(tmp_path / "one", KEYS, rows, batch=100)
    monkeypatch.setattr(prediction_table_writer, "BUCKET_ROWS", 64)
    write(tmp_path / "many", KEYS, rows, batch=70)
    one, many = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "many"))
    assert one == many
    assert sorted(one) == ["hashes.bin", "keys.bin", "manifest.json", "offsets.bin", "predicted.bin", "scores.bin"]


@pytest.mark.parametrize("value", [None, 1.5, True, float("nan"), "7", [7]])
def test_a_value_that_can_be_no_key_is_a_miss(value, tmp_path):
    table = write(tmp_path / "table", {"id": "int64"}, [(7,), (1,)])
    assert find(table, {"id": "int64"}, [(value,), (7,), (7.0,), (np.int32(7),)])[0] == MISS
    assert scores_of(table, {"id": "int64"}, [(7,), (7.0,), (np.int32(7),)]) == [0, 0, 0]


def test_an_integer_is_no_text(tmp_path):
    table = write(tmp_path / "table", {"id": "string"}, [("7",)])
    assert find(table, {"id": "string"}, [(7,), ("7",)]) == [MISS, 0]
    assert key_of({"id": "string"}, [None]) is None


def test_a_table_says_which_model_predicted(tmp_path):
    table = write(tmp_path / "table", KEYS, [("UA", 1)])
    assert (table.model_version, table.manifest["label"], table.classes) == ("7", "late", ("no", "yes"))
    assert (table.keys, table.outputs) == (KEYS, 1)


def test_without_classes_there_are_only_scores(tmp_path):
    table = write(tmp_path / "table", KEYS, [("UA", 1)], classes=())
    assert table.predicted is None
    assert table.decisions(np.array([0])) == []
    assert not (tmp_path / "table/predicted.bin").exists()


def test_an_empty_table_finds_nothing(tmp_path):
    assert find(write(tmp_path / "table", KEYS, []), KEYS, [("UA", 1), ("", 0)]) == [MISS, MISS]


def test_a_missing_key_column_is_named(tmp_path):
    with pytest.raises(StepError, match="wants the key column 'flight'"):
        write(tmp_path / "table", KEYS, [("UA", 1)]).find({"carrier": ["UA"]})


@pytest.mark.parametrize("name", ["hashes.bin", "offsets.bin", "keys.bin", "scores.bin", "predicted.bin"])
def test_a_damaged_file_is_found(name, tmp_path):
    write(tmp_path / "table", KEYS, [("UA", 1), ("B6", 2)])
    file = tmp_path / "table" / name
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(StepError, match=f"{name} is damaged"):
        PredictionTable.open(tmp_path / "table")
    assert PredictionTable.open(tmp_path / "table", verify=False).rows == 2
    file.write_bytes(content[:-1])
    with pytest.raises(StepError, match=f"{name} is damaged"):
        PredictionTable.open(tmp_path / "table", verify=False)
    file.unlink()
    with pytest.raises(StepError, match=f"cannot read .*{name}"):
        PredictionTable.open(tmp_path / "table")


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(StepError, match="is not a prediction table: cannot read manifest"):
        PredictionTable.open(tmp_path)
    write(tmp_path / "table", KEYS, [("UA", 1)])
    manifest = json.loads((tmp_path / "table/manifest.json").read_text())
    for change, message in (
        ({"format": "other"}, "the format in manifest.json is not"),
        ({"version": 2}, "has version 2, this code reads version 1"),
        ({"files": {"../passwd": {}}}, "does not name the files"),
    ):
        (tmp_path / "table/manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(StepError, match=message):
            PredictionTable.open(tmp_path / "table")


@pytest.mark.parametrize(
    ("keys", "message"), [({}, "needs key columns"), ({"x": "double"}, "'x' has the type double; a key is whole")]
)
def test_columns_that_can_be_no_key_are_refused(keys, message, tmp_path):
    with pytest.raises(StepError, match=message):
        TableWriter(tmp_path / "table", keys, 1)


def test_a_row_without_a_key_is_refused(tmp_path):
    with pytest.raises(StepError, match="no value in the key column 'flight'"):
        write(tmp_path / "table", KEYS, [("UA", None)])


def test_reading_needs_no_pyarrow():
    code = "import sys, kfp_hybrid.data.prediction_table; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
