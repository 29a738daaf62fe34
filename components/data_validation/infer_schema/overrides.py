"""Merges a partial schema into a schema: feature by feature, and the override wins."""

from collections.abc import Iterable

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from tensorflow_metadata.proto.v0 import schema_pb2

from kfp_hybrid.step import StepError


def check(overrides: schema_pb2.Schema, features: Iterable[str]) -> None:
    """Check that the overrides speak of features that the data have.

    Raises:
        StepError: an override has no name, or the name of no feature.
    """
    valid = list(features)
    for feature in overrides.feature:
        if feature.name not in valid:
            raise StepError(f"unknown feature {feature.name!r} in schema_overrides; valid: {', '.join(valid)}")


def merge(schema: Message, override: Message) -> None:
    """Put every field that `override` sets into `schema`, in place.

    Unlike protobuf's own `MergeFrom`, merging twice is the same as merging once: elements that have a name (features,
    domains) are merged with the element of that name, any other list replaces the list that was there.

    Args:
        schema: a schema, or a message inside one.
        override: a message of the same type; fields it does not set stay as they are.
    """
    for field, value in override.ListFields():
        if field.label != FieldDescriptor.LABEL_REPEATED:
            if field.message_type is None:
                setattr(schema, field.name, value)
            else:
                getattr(schema, field.name).SetInParent()
                merge(getattr(schema, field.name), value)
        elif field.message_type is not None and "name" in field.message_type.fields_by_name:
            _merge_named(getattr(schema, field.name), value)
        else:
            schema.ClearField(field.name)
            getattr(schema, field.name).MergeFrom(value)


def _merge_named(elements: "list[Message]", overrides: "Iterable[Message]") -> None:
    by_name = {element.name: element for element in elements}  # type: ignore[attr-defined]
    for override in overrides:
        if override.name not in by_name:  # type: ignore[attr-defined]
            by_name[override.name] = elements.add()  # type: ignore[attr-defined]
        merge(by_name[override.name], override)  # type: ignore[attr-defined]


def comparators_that_measure_nothing(schema: schema_pb2.Schema) -> list[str]:
    """Names of the numeric features whose drift or skew is to be compared value by value.

    TFDV measures L-infinity and normalized absolute difference on the counts of values, which statistics of numbers do
    not have: the distance would always be 0, and drift would go unseen.
    """
    return [feature.name for feature in schema.feature
            if feature.type in (schema_pb2.INT, schema_pb2.FLOAT) and not feature.int_domain.is_categorical
            and any(_compares_values(c) for c in (feature.drift_comparator, feature.skew_comparator))]  # fmt: skip


def _compares_values(comparator: schema_pb2.FeatureComparator) -> bool:
    return comparator.HasField("infinity_norm") or comparator.HasField("normalized_abs_difference")
