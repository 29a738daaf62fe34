import csv
import gzip
import io
import zipfile

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_hybrid.data import records
from kfp_hybrid.data.column_types import text_type
from kfp_hybrid.data.csv import CsvReader, read_csv
from kfp_hybrid.data.reading import with_types
from kfp_hybrid.data.sources import resolve
from kfp_hybrid.step import StepError


def read(path, block_bytes=records.BLOCK_BYTES):
    """Columns, rows and bad rows of a file, directory or glob."""
    reader = CsvReader(resolve(str(path)), block_bytes)

    def work(columns):
        chunks = list(reader.chunks(columns, list(columns)))
        return (
            columns,
            [row for chunk in chunks for row in chunk.batch.to_pylist()],
            [(bad.line, bad.reason, bad.row) for chunk in chunks for bad in chunk.bad],
            [tuple(row) for chunk in chunks for row in zip(*(chunk.keys[name].to_pylist() for name in columns))],
        )

    return with_types(reader, work)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def column(tmp_path, *values):
    lines = ["x,y", *(f"{value},1" for value in values)]
    columns, rows, bad, _ = read(write(tmp_path / "c.csv", "\n".join(lines)))
    assert not bad
    return columns["x"], [row["x"] for row in rows]


# --- types


@pytest.mark.parametrize(
    ("values", "type_", "parsed"),
    [
        (["1", "", "-3"], "int64", [1, None, -3]),
        (["1", "2.5"], "double", [1.0, 2.5]),
        (["1", "2.5", "x"], "string", ["1", "2.5", "x"]),
        (["", ""], "null", [None, None]),
        (["true", "false"], "string", ["true", "false"]),
        (["NA", "null"], "string", ["NA", "null"]),
        (["2013-01-01", "2013-01-01T05:00:00Z"], "string", ["2013-01-01", "2013-01-01T05:00:00Z"]),
        (["9223372036854775807"], "int64", [2**63 - 1]),
        (["9223372036854775808"], "string", ["9223372036854775808"]),
        (["1.5", "9223372036854775808"], "string", ["1.5", "9223372036854775808"]),
        (["1.5", "1e30"], "double", [1.5, 1e30]),
        (["0x1F"], "string", ["0x1F"]),
        (["+5", " 7 ", "1_000"], "int64", [5, 7, 1000]),
        (["+5", "1_0.5"], "double", [5.0, 10.5]),
        (["1", "nan(1)"], "string", ["1", "nan(1)"]),
        (["1.5", "inf"], "double", [1.5, float("inf")]),
        (["1.5", "1e999"], "double", [1.5, float("inf")]),
        (["  "], "string", ["  "]),
        (['""', '"3"'], "int64", [None, 3]),
        (["٣"], "string", ["٣"]),
    ],
)
def test_types_are_those_of_tfdv(tmp_path, values, type_, parsed):
    assert column(tmp_path, *values) == (type_, parsed)


def test_nan_is_a_value(tmp_path):
    type_, (_, nan) = column(tmp_path, "1.5", "nan")
    assert type_ == "double" and nan != nan


# fmt: off
ODD_NUMBERS = st.sampled_from([
    "", "0", "-0", "007", "1.", ".5", "1e5", "1E-3", "+1", "1_0", "nan", "-inf", "Infinity", "0x10", "1e999", "1d",
    " 1", "1 ", "\t2", "é", "5e-324", "1.7976931348623159e308",
    "999999999999999999", "9999999999999999999", "-9223372036854775808", "-9223372036854775809",
])
# fmt: on
NUMBERS = st.one_of(st.integers().map(str), st.floats().map(repr), ODD_NUMBERS)


@settings(max_examples=300, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=8))
def test_numbers_are_read_as_python_reads_them(tmp_path_factory, values):
    type_, parsed = column(tmp_path_factory.mktemp("csv"), *values)
    expected = max((text_type(value.encode()) for value in values), key=["null", "int64", "double", "string"].index)
    python_type = {"null": str, "int64": int, "double": float, "string": str}[expected]
    assert type_ == expected
    assert repr(parsed) == repr([python_type(value) if value else None for value in values])


def test_the_type_rule_is_the_one_of_tfx_bsl():
    from tfx_bsl.coders import csv_decoder

    names = {-1: "null", 1: "double", 0: "int64", 2: "string"}
    texts = ["", "1", "-1", "1.0", "x", "0x1", "1_0", "+1", "1e999", "nan", "inf", " 1 ", " ", "9" * 19, "9" * 30]
    for text in [*texts, "-" + "9" * 19]:
        assert text_type(text.encode()) == names[int(csv_decoder._InferValueType(text.encode()))], text


