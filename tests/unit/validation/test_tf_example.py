"""Decoding tf.Examples without tfx_bsl gives what tfx_bsl gives."""

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tfx_bsl.coders import example_coder

from kfp_hybrid.data.tf_example import NoExampleError, decode_examples

FLOATS = st.floats(width=32, allow_nan=False)
FEATURES = st.one_of(
    st.just(tf.train.Feature()),
    st.lists(st.binary(max_size=4), max_size=3).map(
        lambda values: tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    ),
    st.lists(FLOATS, max_size=3).map(lambda values: tf.train.Feature(float_list=tf.train.FloatList(value=values))),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(
        lambda values: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    ),
)
NAMES = st.text(max_size=2).filter(lambda name: "\0" not in name)  # where tfx_bsl cuts a name off
ROWS = st.lists(st.dictionaries(NAMES, FEATURES, max_size=4), max_size=6)


def serialize(features):
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def decoded(decode, records):
    try:
        return decode(records).to_pydict()
    except RuntimeError:
        return "refused"


@given(ROWS)
def test_records_give_the_columns_that_tfx_bsl_gives(rows):
    records = [serialize(row) for row in rows]
    expected = decoded(example_coder.ExamplesToRecordBatchDecoder().DecodeBatch, records)
    assert decoded(decode_examples, records) == expected


@pytest.mark.parametrize("record", [b"\xff", b"\n\x05\n\x03\n\x01\xff"])
def test_what_is_no_example_is_refused(record):
    with pytest.raises(NoExampleError):
        decode_examples([serialize({}), record])
