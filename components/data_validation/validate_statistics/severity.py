"""Decides which anomalies are errors, which are warnings and which are nothing."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2

from kfp_hybrid.step import StepError

ERROR, WARNING, IGNORE = "error", "warning", "ignore"
LEVELS = (ERROR, WARNING, IGNORE)
KINDS = tuple(anomalies_pb2.AnomalyInfo.Type.keys())

# Distances between data sets say that something changed, not that it is wrong, and nothing reads a column that the
# schema does not know. Everything else breaks a promise that the schema makes to training and serving.
DEFAULT_WARNINGS = frozenset(
    {
        "COMPARATOR_CONTROL_DATA_MISSING",
        "COMPARATOR_TREATMENT_DATA_MISSING",
        "COMPARATOR_L_INFTY_HIGH",
        "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH",
        "COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH",
        "COMPARATOR_LOW_NUM_EXAMPLES",
        "COMPARATOR_HIGH_NUM_EXAMPLES",
        "SCHEMA_NEW_COLUMN",
        "SCHEMA_TRAINING_SERVING_SKEW",
        "SEMANTIC_DOMAIN_UPDATE",
    }
)


def severity_of(overrides: Mapping[str, Any], features: Iterable[str]) -> Callable[[str, str], str]:
    """The function that gives an anomaly its severity.

    Args:
        overrides: severities by kind of anomaly, by feature, or by feature and kind: {"COMPARATOR_L_INFTY_HIGH":
            "error", "visib": "ignore", "dest": {"ENUM_TYPE_UNEXPECTED_STRING_VALUES": "warning"}}. The most particular
            one wins: feature and kind, then feature, then kind, then the default.
        features: the names of all features.

    Returns:
        A function of the feature's name and the kind of the anomaly that returns "error", "warning" or "ignore".

    Raises:
        StepError: an unknown feature, kind or severity.
    """
    known = set(features)
    for name, level in overrides.items():
        if name not in known and name not in KINDS:
            raise StepError(_unknown(name, "feature or kind of anomaly", [*known, *KINDS], "severity"))
        if isinstance(level, Mapping):
            if name not in known:
                raise StepError(f"severity[{name!r}] is an object, and {name} is no feature; give one of "
                                f"{', '.join(LEVELS)}")  # fmt: skip
            for kind, one in level.items():
                if kind not in KINDS:
                    raise StepError(_unknown(kind, "kind of anomaly", KINDS, f"severity[{name!r}]"))
                _check_level(one, f"severity[{name!r}][{kind!r}]")
        else:
            _check_level(level, f"severity[{name!r}]")

    def severity(feature: str, kind: str) -> str:
        of_feature = overrides.get(feature) if feature in known else None
        if isinstance(of_feature, Mapping):
            of_feature = of_feature.get(kind)
        return str(of_feature or overrides.get(kind) or (WARNING if kind in DEFAULT_WARNINGS else ERROR))

    return severity


def _check_level(level: object, where: str) -> None:
    if level not in LEVELS:
        raise StepError(f"{where} is {level!r}; it must be one of: {', '.join(LEVELS)}")


def _unknown(name: str, what: str, valid: Iterable[str], where: str) -> str:
    close = difflib.get_close_matches(name, list(valid), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "the kinds are listed in the component's documentation"
    return f"unknown {what} {name!r} in {where}; {hint}"
