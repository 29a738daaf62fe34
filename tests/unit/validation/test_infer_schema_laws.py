"""Laws of schema overrides and differences."""

import copy

from hypothesis import given
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import schema_pb2

from kfp_hybrid.components.data_validation.infer_schema.differences import differences
from kfp_hybrid.components.data_validation.infer_schema.overrides import merge

NAMES = ["a", "b", "c"]
texts = st.sampled_from(["x", "y", "z", "<&>", "ä"])
fractions = st.floats(min_value=0, max_value=1)


@st.composite
def feature(draw: st.DrawFn, name: str) -> schema_pb2.Feature:
    one = schema_pb2.Feature(name=name)
    if draw(st.booleans()):
        one.type = draw(st.sampled_from([schema_pb2.BYTES, schema_pb2.INT, schema_pb2.FLOAT]))
    if draw(st.booleans()):
        one.presence.min_fraction = draw(fractions)
    if draw(st.booleans()):
        one.presence.min_count = draw(st.integers(0, 5))
    domain = draw(st.sampled_from(["", "string", "named", "int", "bool", "float"]))
    if domain == "string":
        one.string_domain.value.extend(draw(st.lists(texts, unique=True)))
    elif domain == "named":
        one.domain = draw(st.sampled_from(NAMES))
    elif domain == "int":
        one.int_domain.min = draw(st.integers(-9, 9))
    elif domain == "bool":
        one.bool_domain.SetInParent()
    elif domain == "float":
        one.float_domain.max = draw(fractions)
    shape = draw(st.sampled_from(["", "shape", "count"]))
    if shape == "shape":
        one.shape.dim.add(size=draw(st.integers(1, 3)))
    elif shape == "count":
        one.value_count.max = draw(st.integers(1, 3))
    if draw(st.booleans()):
        one.drift_comparator.infinity_norm.threshold = draw(fractions)
    one.not_in_environment.extend(draw(st.lists(st.sampled_from(["SERVING", "TRAINING"]), unique=True)))
    return one


@st.composite
def schemas(draw: st.DrawFn) -> schema_pb2.Schema:
    schema = schema_pb2.Schema()
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        schema.feature.append(draw(feature(name)))
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        schema.string_domain.add(name=name, value=draw(st.lists(texts, unique=True)))
    schema.default_environment.extend(draw(st.lists(st.sampled_from(["SERVING", "TRAINING"]), unique=True)))
    return schema


def merged(schema: schema_pb2.Schema, override: schema_pb2.Schema) -> schema_pb2.Schema:
    result = copy.deepcopy(schema)
    merge(result, override)
    return result


@given(schemas(), schemas())
def test_merging_an_override_twice_is_merging_it_once(schema: schema_pb2.Schema, override: schema_pb2.Schema) -> None:
    once = merged(schema, override)
    assert merged(once, override) == once


@given(schemas())
def test_an_empty_override_changes_nothing_and_a_schema_overrides_itself(schema: schema_pb2.Schema) -> None:
    assert merged(schema, schema_pb2.Schema()) == schema
    assert merged(schema, schema) == schema
    assert merged(schema_pb2.Schema(), schema) == schema


@given(schemas(), schemas())
def test_every_field_that_the_override_sets_wins(schema: schema_pb2.Schema, override: schema_pb2.Schema) -> None:
    result = merged(schema, override)
    names = [f.name for f in result.feature]
    assert len(names) == len(set(names))
    by_name = {f.name: f for f in result.feature}
    for wanted in override.feature:
        got = by_name[wanted.name]
        for field, value in wanted.ListFields():
            if field.message_type is None:
                assert getattr(got, field.name) == value
        assert not wanted.presence.HasField("min_fraction") or (
            got.presence.min_fraction == wanted.presence.min_fraction
        )
        assert wanted.WhichOneof("domain_info") in (None, got.WhichOneof("domain_info"))


@given(schemas(), schemas())
def test_features_that_the_override_does_not_name_stay(schema: schema_pb2.Schema, override: schema_pb2.Schema) -> None:
    named = {f.name for f in override.feature}
    before = [f for f in schema.feature if f.name not in named]
    after = [f for f in merged(schema, override).feature if f.name not in named]
    assert after == before


@given(schemas())
def test_a_schema_does_not_differ_from_itself(schema: schema_pb2.Schema) -> None:
    assert differences(schema, schema) == []


@given(schemas(), schemas())
def test_features_on_one_side_only_are_reported_on_the_right_side(
    curated: schema_pb2.Schema, inferred: schema_pb2.Schema
) -> None:
    lines = differences(curated, inferred)
    old, new = {f.name for f in curated.feature}, {f.name for f in inferred.feature}
    assert {line[2] for line in lines if line.startswith("- ")} == old - new
    assert {line[2] for line in lines if line.startswith("+ ")} == new - old
    assert {line[2] for line in lines if line.startswith("~ ")} <= old & new
