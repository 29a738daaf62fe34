"""What a user demands of the data beyond what inference sees: checked first, then put into the schema."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from kfp_hybrid.step import StepError

TRAINING = "TRAINING"
_NUMERIC = (schema_pb2.INT, schema_pb2.FLOAT)


def check(constraints: Mapping[str, Any], features: Mapping[str, int]) -> None:
    """Check the constraints before anything expensive.

    Args:
        constraints: see `docs.md` of the component.
        features: the features that the data have, and their types (`FeatureNameStatistics.Type`).

    Raises:
        StepError: an unknown key or feature, a value of the wrong form, or one that does not fit the feature's type.
    """
    _known(constraints, [*DEFAULTS, "features", "environments"], "key", "constraints")
    for key in DEFAULTS.keys() & constraints.keys():
        _check_value(key, constraints[key], f"constraints.{key}")
    for name, wanted in _mapping(constraints, "features").items():
        where = f"constraints.features.{name}"
        _known([name], features, "feature", "constraints.features")
        if not isinstance(wanted, Mapping):
            raise StepError(f'{where} is {wanted!r}; give it as an object like {{"required": true}}')
        _known(wanted, FEATURE_KEYS, "key", where)
        for key, value in wanted.items():
            _check_value(key, value, f"{where}.{key}")
            _check_type(key, value, features[name], f"{where}.{key}")
        _check_together(wanted, where)
    _check_environments(_mapping(constraints, "environments"), features)


def apply(constraints: Mapping[str, Any], schema: schema_pb2.Schema) -> None:
    """Put checked constraints into a schema.

    Args:
        constraints: constraints that passed `check`.
        schema: the schema to change.
    """
    wanted = constraints.get("features", {})
    for feature in schema.feature:
        defaults = {key: constraints[key] for key in DEFAULTS if key in constraints}
        own = wanted.get(feature.name, {})
        for key, put in FEATURE_KEYS.items():
            if key in own:
                put(schema, feature, own[key])
            elif key in defaults and DEFAULTS[key](feature):
                put(schema, feature, defaults[key])
    _put_environments(constraints.get("environments", {}), schema)


def _put_environments(environments: Mapping[str, Any], schema: schema_pb2.Schema) -> None:
    if not environments:
        return
    # Without a default environment that has all features, nothing would say what training data look like.
    names = dict.fromkeys([*schema.default_environment, TRAINING, *environments])
    schema.default_environment[:] = list(names)
    for name, environment in environments.items():
        for feature in schema.feature:
            if feature.name in environment.get("without", []) and name not in feature.not_in_environment:
                feature.not_in_environment.append(name)


def _put_required(schema: schema_pb2.Schema, feature: schema_pb2.Feature, required: bool) -> None:
    if required:
        feature.presence.min_fraction = 1.0
        feature.presence.min_count = 1
    else:
        feature.ClearField("presence")
        _let_values_be_missing(feature)


def _put_max_missing(schema: schema_pb2.Schema, feature: schema_pb2.Feature, fraction: float) -> None:
    feature.presence.min_fraction = 1.0 - fraction
    feature.presence.min_count = 1
    if fraction > 0:
        _let_values_be_missing(feature)


def _let_values_be_missing(feature: schema_pb2.Feature) -> None:
    """A fixed shape demands a value in every row; say "one value where there is any" instead."""
    if feature.HasField("shape"):
        feature.value_count.min = feature.value_count.max = 1


def _put_domain(schema: schema_pb2.Schema, feature: schema_pb2.Feature, values: list[str]) -> None:
    _drop_domain(schema, feature)
    if values:
        feature.domain = feature.name
        schema.string_domain.add(name=feature.name, value=values)


def _drop_domain(schema: schema_pb2.Schema, feature: schema_pb2.Feature) -> None:
    name = feature.domain
    feature.ClearField("domain")
    if name and not any(other.domain == name for other in schema.feature):
        kept = [domain for domain in schema.string_domain if domain.name != name]
        del schema.string_domain[:]
        schema.string_domain.extend(kept)


def _put_min_domain_mass(schema: schema_pb2.Schema, feature: schema_pb2.Feature, fraction: float) -> None:
    feature.distribution_constraints.min_domain_mass = fraction


def _put_range(schema: schema_pb2.Schema, feature: schema_pb2.Feature, bounds: list[float]) -> None:
    _put_min(schema, feature, bounds[0])
    _put_max(schema, feature, bounds[1])


def _put_min(schema: schema_pb2.Schema, feature: schema_pb2.Feature, bound: float) -> None:
    if feature.type == schema_pb2.INT:
        feature.int_domain.min = int(bound)
    else:
        feature.float_domain.min = bound


def _put_max(schema: schema_pb2.Schema, feature: schema_pb2.Feature, bound: float) -> None:
    if feature.type == schema_pb2.INT:
        feature.int_domain.max = int(bound)
    else:
        feature.float_domain.max = bound


def _put_drift_threshold(schema: schema_pb2.Schema, feature: schema_pb2.Feature, threshold: float) -> None:
    feature.ClearField("drift_comparator")
    _put_threshold(feature, "drift_comparator", threshold)


def _put_skew_threshold(schema: schema_pb2.Schema, feature: schema_pb2.Feature, threshold: float) -> None:
    feature.ClearField("skew_comparator")
    _put_threshold(feature, "skew_comparator", threshold)


def _put_threshold(feature: schema_pb2.Feature, comparator: str, threshold: float) -> None:
    """Compare text by L-infinity and numbers by Jensen-Shannon; neither exceeds 1, so 1 means no comparison."""
    if threshold < 1:
        measure = "jensen_shannon_divergence" if feature.type in _NUMERIC else "infinity_norm"
        getattr(getattr(feature, comparator), measure).threshold = threshold


def _has_text_domain(feature: schema_pb2.Feature) -> bool:
    return bool(feature.domain) or feature.HasField("string_domain")


def _always(feature: schema_pb2.Feature) -> bool:
    return True


# The order matters: a feature's domain is settled before the defaults ask whether it has one.
FEATURE_KEYS: dict[str, Callable[[schema_pb2.Schema, schema_pb2.Feature, Any], None]] = {
    "required": _put_required,
    "max_missing": _put_max_missing,
    "domain": _put_domain,
    "min_domain_mass": _put_min_domain_mass,
    "range": _put_range,
    "min": _put_min,
    "max": _put_max,
    "drift_threshold": _put_drift_threshold,
    "skew_threshold": _put_skew_threshold,
}
# Keys that may stand at the top as a default, and the features each applies to.
DEFAULTS: dict[str, Callable[[schema_pb2.Feature], bool]] = {
    "min_domain_mass": _has_text_domain,
    "drift_threshold": _always,
    "skew_threshold": _always,
}


def _check_environments(environments: Mapping[str, Any], features: Collection[str]) -> None:
    for name, environment in environments.items():
        where = f"constraints.environments.{name}"
        if not isinstance(environment, Mapping):
            raise StepError(f'{where} is {environment!r}; give it as an object like {{"without": ["label"]}}')
        _known(environment, ["without"], "key", where)
        without = environment.get("without", [])
        if not isinstance(without, list):
            raise StepError(f"{where}.without is {without!r}; give it as a list of features")
        _known(without, features, "feature", f"{where}.without")


def _check_value(key: str, value: Any, where: str) -> None:
    if key == "required":
        fits, form = isinstance(value, bool), "true or false"
    elif key == "domain":
        fits, form = isinstance(value, list) and all(isinstance(v, str) for v in value), "a list of texts"
    elif key == "range":
        fits = isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]
        form = "two numbers [lowest, highest]"
    elif key in ("min", "max"):
        fits, form = _is_number(value), "a number"
    else:
        fits, form = _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"
    if not fits:
        raise StepError(f"{where} is {value!r}; it must be {form}")


def _check_type(key: str, value: Any, type_: int, where: str) -> None:
    number = type_ in (statistics_pb2.FeatureNameStatistics.INT, statistics_pb2.FeatureNameStatistics.FLOAT)
    if key in ("domain", "min_domain_mass") and number:
        raise StepError(f"{where} is for text, and the feature holds numbers; use range, min or max")
    if key not in ("range", "min", "max"):
        return
    if not number:
        raise StepError(f"{where} is for numbers, and the feature holds text; use domain")
    if type_ == statistics_pb2.FeatureNameStatistics.INT:
        for bound in value if key == "range" else [value]:
            if bound != int(bound):
                raise StepError(f"{where} is {value!r}, and the feature holds whole numbers; give whole numbers")


def _check_together(wanted: Mapping[str, Any], where: str) -> None:
    if wanted.get("required") and wanted.get("max_missing", 0) > 0:
        raise StepError(f"{where} is required and may be missing (max_missing); drop one of the two")
    if "required" in wanted and not wanted["required"] and "max_missing" in wanted:
        raise StepError(f"{where} is not required and has max_missing; drop one of the two")
    if "range" in wanted and ("min" in wanted or "max" in wanted):
        raise StepError(f"{where} has range and also min or max; drop one of them")


def _known(names: Iterable[str], valid: Collection[str], what: str, where: str) -> None:
    for name in names:
        if name not in valid:
            raise StepError(f"unknown {what} {name!r} in {where}; valid: {', '.join(map(str, valid))}")


def _mapping(constraints: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = constraints.get(key, {})
    if not isinstance(value, Mapping):
        raise StepError(f"constraints.{key} is {value!r}; give it as an object from names to objects")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
