import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_the_fingerprint_is_the_sha256_of_the_canonical_columns(tmp_path):
    with ExamplesWriter(tmp_path / "examples", {"ü": "int64", "b": "string"}) as writer:
        writer.write("train", pa.RecordBatch.from_pydict({"ü": [1], "b": ["x"]}))
    canonical = '[{"name":"ü","type":"int64"},{"name":"b","type":"string"}]'
    examples = Examples.open(tmp_path / "examples")
    assert examples.schema_fingerprint == hashlib.sha256(canonical.encode()).hexdigest()
    assert (
        json.loads((examples.path / "manifest.json").read_text())["schema_fingerprint"] == examples.schema_fingerprint
    )


def test_many_small_batches_become_few_row_groups_and_large_splits_several_files(tmp_path):
    batches = [rows(start, 10_000) for start in range(0, 1_200_000, 10_000)]
    examples = write(tmp_path / "examples", train=batches)
    assert [file.rows for file in examples.splits["train"].files] == [8 * 131_072, 1_200_000 - 8 * 131_072]
    for file in examples.files("train"):
        metadata = pq.ParquetFile(file).metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        assert set(sizes[:-1]) <= {131_072} and sizes[-1] <= 131_072
    read = [batch.column(0).to_pylist() for batch in examples.batches("train", ["distance"], 50_000)]
    assert [value for batch in read for value in batch] == list(range(1_200_000))
    assert max(map(len, read)) <= 50_000
    examples.verify()


def test_long_texts_do_not_pile_up_in_memory(tmp_path):
    batch = pa.RecordBatch.from_pydict({"text": ["x" * 1_000_000] * 10})
    with ExamplesWriter(tmp_path / "examples", {"text": "string"}) as writer:
        for _ in range(20):
            writer.write("train", batch)
    (file,) = Examples.open(tmp_path / "examples").files("train")
    metadata = pq.ParquetFile(file).metadata
    assert metadata.num_rows == 200 and metadata.num_row_groups == 3


def test_the_quarantine_holds_any_number_of_rows(tmp_path):
    with ExamplesWriter(tmp_path / "examples", COLUMNS) as writer:
        for line in range(20_000):
            writer.quarantine("a.csv", line, "why", f"row {line}")
    quarantined = pa.Table.from_batches(Examples.open(tmp_path / "examples").quarantined())
    assert quarantined["line"].to_pylist() == list(range(20_000))


def test_another_schema_is_a_mistake_of_the_program(tmp_path):
    with pytest.raises(ValueError, match="schema"), ExamplesWriter(tmp_path / "examples", COLUMNS) as writer:
        writer.write("train", pa.RecordBatch.from_pydict({"distance": [1]}))
    assert list(tmp_path.iterdir()) == []


def test_unknown_splits_and_columns_name_the_known_ones(tmp_path):
    examples = write(tmp_path / "examples", train=[rows(0, 1)])
    with pytest.raises(StepError, match="has no split 'test'; it has: train"):
        examples.rows("test")
    with pytest.raises(StepError, match="has no column 'delya'; it has: distance, delay, carrier, empty"):
        list(examples.batches("train", ["delya"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: "{", "not valid JSON"),
        (lambda manifest: "[]", "does not describe an examples artifact"),
        (lambda manifest: manifest | {"format": "other"}, "does not describe an examples artifact"),
        (lambda manifest: manifest | {"version": 2}, "has version 2, this code reads version 1"),
        (lambda manifest: {key: value for key, value in manifest.items() if key != "splits"}, "incomplete"),
        (lambda manifest: json.dumps(manifest).replace("train/part", "../train/part"), "names a file outside"),
        (lambda manifest: json.dumps(manifest).replace("train/part", "/train/part"), "names a file outside"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(tmp_path, change, message):
    examples = write(tmp_path / "examples", train=[rows(0, 1)])
    manifest = examples.path / "manifest.json"
    changed = change(json.loads(manifest.read_text()))
    manifest.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(StepError, match=message):
        Examples.open(examples.path)


def test_missing_and_damaged_files_are_reported(tmp_path):
    examples = write(tmp_path / "examples", train=[rows(0, 1000)])
    (file,) = examples.files("train")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(StepError, match=r"cannot read .*train/part-00000\.parquet"):
        list(examples.batches("train"))
    file.unlink()
    for read in (examples.verify, lambda: list(examples.batches("train"))):
        with pytest.raises(StepError, match=r"cannot read .*train/part-00000\.parquet"):
            read()


def test_examples_in_an_existing_empty_directory(tmp_path):
    (tmp_path / "examples").mkdir()
    assert write(tmp_path / "examples", train=[rows(0, 2)]).rows("train") == 2


ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(),
        st.none() | st.text(max_size=8),
        st.none(),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, max_size=4), st.integers(1, 30))
def test_any_rows_come_back(tmp_path_factory, batches, batch_size):
    path = tmp_path_factory.mktemp("law") / "examples"
    types = [pa.int64(), pa.float64(), pa.string(), pa.null()]
    columns = [list(zip(*batch, strict=True)) or [(), (), (), ()] for batch in batches]
    written = [
        pa.RecordBatch.from_arrays(
            [pa.array(values, type_) for values, type_ in zip(batch, types, strict=True)], list(COLUMNS)
        )
        for batch in columns
    ]
    examples = write(path, train=written)
    expected = [row for batch in written for row in batch.to_pylist()]
    read = list(examples.batches("train", batch_size=batch_size))
    assert repr([row for batch in read for row in batch.to_pylist()]) == repr(expected)  # NaN is not equal to itself
    assert all(0 < batch.num_rows <= batch_size for batch in read)
    examples.verify()
