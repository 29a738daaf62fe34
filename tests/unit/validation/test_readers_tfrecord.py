import gzip
import struct

import pyarrow as pa
import pytest

from kfp_hybrid.data.reading import with_types
from kfp_hybrid.data.sources import resolve
from kfp_hybrid.data.tfrecord import TFRecordReader, masked_crc32c
from kfp_hybrid.step import StepError


def example(**features):
    """A serialized tf.Example, written by TensorFlow's own protocol buffer."""
    from tensorflow.core.example import example_pb2

    message = example_pb2.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        feature = message.features.feature[name]
        if value is None:
            continue
        if isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], float):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return message.SerializeToString()


def frame(data):
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def write(path, *records):
    path.write_bytes(b"".join(map(frame, records)))
    return path


def read(path, batch_records=4096):
    reader = TFRecordReader(resolve(str(path)), batch_records)

    def work(columns):
        chunks = list(reader.chunks(columns))
        rows = [row for chunk in chunks for row in chunk.batch.to_pylist()]
        return columns, rows, [(bad.line, bad.reason, bad.rows) for chunk in chunks for bad in chunk.bad]

    return with_types(reader, work)


def test_files_of_tensorflow_are_read(tmp_path):
    import tensorflow as tf

    for name, compression in (("plain", ""), ("gzip", "GZIP")):
        path = tmp_path / f"{name}.tfrecord"
        with tf.io.TFRecordWriter(str(path), compression) as writer:
            writer.write(example(n=1, x=0.5, s="ü".encode()))
            writer.write(example(n=2, s=b""))
        columns, rows, bad = read(path)
        assert columns == {"n": "int64", "s": "string", "x": "double"}
        assert rows == [{"n": 1, "s": "ü", "x": 0.5}, {"n": 2, "s": "", "x": None}] and not bad


def test_columns_and_types_are_decided_by_all_records(tmp_path):
    path = write(tmp_path / "a.tfrecord", example(b=1), example(b=None), example(b=0.5), example(a=b"x"), example())
    for batch_records in (1, 2, 100):
        columns, rows, bad = read(path, batch_records)
        assert columns == {"a": "string", "b": "double"}
        assert [tuple(row.values()) for row in rows] == [
            (None, 1.0),
            (None, None),
            (None, 0.5),
            ("x", None),
            (None, None),
        ]
        assert not bad


def test_a_feature_of_numbers_and_texts_is_text(tmp_path):
    path = write(tmp_path / "a.tfrecord", example(x=1), example(x=0.5), example(x=b"y"))
    assert read(path)[1] == [{"x": "1"}, {"x": "0.5"}, {"x": "y"}]


def test_bad_records_go_to_quarantine_and_the_rest_is_read(tmp_path):
    path = write(
        tmp_path / "a.tfrecord", example(n=1), b"\xff\xffno example", example(n=[1, 2]), example(n=2), example(n=3)
    )
    content = bytearray(path.read_bytes())
    offset = len(b"".join(map(frame, (example(n=1), b"\xff\xffno example", example(n=[1, 2])))))
    content[offset + 12] ^= 1
    path.write_bytes(content)
    for batch_records in (1, 2, 100):
        _, rows, bad = read(path, batch_records)
        assert rows == [{"n": 1}, {"n": 3}]
        assert sorted(bad) == [
            (2, "not a tf.Example", 1),
            (3, "column n holds more than one value", 1),
            (4, f"the checksum of the record at byte {offset} is wrong", 1),
        ]


def test_a_wrong_length_costs_the_rest_of_the_file_and_counts_its_records(tmp_path):
    records = [example(n=i % 10) for i in range(10)]
    content = bytearray(b"".join(map(frame, records)))
    size = len(content) // 10
    content[4 * size] ^= 1
    (tmp_path / "1.tfrecord").write_bytes(content)
    write(tmp_path / "2.tfrecord", example(n=10))
    _, rows, bad = read(tmp_path)
    assert [row["n"] for row in rows] == [0, 1, 2, 3, 10]
    ((line, reason, lost),) = bad
    assert line == 5 and lost == 6
    assert f"byte {4 * size} is wrong; the {6 * size} bytes" in reason


@pytest.mark.parametrize("cut", [1, 5, 14])
def test_a_truncated_file_loses_its_last_record_only(tmp_path, cut):
    content = b"".join(map(frame, [example(n=1), example(n=2)]))
    (tmp_path / "a.tfrecord").write_bytes(content[:-cut])
    _, rows, bad = read(tmp_path / "a.tfrecord")
    assert rows == [{"n": 1}]
    assert [line for line, _, _ in bad] == [2] and "ends within the record" in bad[0][1]


def test_a_truncated_length_is_reported(tmp_path):
    content = frame(example(n=1)) + frame(example(n=2))[:7]
    (tmp_path / "a.tfrecord").write_bytes(content)
    _, rows, bad = read(tmp_path / "a.tfrecord")
    assert rows == [{"n": 1}] and len(bad) == 1


@pytest.mark.parametrize("content", [b"", b"\x7fELF no record at all", frame(b"")])
def test_a_file_without_features_is_refused(tmp_path, content):
    (tmp_path / "a.tfrecord").write_bytes(content)
    with pytest.raises(StepError, match=r"no record of .*a\.tfrecord holds a feature"):
        read(tmp_path / "a.tfrecord")


def test_compressed_shards(tmp_path):
    for shard in range(3):
        (tmp_path / f"x.tfrecord-0000{shard}-of-00003").write_bytes(gzip.compress(frame(example(n=shard))))
    _, rows, _ = read(tmp_path / "x.tfrecord-*")
    assert [row["n"] for row in rows] == [0, 1, 2]


def test_the_parser_agrees_with_tensorflow(tmp_path):
    """Floats are 32 bits in tf.Example, integers 64."""
    path = write(tmp_path / "a.tfrecord", example(x=0.1, n=-(2**63)))
    _, ((row),), _ = read(path)
    assert row == {"n": -(2**63), "x": pa.scalar(0.1, pa.float32()).as_py()}
