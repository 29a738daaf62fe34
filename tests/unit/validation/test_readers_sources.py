import io
import os
import stat
import zipfile

import pytest

from kfp_hybrid.data.sources import Source, choose_format, resolve
from kfp_hybrid.step import StepError


def names(source):
    return [found.name for found in resolve(str(source))]


def test_a_directory_is_its_files_sorted_without_bookkeeping(tmp_path):
    for name in ("b.csv", "a.csv", "_SUCCESS", ".hidden", "ü.csv"):
        (tmp_path / name).write_text("x\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "c.csv").write_text("x\n")
    assert names(tmp_path) == [str(tmp_path / name) for name in ("a.csv", "b.csv", "ü.csv")]


def test_sub_directories_are_mentioned_when_they_are_not_read(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("x\n")
    (tmp_path / "month=1").mkdir()
    resolve(str(tmp_path))
    assert "not reading the sub-directories" in caplog.text and "month=1" in caplog.text


def test_a_glob_crosses_directories(tmp_path):
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "y" / "1.csv").write_text("x\n")
    (tmp_path / "x" / "2.csv").write_text("x\n")
    assert names(tmp_path / "**" / "*.csv") == [str(tmp_path / "x" / "2.csv"), str(tmp_path / "x" / "y" / "1.csv")]


def test_a_name_with_brackets_is_a_file_when_it_exists(tmp_path):
    (tmp_path / "a[1].csv").write_text("x\n")
    assert names(tmp_path / "a[1].csv") == [str(tmp_path / "a[1].csv")]


def test_the_sample_of_the_package_is_found():
    (sample,) = resolve("package://kfp_hybrid/samples/flights.csv.gz")
    with sample.open() as stream:
        assert stream.read(5) == b"month"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "source is empty"),
        ("hdfs://bucket/x.csv", "cannot read hdfs://"),
        ("s3:///x.csv", "names no bucket"),
        ("package://numpy/version.py", "only the data of this package"),
        ("package://kfp_hybrid/../setup.py", "no such file"),
        ("package://kfp_hybrid//etc/passwd", "no such file"),
        ("package://kfp_hybrid/samples", "no such file"),
        ("/nowhere/x.csv", "/nowhere/x.csv does not exist"),
        ("/nowhere/*.csv", r"no file matches /nowhere/\*\.csv"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(source, message):
    with pytest.raises(StepError, match=message):
        resolve(source)


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(StepError, match="holds no file"):
        resolve(str(tmp_path))


def zip_with(path, *members):
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, b"x\n1\n")
    return path


def symlink(name):
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("../../etc/x.csv", "leads out of the archive"),
        ("/etc/x.csv", "leads out of the archive"),
        (symlink("x.csv"), "no regular file"),
        ("folder/", "holds no data file"),
    ],
)
def test_unusual_members_of_a_zip_file_are_refused(tmp_path, member, message):
    with pytest.raises(StepError, match=message):
        resolve(str(zip_with(tmp_path / "a.zip", member)))


def test_an_encrypted_member_is_refused(tmp_path):
    path = zip_with(tmp_path / "a.zip", "x.csv")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag "encrypted" in the directory of the archive
    path.write_bytes(content)
    with pytest.raises(StepError, match="encrypted"):
        resolve(str(path))


def test_a_file_that_is_no_zip_file_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"nothing")
    with pytest.raises(StepError, match=r"cannot read .*a\.zip"):
        resolve(str(tmp_path / "a.zip"))


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("a.csv", "csv"),
        ("A.CSV.GZ", "csv"),
        ("a.parquet", "parquet"),
        ("a.tfrecord", "tfrecord"),
        ("a.tfrecord.gz", "tfrecord"),
        ("data.tfrecord-00000-of-00010", "tfrecord"),
        ("a.txt", None),
    ],
)
def test_the_name_tells_the_format(tmp_path, name, format_):
    assert Source(tmp_path / name).format == format_


def test_parquet_is_known_by_its_first_bytes(tmp_path):
    (tmp_path / "part-0").write_bytes(b"PAR1...")
    assert choose_format(resolve(str(tmp_path)), "auto") == "parquet"


def test_formats_that_are_unclear_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("x\n")
    (tmp_path / "b.txt").write_text("x\n")
    with pytest.raises(StepError, match=r"b\.txt does not tell its format"):
        choose_format(resolve(str(tmp_path)), "auto")
    assert choose_format(resolve(str(tmp_path)), "csv") == "csv"
    (tmp_path / "b.txt").rename(tmp_path / "b.tfrecord")
    with pytest.raises(StepError, match="different formats"):
        choose_format(resolve(str(tmp_path)), "auto")
    with pytest.raises(StepError, match="format is 'xml'"):
        choose_format(resolve(str(tmp_path)), "xml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x\n")
    path.chmod(0)
    with pytest.raises(StepError, match=r"cannot read .*a\.csv: Permission denied"), Source(path).open():
        pass


def test_a_stream_is_decompressed_by_its_content(tmp_path):
    import gzip

    (tmp_path / "a.csv").write_bytes(gzip.compress(b"x\n1\n"))
    with Source(tmp_path / "a.csv").open() as stream:
        assert isinstance(stream, io.BufferedIOBase) and stream.read() == b"x\n1\n"