def test_a_type_is_decided_by_the_whole_input(tmp_path):
    lines = ["x,y", *(f"{i},1" for i in range(5000)), "oops,"]
    columns, rows, bad, keys = read(write(tmp_path / "late.csv", "\n".join(lines)), block_bytes=1000)
    assert columns == {"x": "string", "y": "int64"}
    assert [row["x"] for row in rows] == [line.split(",")[0] for line in lines[1:]]
    assert len(keys) == 5001 and not bad


def test_a_type_is_decided_by_all_files(tmp_path):
    write(tmp_path / "a.csv", "x\n1\n")
    write(tmp_path / "b.csv", "x\n2.5\n")
    columns, rows, _, _ = read(tmp_path)
    assert columns == {"x": "double"} and rows == [{"x": 1.0}, {"x": 2.5}]


def test_a_row_that_goes_to_quarantine_has_no_say_in_types(tmp_path):
    columns, _, bad, _ = read(write(tmp_path / "a.csv", "x,y\n1,2\nnot,a,number\n"))
    assert columns == {"x": "int64", "y": "int64"} and len(bad) == 1


# --- shapes of files


def test_quoted_newlines_unicode_and_doubled_quotes(tmp_path):
    text = 'name,note\r\n"Zoë, ""Z""","two\nlines, here"\r\n日本,"a\r\nb"\r\n'
    _, rows, bad, _ = read(write(tmp_path / "ünï.csv", text))
    assert rows == [{"name": 'Zoë, "Z"', "note": "two\nlines, here"}, {"name": "日本", "note": "a\r\nb"}]
    assert not bad


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "end"])
def test_line_ends(tmp_path, end, last):
    text = end.join(["a,b", "1,x", "", "2,y"]) + (end if last else "")
    for block_bytes in (1, 2, 3, 5, 1000):
        _, rows, bad, _ = read(write(tmp_path / "a.csv", text), block_bytes)
        assert rows == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}] and not bad


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    columns, _, _, _ = read(write(tmp_path / "bom.csv", b"\xef\xbb\xbfa,b\n1,2\n"))
    assert list(columns) == ["a", "b"]


def test_a_field_longer_than_a_block(tmp_path):
    long = "x" * 3_000_000
    _, rows, _, _ = read(write(tmp_path / "long.csv", f'a,b\n1,{long}\n2,"{long}\n{long}"\n3,z\n'), block_bytes=1000)
    assert [len(row["b"]) for row in rows] == [3_000_000, 6_000_001, 1]


