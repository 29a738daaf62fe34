import json

import pyarrow as pa
import pytest
from kfp_hybrid.data.examples import Examples, ExamplesWriter
from kfp_hybrid.step import StepError

COLUMNS = {"distance": "int64", "delay": "double", "carrier": "string", "empty": "null"}


def rows(start, count):
    return pa.RecordBatch.from_arrays(
        [
            pa.array(range(start, start + count), pa.int64()),
            pa.array([None if i % 3 == 0 else i / 2 for i in range(count)], pa.float64()),
            pa.array([None if i % 5 == 0 else f"ü{i}" for i in range(count)], pa.string()),
            pa.nulls(count),
        ],
        names=list(COLUMNS),
    )


def write(path, **splits):
    with ExamplesWriter(path, COLUMNS, splits=splits, sources=["/data/flüge.csv"]) as writer:
        for split, batches in splits.items():
            for batch in batches:
                writer.write(split, batch)
        writer.quarantine("/data/flüge.csv", 7, "expected 4 fields, found 3", "1,2,3")
    return Examples.open(path)


def test_rows_come_back_as_they_were_written(tmp_path):
    examples = write(tmp_path / "exämples", train=[rows(0, 10), rows(10, 90)], eval=[])
    assert list(examples.splits) == ["train", "eval"]
    assert examples.rows("train") == 100 and examples.rows("eval") == 0
    assert list(examples.batches("eval")) == []
    read = pa.Table.from_batches(examples.batches("train", batch_size=7), examples.schema)
    assert read.equals(pa.Table.from_batches([rows(0, 10), rows(10, 90)]))


def test_quarantined_rows_come_back(tmp_path):
    examples = write(tmp_path / "examples", train=[rows(0, 1)])
    assert pa.Table.from_batches(examples.quarantined()).to_pylist() == [
        {"source": "/data/flüge.csv", "line": 7, "reason": "expected 4 fields, found 3", "row": "1,2,3"}
    ]
    assert examples.quarantine.rows == 1


def test_chosen_columns_come_in_the_chosen_order(tmp_path):
    examples = write(tmp_path / "examples", train=[rows(0, 3)])
    (batch,) = examples.batches("train", columns=["carrier", "distance"])
    assert batch.schema.names == ["carrier", "distance"]


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), ExamplesWriter(tmp_path / "examples", COLUMNS) as writer:
        writer.write("train", rows(0, 200_000))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_directory_without_manifest_is_refused(tmp_path):
    with pytest.raises(StepError, match="not an examples artifact"):
        Examples.open(tmp_path)


def test_verify_finds_a_changed_byte(tmp_path):
    examples = write(tmp_path / "examples", train=[rows(0, 10)])
    examples.verify()
    (file,) = examples.files("train")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(StepError, match="damaged"):
        examples.verify()


def test_the_manifest_counts_rows_and_bytes(tmp_path):
    examples = write(tmp_path / "examples", train=[rows(0, 10)])
    manifest = json.loads((examples.path / "manifest.json").read_text())
    (file,) = examples.files("train")
    assert manifest["splits"]["train"]["rows"] == 10
    assert manifest["splits"]["train"]["bytes"] == file.stat().st_size
    assert manifest["columns"][0] == {"name": "distance", "type": "int64"}
