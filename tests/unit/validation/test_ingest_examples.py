import json
import logging
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfp_hybrid.components.data_processing.ingest_examples import ingest
from kfp_hybrid.components.data_processing.ingest_examples.ingest import Request, ingest_examples
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.step import StepError


def flights(rows, seed=0):
    random = np.random.default_rng(seed)
    lines = ["id,month,carrier,delay"]
    for i in range(rows):
        delay = "" if i % 7 == 0 else f"{random.normal():.2f}"
        lines.append(f"{i},{i % 12 + 1},{random.choice(['UA', 'AA', 'DL'])},{delay}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "flüge.csv"
    path.write_text(flights(3000))
    return path


def run(tmp_path, source, **parameters):
    path = tmp_path / "exämples"
    metadata = ingest_examples(str(path), Request(source=str(source), **parameters))
    return Examples.open(path), metadata


def ids(examples, split):
    return [row for batch in examples.batches(split, ["id"]) for row in batch.column(0).to_pylist()]


# --- splits


def test_every_row_is_in_one_split_and_shares_are_met(tmp_path, source):
    examples, metadata = run(tmp_path, source, split_ratios={"train": 0.7, "eval": 0.2, "test": 0.1})
    assert sorted(id_ for split in examples.splits for id_ in ids(examples, split)) == list(range(3000))
    for split, share in {"train": 0.7, "eval": 0.2, "test": 0.1}.items():
        assert abs(examples.rows(split) / 3000 - share) < 0.03
        assert metadata[f"rows_{split}"] == examples.rows(split)
    assert metadata["rows"] == 3000
    assert metadata["quarantined_rows"] == metadata["excluded_rows"] == 0
    assert metadata["schema_fingerprint"] == examples.schema_fingerprint
    assert examples.columns == {"id": "int64", "month": "int64", "carrier": "string", "delay": "double"}
    assert examples.sources == (str(source),)
    examples.verify()


def test_the_order_in_which_ratios_arrive_does_not_matter(tmp_path, source):
    one, _ = run(tmp_path / "1", source, split_ratios={"train": 0.8, "eval": 0.2})
    other, _ = run(tmp_path / "2", source, split_ratios={"eval": 0.2, "train": 0.8})
    assert ids(one, "eval") == ids(other, "eval")


def test_rows_with_equal_keys_stay_together(tmp_path, source):
    examples, _ = run(tmp_path, source, key_columns=["month", "carrier"], split_ratios={"a": 0.5, "b": 0.5})
    keys = {
        split: {
            tuple(row.values()) for batch in examples.batches(split, ["month", "carrier"]) for row in batch.to_pylist()
        }
        for split in ("a", "b")
    }
    assert keys["a"] and keys["b"] and not keys["a"] & keys["b"]


def test_the_split_of_these_rows_never_changes(tmp_path):
    """Written down from one run: another machine or another version must give the same."""
    (tmp_path / "a.csv").write_text("k,v\n" + "".join(f"key{i},{i / 4}\n" for i in range(16)))
    by_row, _ = run(tmp_path / "1", tmp_path / "a.csv", split_ratios={"a": 0.5, "b": 0.5})
    by_key, _ = run(tmp_path / "2", tmp_path / "a.csv", split_ratios={"a": 0.5, "b": 0.5}, key_columns=["k"])
    assert [int(row["v"] * 4) for batch in by_row.batches("a") for row in batch.to_pylist()] == [1, 2, 5, 7, 11, 14]
    assert [int(row["v"] * 4) for batch in by_key.batches("a") for row in batch.to_pylist()] == [
        *(0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 13, 14)
    ]


def test_csv_and_parquet_split_integers_and_texts_alike(tmp_path):
    (tmp_path / "a.csv").write_text("id,name\n" + "".join(f"{i},name {i}\n" for i in range(500)))
    table = pa.table({"id": pa.array(range(500), pa.float64()), "name": [f"name {i}" for i in range(500)]})
    pq.write_table(table, tmp_path / "a.parquet")
    one, _ = run(tmp_path / "1", tmp_path / "a.csv")
    other, _ = run(tmp_path / "2", tmp_path / "a.parquet")
    assert ids(one, "eval") == ids(other, "eval")


def test_a_split_by_values_takes_the_runner_s_floats_for_integers(tmp_path, source):
    examples, metadata = run(tmp_path, source, split_column="month", split_values={"train": [1.0, "2"], "eval": [3]})
    assert ids(examples, "train") == [i for i in range(3000) if i % 12 in (0, 1)]
    assert ids(examples, "eval") == [i for i in range(3000) if i % 12 == 2]
    assert metadata["excluded_rows"] == examples.excluded == 3000 - 750
    manifest = json.loads((examples.path / "manifest.json").read_text())
    assert manifest["excluded"] == {"rows": 2250}


def test_a_split_by_texts_and_by_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("id,when,x\n1,2013,0.5\n2,2013,1\n3,next,\n4,1,2.0\n")
    by_text, _ = run(
        tmp_path / "1", tmp_path / "a.csv", split_column="when", split_values={"a": [2013.0], "b": ["next", 1]}
    )
    assert ids(by_text, "a") == [1, 2] and ids(by_text, "b") == [3, 4]
    by_number, _ = run(tmp_path / "2", tmp_path / "a.csv", split_column="x", split_values={"a": [1, 2], "b": ["0.5"]})
    assert ids(by_number, "a") == [2, 4] and ids(by_number, "b") == [1] and by_number.excluded == 1


def test_spans_filter_rows_and_are_noted(tmp_path, source):
    examples, metadata = run(tmp_path, source, span_column="month", spans=[12.0])
    assert sorted(ids(examples, "train") + ids(examples, "eval")) == [i for i in range(3000) if i % 12 == 11]
    assert metadata["excluded_rows"] == 2750
    assert examples.span == {"column": "month", "values": [12.0]}


def test_rows_out_of_the_span_do_not_change_the_split_of_the_others(tmp_path, source):
    everything, _ = run(tmp_path / "1", source)
    march, _ = run(tmp_path / "2", source, span_column="month", spans=[3])
    assert ids(march, "eval") == [i for i in ids(everything, "eval") if i % 12 == 2]


# --- bad rows


def test_bad_rows_are_set_aside_with_file_line_and_reason(tmp_path, source):
    lines = source.read_text().splitlines()
    lines[100] = "99,3,UA"
    source.write_text("\n".join(lines))
    examples, metadata = run(tmp_path, source)
    assert metadata["rows"] == 2999 and metadata["quarantined_rows"] == 1
    (batch,) = examples.quarantined()
    assert batch.to_pylist() == [
        {"source": str(source), "line": 101, "reason": "expected 4 fields, found 3", "row": "99,3,UA"}
    ]


def test_too_many_bad_rows_fail_with_count_and_samples(tmp_path, source):
    lines = source.read_text().splitlines()
    for line in range(1, 1000, 10):
        lines[line] += ",one,two\ttoo many"
    source.write_text("\n".join(lines))
    with pytest.raises(StepError) as error:
        run(tmp_path, source)
    message = str(error.value)
    assert "100 of 3,000 rows (3.33%) cannot be read, more than max_bad_fraction = 0.01" in message
    assert f"{source} line 2: expected 4 fields, found 6: '0,1," in message
    assert message.count("expected 4 fields") == 3 and "\n" not in message
    assert [entry.name for entry in tmp_path.iterdir()] == [source.name]
    _, metadata = run(tmp_path, source, max_bad_fraction=0.04)
    assert metadata["quarantined_rows"] == 100


def test_the_lost_rest_of_a_file_counts_with_all_its_records(tmp_path, monkeypatch):
    import struct

    from kfp_hybrid.data.tfrecord import masked_crc32c

    def frame(data):
        length = struct.pack("<Q", len(data))
        return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))

    example = bytes.fromhex("0a0c0a0a0a016e12051a030a0101")  # {"n": 1}
    content = bytearray(frame(example) * 1000)
    content[len(content) // 2] ^= 1
    (tmp_path / "a.tfrecord").write_bytes(content)
    with pytest.raises(StepError, match=r"500 of 1,000 rows \(50.00%\)"):
        run(tmp_path, tmp_path / "a.tfrecord")


# --- what users get wrong


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"key_columns": ["mnth"]},
            r"key_columns: there is no column 'mnth' \(did you mean month\?\); the columns are: id",
        ),
        ({"split_column": "week", "split_values": {"a": [1]}}, "split_column: there is no column 'week'"),
        ({"span_column": "week", "spans": [1]}, "span_column: there is no column 'week'"),
        ({"split_ratios": {}}, "split_ratios is empty"),
        ({"split_ratios": {"train": 0.8}}, "add up to 0.8; they must add up to 1"),
        ({"split_ratios": {"train": 1.5, "eval": -0.5}}, "the share of train is 1.5"),
        ({"split_ratios": {"train": "all"}}, "the share of train is 'all'"),
        ({"split_ratios": {"../x": 1.0}}, "'../x' cannot be the name of a split"),
        ({"split_ratios": {"quarantine": 1.0}}, "'quarantine' cannot be the name of a split"),
        ({"split_column": "month"}, "split_values is empty"),
        ({"split_values": {"a": [1]}}, "without split_column"),
        ({"split_column": "month", "split_values": {"a": 1}}, "must be a list"),
        ({"split_column": "month", "split_values": {"a": [1], "b": [1.0]}}, "1 is a value of both a and b"),
        ({"split_column": "month", "split_values": {"a": ["May"]}}, "'May' cannot be a value of column month"),
        ({"split_column": "delay", "split_values": {"a": ["late"]}}, "'late' cannot be a value of column delay"),
        ({"split_column": "month", "split_values": {"a": [1]}, "key_columns": ["id"]}, "not both"),
        ({"split_column": "month", "split_values": {"a": [13]}}, "none of the 3,000 rows has month in 13"),
        ({"span_column": "month"}, "spans is empty"),
        ({"spans": [1]}, "without span_column"),
        ({"span_column": "month", "spans": [13]}, "none of the 3,000 rows has month in 13"),
        ({"max_bad_fraction": 2}, "max_bad_fraction is 2"),
        ({"format": "xml"}, "format is 'xml'"),
    ],
)
def test_a_wrong_parameter_is_one_line_and_leaves_nothing(tmp_path, source, parameters, message):
    with pytest.raises(StepError, match=message) as error:
        run(tmp_path, source, **parameters)
    assert "\n" not in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == [source.name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_destination_is_one_line(tmp_path, source):
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    with pytest.raises(StepError, match=r"cannot write .*read-only/exämples: Permission denied"):
        run(folder, source)


def test_a_file_system_that_cannot_be_written_is_one_line(source):
    with pytest.raises(StepError, match=r"cannot write /proc/examples"):
        ingest_examples("/proc/examples", Request(source=str(source)))


def test_a_disk_that_takes_no_more_is_one_line(tmp_path, source):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StepError, match=r"cannot write .*exämples: .*; check its permissions and space"):
            run(tmp_path, source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [entry.name for entry in tmp_path.iterdir()] == [source.name]


def test_a_split_without_rows_is_mentioned(tmp_path, source, caplog):
    with caplog.at_level(logging.INFO):
        examples, _ = run(tmp_path, source, split_column="month", split_values={"train": [1], "eval": [13]})
    assert examples.rows("eval") == 0
    assert "the split eval has no rows" in caplog.text
    assert "250 rows of 1 file(s)" in caplog.text and "0 quarantined, 2,750 excluded" in caplog.text


def test_a_header_alone_gives_empty_splits(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n")
    examples, metadata = run(tmp_path, tmp_path / "a.csv")
    assert metadata["rows"] == 0 and examples.columns == {"a": "null", "b": "null"}


def test_types_that_change_late_start_again(tmp_path, source):
    with source.open("a") as file:
        file.write("oops,1,UA,\n")
    examples, metadata = run(tmp_path, source)
    assert examples.columns["id"] == "string" and metadata["rows"] == 3001
    rows = sorted(
        row["id"] for split in examples.splits for b in examples.batches(split, ["id"]) for row in b.to_pylist()
    )
    assert rows == sorted([*map(str, range(3000)), "oops"])


def test_progress_is_logged(tmp_path, source, monkeypatch, caplog):
    monkeypatch.setattr(ingest, "PROGRESS_SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        run(tmp_path, source)
    assert "3,000 rows read" in caplog.text


# --- nothing half-written

HELD = """
import sys, time
from pathlib import Path
from kfp_hybrid.step import step
from kfp_hybrid.components.data_processing.ingest_examples import ingest

def hold(ingestion):
    if list(Path(sys.argv[1]).parent.glob(".*/train/*.parquet")):
        print("in the midst", flush=True)
        time.sleep(600)

ingest._Ingestion._log_progress = hold
with step():
    ingest.ingest_examples(sys.argv[1], ingest.Request(source=sys.argv[2], split_ratios={"train": 1.0}))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_step_leaves_nothing_under_the_final_name(tmp_path, number):
    big = tmp_path / "big"
    big.mkdir()
    content = flights(100_000)
    for file in range(12):
        (big / f"{file}.csv").write_text(content)
    output = tmp_path / "run" / "examples"
    output.parent.mkdir()
    command = [sys.executable, "-c", HELD, str(output), str(big)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"in the midst\n"
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 143)
    assert not output.exists()
    if number == signal.SIGTERM:
        assert list(output.parent.iterdir()) == []
        assert errors.decode().splitlines()[-1].startswith("stopped by SIGTERM") and b"Traceback" not in errors


def test_a_rerun_replaces_the_examples(tmp_path, source):
    run(tmp_path, source)
    source.write_text(flights(10))
    examples, _ = run(tmp_path, source)
    assert sum(split.rows for split in examples.splits.values()) == 10
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(["exämples", source.name])


def test_something_else_is_never_overwritten(tmp_path, source):
    folder = tmp_path / "exämples"
    folder.mkdir()
    (folder / "thesis.tex").write_text("do not lose")
    with pytest.raises(StepError, match="not overwritten"):
        run(tmp_path, source)
    assert (folder / "thesis.tex").read_text() == "do not lose"
