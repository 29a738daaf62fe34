"""Sources in object stores are read as a stream: the same rows as from files, and nothing is copied to disk."""

import gzip
import io
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfp_hybrid import storage
from kfp_hybrid.components.data_processing.ingest_examples.ingest import Request, ingest_examples
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.data.sources import resolve
from kfp_hybrid.step import StepError

ROWS = 1000
CSV = b"id,text\n" + b"".join(b"%d,row %d\n" % (row, row) for row in range(ROWS))


def parquet():
    buffer = io.BytesIO()
    table = pa.table({"id": list(range(ROWS)), "text": [f"row {row}" for row in range(ROWS)]})
    pq.write_table(table, buffer, row_group_size=100)
    return buffer.getvalue()


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner/data.csv", CSV)
    return buffer.getvalue()


FILES = {"data.csv": CSV, "data.csv.gz": gzip.compress(CSV), "data.zip": zipped(), "data.parquet": parquet()}


@pytest.mark.parametrize("name", FILES)
def test_the_rows_are_those_of_the_file(place, tmp_path, name):
    storage.open_store(place).write_bytes(f"data/{name}", FILES[name])
    metadata = ingest_examples(str(tmp_path / "out"), Request(f"{place}/data/{name}"))
    assert metadata["rows"] == ROWS
    (tmp_path / name).write_bytes(FILES[name])
    here = ingest_examples(str(tmp_path / "here"), Request(str(tmp_path / name)))
    assert here == metadata


def test_the_manifest_names_the_uris(s3, tmp_path):
    storage.open_store(s3).write_bytes("data/a.csv", CSV)
    ingest_examples(str(tmp_path / "out"), Request(f"{s3}/data/a.csv"))
    assert f"{s3}/data/a.csv" in (tmp_path / "out/manifest.json").read_text()
    assert Examples.open(str(tmp_path / "out")).splits


def names(source):
    return [found.name for found in resolve(source)]


def test_a_folder_is_its_files_without_bookkeeping_and_sub_folders(place, caplog):
    store = storage.open_store(place)
    for key in ("b.csv", "a.csv", "_SUCCESS", ".hidden", "ü b.csv", "sub/c.csv"):
        store.write_bytes(f"data/{key}", CSV)
    expected = [f"{place}/data/{name}" for name in ("a.csv", "b.csv", "ü b.csv")]
    assert names(f"{place}/data") == names(f"{place}/data/") == expected
    assert "not reading" in caplog.text and "sub" in caplog.text


def test_patterns_follow_the_rules_of_files(place):
    store = storage.open_store(place)
    for key in ("x/y/1.csv", "x/2.csv", "x/3.txt", "x/.h/4.csv", "10.csv"):
        store.write_bytes(key, CSV)
    assert names(f"{place}/**/*.csv") == [f"{place}/{key}" for key in ("10.csv", "x/2.csv", "x/y/1.csv")]
    assert names(f"{place}/x/*.csv") == [f"{place}/x/2.csv"]
    assert names(f"{place}/*/?.[ct]*") == [f"{place}/x/2.csv", f"{place}/x/3.txt"]
    assert names(f"{place}/x/**") == [f"{place}/x/{key}" for key in ("2.csv", "3.txt", "y/1.csv")]


@pytest.mark.parametrize("pattern", ["nothing.csv", "*.parquet", "folder/"])
def test_a_source_without_files_is_an_error(place, pattern):
    storage.open_store(place).write_bytes("a.csv", CSV)
    with pytest.raises(StepError, match=r"no object matches|there is no file at|does not exist|no file matches"):
        resolve(f"{place}/{pattern}")


def test_directory_markers_are_no_data(buckets, gs, tmp_path):
    buckets.put("bucket", "folder/data/", b"", {}, None)
    buckets.put("bucket", "folder/data/a.csv", CSV, {}, None)
    assert names(f"{gs}/data") == [f"{gs}/data/a.csv"]


def test_connections_that_break_do_not_change_the_rows(faults, s3, tmp_path):
    from faulty_proxy import CutAnswer, times

    big = b"id,text\n" + b"".join(b"%d,some text of a row %d\n" % (row, row) for row in range(400_000))
    storage.open_store(s3).write_bytes("big.csv", big)
    faults.fault = times(3, CutAnswer(100_000), lambda request: request.method == "GET" and "big.csv" in request.path)
    assert ingest_examples(str(tmp_path / "out"), Request(f"{s3}/big.csv"))["rows"] == 400_000


def test_an_object_that_is_replaced_while_it_is_read_fails_the_step(s3, tmp_path, monkeypatch):
    store = storage.open_store(s3)
    store.write_bytes("a.csv", CSV * 3)
    sources = resolve(f"{s3}/a.csv")
    store.write_bytes("a.csv", CSV)
    with pytest.raises(StepError, match=r"was replaced|was changed"), sources[0].open() as stream:
        stream.read()


def test_only_a_few_ranges_are_fetched_of_a_wide_parquet_file(faults, s3, tmp_path):
    storage.open_store(s3).write_bytes("a.parquet", FILES["data.parquet"])
    ingest_examples(str(tmp_path / "out"), Request(f"{s3}/a.parquet"))
    fetched = [request for request in faults.requests if request.method == "GET" and "a.parquet" in request.path]
    assert len(fetched) < 40


def test_no_credentials_is_one_line(s3, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StepError, match="there are no S3 credentials"):
        resolve(f"{s3}/*.csv")
