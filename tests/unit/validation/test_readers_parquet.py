import datetime
import decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfp_hybrid.data.parquet import ParquetReader
from kfp_hybrid.data.reading import with_types
from kfp_hybrid.data.sources import resolve
from kfp_hybrid.step import StepError


def read(path, batch_rows=65_536):
    reader = ParquetReader(resolve(str(path)), batch_rows)

    def work(columns):
        chunks = list(reader.chunks(columns, list(columns)))
        rows = [row for chunk in chunks for row in chunk.batch.to_pylist()]
        return columns, rows, [bad for chunk in chunks for bad in chunk.bad]

    return with_types(reader, work)


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("values", "type_", "read_back"),
    [
        (pa.array([1, None, 3], pa.int8()), "int64", [1, None, 3]),
        (pa.array([1, 2**63 - 1], pa.uint64()), "int64", [1, 2**63 - 1]),
        (pa.array([True, None, False]), "int64", [1, None, 0]),
        (pa.array([0.5, None], pa.float32()), "double", [0.5, None]),
        (pa.array([decimal.Decimal("1.25")]), "double", [1.25]),
        (pa.array(["ü", None, ""]), "string", ["ü", None, ""]),
        (pa.array(["ü"], pa.large_string()), "string", ["ü"]),
        (pa.array([b"abc"]), "string", ["abc"]),
        (pa.array(["a", "b", "a", None]).dictionary_encode(), "string", ["a", "b", "a", None]),
        (pa.array([datetime.date(2013, 1, 2)]), "string", ["2013-01-02"]),
        (pa.array([datetime.datetime(2013, 1, 2, 3)], pa.timestamp("ms")), "string", ["2013-01-02 03:00:00.000"]),
        (pa.array([[1], [], None]), "int64", [1, None, None]),
        (pa.array([["a"], None, ["b"]], pa.large_list(pa.string())), "string", ["a", None, "b"]),
        (pa.nulls(2), "null", [None, None]),
    ],
)
def test_types(tmp_path, values, type_, read_back):
    columns, rows, bad = read(write(tmp_path / "a.parquet", x=values))
    assert columns == {"x": type_}
    assert [row["x"] for row in rows] == read_back and not bad


def test_a_time_zone_becomes_utc(tmp_path):
    moment = datetime.datetime(2013, 7, 1, 12, tzinfo=datetime.timezone.utc)
    path = write(tmp_path / "a.parquet", x=pa.array([moment], pa.timestamp("ms", "America/New_York")))
    assert read(path)[1] == [{"x": "2013-07-01 12:00:00.000Z"}]


def test_unusable_values_go_to_quarantine_with_their_row_number(tmp_path):
    path = write(
        tmp_path / "a.parquet",
        n=pa.array([0, 1, 2, 3, 4, 5], pa.int64()),
        text=pa.array([b"a", b"b", b"\xff", b"d", None, b"f"]),
        big=pa.array([0, 2**63, 1, 1, 1, 1], pa.uint64()),
        many=pa.array([[1], [1], [1], [1, 2], [], [1]]),
    )
    for batch_rows in (1, 2, 100):
        _, rows, bad = read(path, batch_rows)
        assert [row["n"] for row in rows] == [0, 4, 5]
        assert [(row.line, row.reason) for row in bad] == [
            (2, "column big does not fit into 64 bits with a sign"),
            (3, "column text is not valid UTF-8"),
            (4, "column many holds more than one value"),
        ]
        assert bad[1].row == '{"n": 2, "text": "\\\\xff", "big": 1, "many": [1]}'


def test_the_wider_type_of_all_files_holds(tmp_path):
    write(tmp_path / "1.parquet", x=pa.array([1, None]), y=pa.array([1.5, 2.0]))
    write(tmp_path / "2.parquet", x=pa.array([0.5, 2.0]), y=pa.array(["a", "b"]))
    columns, rows, _ = read(tmp_path)
    assert columns == {"x": "double", "y": "string"}
    assert [tuple(row.values()) for row in rows] == [(1.0, "1.5"), (None, "2.0"), (0.5, "a"), (2.0, "b")]


def test_keys_are_what_the_file_holds(tmp_path):
    write(tmp_path / "1.parquet", x=pa.array([1]))
    write(tmp_path / "2.parquet", x=pa.array(["1"]))
    reader = ParquetReader(resolve(str(tmp_path)))
    chunks = list(reader.chunks(reader.guess(), ["x"]))
    assert [chunk.keys["x"].to_pylist() for chunk in chunks] == [[1], ["1"]]
    assert [chunk.batch.column(0).to_pylist() for chunk in chunks] == [["1"], ["1"]]


@pytest.mark.parametrize("values", [[{"a": 1}], [[[1]]], [datetime.timedelta(1)]])
def test_a_column_of_an_unusable_type_is_refused(tmp_path, values):
    with pytest.raises(StepError, match=r"column x of .*a\.parquet has the type .* cannot be used"):
        ParquetReader(resolve(str(write(tmp_path / "a.parquet", x=pa.array(values)))))


def test_different_columns_are_refused(tmp_path):
    write(tmp_path / "1.parquet", x=pa.array([1]))
    write(tmp_path / "2.parquet", z=pa.array([1]))
    with pytest.raises(
        StepError, match=r"2\.parquet has other columns than .*1\.parquet \(missing: x; additional: z\)"
    ):
        ParquetReader(resolve(str(tmp_path)))


def test_a_damaged_file_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", x=pa.array(range(1000)))
    content = bytearray(path.read_bytes())
    content[100:200] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(StepError, match=r"cannot read .*a\.parquet as Parquet"):
        read(path)
    path.write_bytes(content[:500])
    with pytest.raises(StepError, match=r"cannot read .*a\.parquet as Parquet"):
        read(path)
