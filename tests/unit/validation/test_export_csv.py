"""export_csv: examples as CSV files."""

import csv
import json
import math
import re

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfp_hybrid.components.data_processing.export_csv.export import Options, write_csv
from kfp_hybrid.data.examples import ExamplesWriter
from kfp_hybrid.step import StepError

COLUMNS = {"late": "int64", "distance": "double", "carrier": "string", "empty": "null"}
URI = "gs://bucket/run/table"


@pytest.fixture
def examples(tmp_path):
    """Writes examples: split -> rows."""

    def write(rows, columns=COLUMNS):
        with ExamplesWriter(tmp_path / "examples", columns, splits=rows) as writer:
            for split, values in rows.items():
                schema = pa.schema([(name, {"int64": pa.int64(), "double": pa.float64(), "string": pa.string(),
                                            "null": pa.null()}[kind]) for name, kind in columns.items()])  # fmt: skip
                for start in range(0, len(values), 7):
                    part = [dict(zip(columns, row, strict=True)) for row in values[start : start + 7]]
                    writer.write(split, pa.RecordBatch.from_pylist(part, schema))
        return str(tmp_path / "examples")

    return write


@pytest.fixture
def exported(tmp_path):
    """Exports; returns what the step puts out and the rows of each file."""

    def export(examples, **options):
        done = write_csv(examples, str(tmp_path / "table"), URI, Options(**options))
        files = sorted((tmp_path / "table").iterdir())
        assert done.uris == [f"{URI}/{file.name}" for file in files]
        return done, [read(file) for file in files]

    return export


def read(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_file_begins_with_the_columns_and_missing_values_are_empty(examples, exported):
    rows = [(1, 2.5, "UA", None), (None, None, None, None), (0, math.nan, "", None), (3, math.inf, 'a "b",\nc', None)]
    done, (written,) = exported(examples({"train": rows}))
    assert written == [
        {"late": "1", "distance": "2.5", "carrier": "UA", "empty": ""},
        {"late": "", "distance": "", "carrier": "", "empty": ""},
        {"late": "0", "distance": "", "carrier": "", "empty": ""},
        {"late": "3", "distance": "", "carrier": 'a "b",\nc', "empty": ""},
    ]
    assert done.rows == 4


def test_files_have_at_most_so_many_rows(examples, exported):
    path = examples({"train": [(n, 0.0, "a", None) for n in range(20)], "eval": [(20, 0.0, "a", None)]})
    done, files = exported(path, rows_per_file=6)
    assert [len(file) for file in files] == [6, 6, 6, 3]
    assert [int(row["late"]) for file in files for row in file] == list(range(21))
    assert json.loads(done.source) == done.uris


def test_columns_and_splits_can_be_chosen(examples, exported):
    path = examples({"train": [(1, 1.0, "a", None)], "eval": [(2, 2.0, "b", None)]})
    _, (written,) = exported(path, columns=["carrier", "late"], splits=["eval"])
    assert [list(row.items()) for row in written] == [[("carrier", "b"), ("late", "2")]]


def test_the_split_column_deals_its_values_in_turn(examples, exported):
    path = examples({"train": [(n, 0.0, "a", None) for n in range(10)], "eval": [(n, 0.0, "a", None) for n in range(9)],
                     "other": [(0, 0.0, "a", None)]})  # fmt: skip
    values = {"train": ["TRAIN"], "eval": ["VALIDATE", "TEST"]}
    _, (written,) = exported(path, columns=["late"], split_column="ml_use", split_values=values)
    dealt = [row["ml_use"] for row in written]
    assert dealt == ["TRAIN"] * 10 + ["VALIDATE", "TEST"] * 4 + ["VALIDATE"]


def test_without_values_the_split_column_has_the_names_of_the_splits(examples, exported):
    path = examples({"train": [(1, 0.0, "a", None)], "eval": [(2, 0.0, "a", None)]})
    _, (written,) = exported(path, split_column="split")
    assert [row["split"] for row in written] == ["train", "eval"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["tail"]}, "has no column 'tail'"),
        ({"splits": ["test"]}, "has no split 'test'"),
        ({"split_column": "late"}, "split_column 'late' is the name of a column; give another name"),
        ({"split_column": "s", "split_values": {"train": []}}, "split_values has no value for split 'train'"),
        ({"rows_per_file": 0}, "rows_per_file is 0; give 1 or more"),
        ({"splits": ["empty"]}, "the splits empty of .* have no rows; there is nothing to export"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(examples, exported, tmp_path, options, message):
    path = examples({"train": [(1, 0.0, "a", None)], "empty": []})
    with pytest.raises(StepError, match=message):
        exported(path, **options)
    assert [file.name for file in tmp_path.iterdir()] == ["examples"]


def test_a_damaged_file_leaves_nothing_behind(examples, exported, tmp_path):
    path = examples({"train": [(n, 0.0, "a", None) for n in range(20)]})
    (file,) = (tmp_path / "examples" / "train").iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(StepError, match=re.escape(f"cannot read {file}")):
        exported(path)
    assert [file.name for file in tmp_path.iterdir()] == ["examples"]


def test_a_folder_that_cannot_be_written_is_told(examples, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StepError, match="cannot write to"):
        write_csv(examples({"train": [(1, 0.0, "a", None)]}), str(tmp_path / "file" / "table"), URI, Options())


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.none() | st.integers(-(2**63), 2**63 - 1), st.none() | st.floats(), text), min_size=1))
def test_what_is_read_back_is_what_was_written(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("law")
    columns = {"number": "int64", "value": "double", "text": "string"}
    with ExamplesWriter(folder / "examples", columns) as writer:
        writer.write("train", pa.RecordBatch.from_pylist([dict(zip(columns, row, strict=True)) for row in rows],
                     pa.schema([("number", pa.int64()), ("value", pa.float64()), ("text", pa.string())])))  # fmt: skip
    write_csv(str(folder / "examples"), str(folder / "table"), URI, Options(rows_per_file=3))
    written = [row for file in sorted((folder / "table").iterdir()) for row in read(file)]
    assert len(written) == len(rows)
    for (number, value, word), row in zip(rows, written, strict=True):
        assert row["number"] == ("" if number is None else str(number))
        assert row["text"] == word
        if value is None or not math.isfinite(value):
            assert row["value"] == ""
        else:
            assert float(row["value"]) == value
