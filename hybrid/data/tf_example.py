"""Decodes tf.Example records with protobuf alone, where neither TensorFlow nor tfx_bsl should have to be imported.

The messages are those of tensorflow/core/example, by the numbers of their fields:
Example {Features features = 1}, Features {map<string, Feature> feature = 1},
Feature {oneof kind {BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3}}.
"""

import functools
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

PACKAGE = "kfp_hybrid"
KINDS = {
    "bytes_list": ("BytesList", "TYPE_BYTES", pa.binary()),
    "float_list": ("FloatList", "TYPE_FLOAT", pa.float32()),
    "int64_list": ("Int64List", "TYPE_INT64", pa.int64()),
}


class NoExampleError(RuntimeError):
    """Some records are no tf.Examples, or a feature holds values of two kinds."""


def decode_examples(records: Sequence[bytes]) -> pa.RecordBatch:
    """Decode tf.Examples.

    Args:
        records: the serialized messages.

    Returns:
        One row for each record, one column for each feature by its name: list<int64>, list<float> or list<binary>; null
        where a record lacks the feature. A feature that has no values in any record has the type null.

    Raises:
        NoExampleError: a record is no tf.Example, or a feature holds values of two kinds.
    """
    from google.protobuf.message import DecodeError

    parse = _example_class().FromString
    kinds: dict[str, str | None] = {}
    columns: dict[str, list[Any]] = {}
    for row, record in enumerate(records):
        try:
            features = parse(record).features.feature
        except DecodeError as error:
            raise NoExampleError(str(error)) from None
        for name, feature in features.items():
            kind = feature.WhichOneof("kind")
            if kinds.get(name) is None:
                kinds[name] = kind
                columns[name] = [None] * len(records)
            if kind is not None:
                if kind != kinds[name]:
                    raise NoExampleError(f"the feature {name} has a {kinds[name]} and a {kind}")
                columns[name][row] = getattr(feature, kind).value
    arrays = [_column(kinds[name], columns[name]) for name in sorted(columns)]
    return pa.RecordBatch.from_arrays(arrays, names=sorted(columns))


def _column(kind: str | None, values: list[Any]) -> pa.Array:
    return pa.nulls(len(values)) if kind is None else pa.array(values, pa.list_(KINDS[kind][2]))


@functools.cache
def _example_class() -> Any:
    """The message class, in a pool of its own: TensorFlow may have registered the same names elsewhere."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    fields = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package=PACKAGE, syntax="proto3")

    def add(message: Any, name: str, number: int, type_: str, repeated: bool = False) -> Any:
        field = message.field.add(name=name, number=number, label=fields.LABEL_REPEATED if repeated else 1)
        if type_.startswith("TYPE_"):
            field.type = getattr(fields, type_)
        else:
            field.type, field.type_name = fields.TYPE_MESSAGE, f".{PACKAGE}.{type_}"
        return field

    for list_name, type_, _ in KINDS.values():
        add(file.message_type.add(name=list_name), "value", 1, type_, repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, (list_name, _, _)) in enumerate(KINDS.items(), 1):
        add(feature, name, number, list_name).oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    add(entry, "key", 1, "TYPE_STRING")
    add(entry, "value", 2, "Feature")
    add(features, "feature", 1, "Features.FeatureEntry", repeated=True)
    add(file.message_type.add(name="Example"), "features", 1, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.Example"))