def test_a_header_alone_gives_columns_without_type(tmp_path):
    assert read(write(tmp_path / "a.csv", "a,b\n")) == ({"a": "null", "b": "null"}, [], [], [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("a,b,a\n1,2,3\n", "names a column twice: a"),
        (",a\n0,1\n", "column 1 .* has no name"),
        ('a,"b\n1,2\n', "a quoted field is not closed"),
        (b"a,\xff\n1,2\n", "UTF-8"),
        ("a,b\n".encode("utf-16"), "UTF-8"),
        ("a;b\n1;2\n", "only commas"),
    ],
)
def test_an_unusable_header_is_refused(tmp_path, content, message):
    path = write(tmp_path / "a.csv", content)
    with pytest.raises(StepError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_different_headers_are_refused(tmp_path):
    write(tmp_path / "a.csv", "x,y\n1,2\n")
    write(tmp_path / "b.csv", "x,z\n1,2\n")
    with pytest.raises(StepError, match=r"b\.csv has other columns than .*a\.csv \(missing: y; additional: z\)"):
        read(tmp_path)


def test_compressed_files(tmp_path):
    content = b"a,b\n1,x\n"
    write(tmp_path / "1.csv.gz", gzip.compress(content))
    with zipfile.ZipFile(tmp_path / "2.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/one.csv", content)
        archive.writestr("two.csv", content)
        archive.writestr("__MACOSX/._two.csv", b"bookkeeping")
    _, rows, bad, _ = read(tmp_path)
    assert rows == [{"a": 1, "b": "x"}] * 3 and not bad


def test_a_truncated_gz_file_is_refused(tmp_path):
    content = gzip.compress(b"a,b\n" + b"1,x\n" * 100_000)
    path = write(tmp_path / "cut.csv.gz", content[:-20])
    with pytest.raises(StepError, match="damaged"):
        read(path)


# --- rows that cannot be read


def test_bad_rows_keep_line_reason_and_text(tmp_path):
    text = b'a,b\n1,"x\ny"\n2\n\n3,ok\n4,5,6\n7,\xff\xfe\n8,ok\n'
    for block_bytes in (1, 7, 1000):
        _, rows, bad, keys = read(write(tmp_path / "a.csv", text), block_bytes)
        assert [row["a"] for row in rows] == [1, 3, 8]
        assert keys == [("1", "x\ny"), ("3", "ok"), ("8", "ok")]
        assert bad == [
            (4, "expected 2 fields, found 1", "2"),
            (7, "expected 2 fields, found 3", "4,5,6"),
            (8, "not valid UTF-8", "7,\\xff\\xfe"),
        ]


def test_a_forgotten_quote_costs_one_line(tmp_path):
    lines = ["a,b", *(f"{i},good" for i in range(50))]
    lines[10] = '9,"bad'
    for block_bytes in (1, 50, 100_000):
        _, rows, bad, _ = read(write(tmp_path / "a.csv", "\n".join(lines) + "\n"), block_bytes)
        assert [row["a"] for row in rows] == [i for i in range(50) if i != 9]
        assert bad == [(11, "a quoted field is not closed", '9,"bad')]


def test_a_forgotten_quote_does_not_pair_with_a_later_quote(tmp_path):
    lines = ["a,b", '1,"bad', "2,good", '3,"also, good"', '4,"two', 'lines"']
    for block_bytes in (1, 10, 1000):
        _, rows, bad, _ = read(write(tmp_path / "a.csv", "\n".join(lines)), block_bytes)
        assert [row["a"] for row in rows] == [2, 3, 4]
        assert [(line, row) for line, _, row in bad] == [(2, '1,"bad')]


def test_quotes_inside_a_plain_field_are_characters(tmp_path):
    _, rows, bad, _ = read(write(tmp_path / "a.csv", 'a,b\n1,5" pipe\n2,"x"y\n'))
    assert [row["b"] for row in rows] == ['5" pipe', "xy"] and not bad


def test_a_line_without_end_is_one_bad_row(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1 << 20)
    text = "a,b\n1," + "x" * 5_000_000 + "\r\n2,good\n" + '3,"' + "y" * 3_000_000 + "\n4,good\n"
    for block_bytes in (1000, 700_000, 100_000_000):
        _, rows, bad, _ = read(write(tmp_path / "a.csv", text), block_bytes)
        assert [row["a"] for row in rows] == [2, 4]
        assert [(line, reason) for line, reason, _ in bad] == [
            (line, "the line is longer than 1 MiB") for line in (2, 4)
        ]


def test_read_csv_refuses_a_bad_row_unless_told(tmp_path):
    path = write(tmp_path / "a.csv", "a,b\n1,2\n3\n")
    with pytest.raises(StepError, match="line 3: expected 2 fields, found 1"):
        list(read_csv(path)[1])
    bad = []
    schema, batches = read_csv(path, bad.append)
    assert pa.Table.from_batches(batches, schema).to_pylist() == [{"a": 1, "b": 2}]
    assert [row.line for row in bad] == [3]


# --- laws

FIELDS = st.text(st.sampled_from('ab1,"\n\r é'), max_size=6)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(FIELDS, FIELDS, FIELDS), max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 60),
    st.booleans(),
)
def test_what_a_csv_writer_wrote_is_read_back(tmp_path_factory, rows, end, block_bytes, quote_all):
    text = io.StringIO(newline="")
    # Python's writer leaves a lone \r without quotes
    quoting = csv.QUOTE_ALL if quote_all or any("\r" in value for row in rows for value in row) else csv.QUOTE_MINIMAL
    csv.writer(text, lineterminator=end, quoting=quoting).writerows([("x", "y", "z"), *rows])
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", text.getvalue())
    _, _, bad, keys = read(path, block_bytes)
    assert not bad
    assert keys == [tuple(value or None for value in row) for row in rows]


SOUP = st.text(st.sampled_from('a1,,,"""\n\n\r'), max_size=60)


@settings(max_examples=500, deadline=None)
@given(SOUP, st.integers(1, 40))
def test_blocks_do_not_change_what_is_read(tmp_path_factory, soup, block_bytes):
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", "x,y,z\n" + soup)
    assert read(path, block_bytes) == read(path, 10_000)


@settings(max_examples=500, deadline=None)
@given(SOUP)
def test_every_line_is_in_a_row_or_in_quarantine(tmp_path_factory, soup):
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", "x,y,z\n" + soup)
    _, rows, bad, keys = read(path, 7)
    assert len(rows) == len(keys)
    pieces = [text for key in keys for text in key if text] + [text for _, _, text in bad]
    kept = "".join(pieces)
    for character in "a1":
        assert kept.count(character) == soup.count(character)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.sampled_from('a1,,""'), max_size=12), max_size=6))
def test_single_lines_are_read_as_python_reads_them(tmp_path_factory, lines):
    """Python's csv module is what TFDV uses, line by line."""
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", "\n".join(["x,y,z", *lines]))
    _, _, bad, keys = read(path)
    if any(len(list(csv.reader([line + "\n", "next line"]))) == 1 for line in lines):
        return  # a quoted field goes on to the next line, which TFDV does not see
    parsed = [next(csv.reader([line])) for line in lines if line]
    assert keys == [tuple(value or None for value in row) for row in parsed if len(row) == 3]
    assert len(bad) == sum(len(row) != 3 for row in parsed)
