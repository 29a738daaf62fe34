"""Says in words where a curated schema and a schema inferred from data differ."""

from collections.abc import Iterable

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from tensorflow_metadata.proto.v0 import schema_pb2

_DOMAIN_FIELDS = schema_pb2.Feature.DESCRIPTOR.oneofs_by_name["domain_info"].fields
_SHAPE_FIELDS = schema_pb2.Feature.DESCRIPTOR.oneofs_by_name["shape_type"].fields
_COMPARED_APART = {"name", "type", *(field.name for field in [*_DOMAIN_FIELDS, *_SHAPE_FIELDS])}
_VALUES_SHOWN = 20


def differences(curated: schema_pb2.Schema, inferred: schema_pb2.Schema) -> list[str]:
    """One line per difference; `-` is only in the curated schema, `+` only in the data, `~` is in both.

    What inference cannot know (thresholds, environments, annotations, ...) is no difference when only the curated
    schema says it.

    Args:
        curated: the schema that somebody wrote or approved.
        inferred: the schema that the data suggest.

    Returns:
        The lines in the order of the curated schema's features, then of the inferred one's.
    """
    old = {feature.name: feature for feature in curated.feature}
    new = {feature.name: feature for feature in inferred.feature}
    lines = [f"- {name}: only in the curated schema ({_summary(old[name])})" for name in old if name not in new]
    for name in old:
        if name in new:
            lines += [f"~ {name}: {line}" for line in _feature(curated, old[name], inferred, new[name])]
    return lines + [f"+ {name}: only in the data ({_summary(new[name])})" for name in new if name not in old]


def _feature(curated: schema_pb2.Schema, old: schema_pb2.Feature, inferred: schema_pb2.Schema, new: schema_pb2.Feature
             ) -> list[str]:  # fmt: skip
    lines = []
    if old.type != new.type:
        lines.append(f"type: curated {_type(old)}, data {_type(new)}")
    lines += _text_domain(_values(curated, old), _values(inferred, new))
    if _chosen(new, _DOMAIN_FIELDS):
        lines += _unequal("domain", _chosen(old, _DOMAIN_FIELDS), _chosen(new, _DOMAIN_FIELDS))
    lines += _unequal("values per row", _chosen(old, _SHAPE_FIELDS), _chosen(new, _SHAPE_FIELDS))
    for field in schema_pb2.Feature.DESCRIPTOR.fields:
        if field.name not in _COMPARED_APART and (_field(new, field.name) or field.name == "presence"):
            lines += _unequal(field.name, _field(old, field.name), _field(new, field.name))
    return lines


def _text_domain(old: list[str] | None, new: list[str] | None) -> list[str]:
    if old is None and new is None:
        return []
    if old is None:
        return [f"domain: curated any text, data {_listed(new or [])}"]
    if new is None:
        return [f"domain: curated {_listed(old)}, data any text"]
    removed, added = [v for v in old if v not in set(new)], [v for v in new if v not in set(old)]
    return [f"domain: only in {where}: {_listed(values)}"
            for where, values in (("the curated schema", removed), ("the data", added)) if values]  # fmt: skip


def _values(schema: schema_pb2.Schema, feature: schema_pb2.Feature) -> list[str] | None:
    """The texts that a feature may hold; None when any may."""
    if feature.HasField("string_domain"):
        return list(feature.string_domain.value)
    return next((list(d.value) for d in schema.string_domain if d.name == feature.domain), None)


def _chosen(feature: schema_pb2.Feature, fields: Iterable[FieldDescriptor]) -> str:
    """The text of a oneof's chosen field; a domain of texts is compared by `_text_domain`."""
    chosen = next((f.name for f in fields if feature.HasField(f.name)), None)
    if chosen is None or chosen in ("domain", "string_domain"):
        return ""
    return f"{chosen} {_field(feature, chosen)}".strip()


def _field(feature: schema_pb2.Feature, name: str) -> str:
    field = feature.DESCRIPTOR.fields_by_name[name]
    value = getattr(feature, name)
    if field.label == field.LABEL_REPEATED:
        return ", ".join(sorted(map(str, value)))
    if not feature.HasField(name):
        return ""
    return f"{{{_short(value)}}}" if isinstance(value, Message) else str(value)


def _unequal(title: str, old: str, new: str) -> list[str]:
    return [] if old == new else [f"{title}: curated {old or 'none'}, data {new or 'none'}"]


def _summary(feature: schema_pb2.Feature) -> str:
    return f"{_type(feature)}, {'required' if feature.presence.min_fraction == 1 else 'optional'}"


def _listed(values: list[str]) -> str:
    more = len(values) - _VALUES_SHOWN
    return ", ".join(values[:_VALUES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _type(feature: schema_pb2.Feature) -> str:
    return str(schema_pb2.FeatureType.Name(feature.type))


def _short(message: Message) -> str:
    return str(text_format.MessageToString(message, as_one_line=True)).strip()
