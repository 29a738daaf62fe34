"""The names that deploy_model gives to what it makes, and the marks it leaves on it."""

import hashlib
import json
from typing import Any

MANAGER = "kfp-hybrid"  # the field manager, and the value of the label that says whose an object is
MANAGED_BY = "app.kubernetes.io/managed-by"
SERVICE = "kfp-hybrid/service"
TRACK = "kfp-hybrid/track"

REVISION = "kfp-hybrid/revision"  # on the pods too: tells the pods of one model from those of another
MODEL_URI = "kfp-hybrid/model-uri"
MODEL_VERSION = "kfp-hybrid/model-version"
MODEL_DIGEST = "kfp-hybrid/model-digest"
RUN = "kfp-hybrid/run"
ROLLED_BACK = "kfp-hybrid/rolled-back-from"
APPLIED = "kfp-hybrid/applied"  # what was asked for, to ask for it again with other numbers
PREVIOUS = "kfp-hybrid/previous"  # the same of the model before
REPLICAS = "kfp-hybrid/replicas"  # the number of pods without a canary

LABELS = {MANAGED_BY: MANAGER}


def fingerprint(*parts: Any) -> str:
    """Ten characters that stand for JSON values: equal for equal values, whatever the order of their keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def annotations_of(item: dict[str, Any] | None) -> dict[str, str]:
    """The annotations of an object; none where there is no object."""
    return (item or {}).get("metadata", {}).get("annotations") or {}
