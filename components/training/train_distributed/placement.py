"""Where and with what the nodes of a training run: the parameters of train_distributed that train_model has not."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kfp_hybrid import images
from kfp_hybrid.components.training.train_distributed.request import RESERVED
from kfp_hybrid.step import StepError

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|[MGTPE]i?)?")


@dataclasses.dataclass(frozen=True)
class Secret:
    """A Kubernetes secret that the pods see, as a target profile describes it.

    Attributes:
        secret: its name.
        env: variable -> key of the secret.
        path: where its keys are files; empty for nowhere.
        optional: whether pods start without it.
    """

    secret: str
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    path: str = ""
    optional: bool = False

    @classmethod
    def parse(cls, given: Any) -> "Secret":
        """Check a secret of the parameter `pod`."""
        values = _table("pod.secrets", given, cls)
        name = _name("pod.secrets", values.get("secret"))
        variables = _variables("pod.secrets", values.get("env") or {})
        path = values.get("path") or ""
        if not variables and not path:
            raise StepError(f"parameter pod.secrets: {name} needs env or path, or the pods would not see it")
        return cls(name, variables, str(path), bool(values.get("optional", False)))


@dataclasses.dataclass(frozen=True)
class Pod:
    """What each pod gets; the parameter `pod` of the component, which describes it."""

    resources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    pull_secrets: Sequence[str] = ()
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: Sequence[Secret] = ()
    checkpoint_claim: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, given: Any) -> "Pod":
        """Check the parameter `pod`.

        Raises:
            StepError: an unknown key, or a value that Kubernetes would not understand.
        """
        values = _table("pod", given, cls)
        claim = values.get("checkpoint_claim", "")
        return cls(
            resources=_quantities(values.get("resources") or {}),
            node_selector=_strings("pod.node_selector", values.get("node_selector") or {}),
            tolerations=[_toleration(item) for item in _list("pod.tolerations", values.get("tolerations"))],
            pull_secrets=[
                _name("pod.pull_secrets", item) for item in _list("pod.pull_secrets", values.get("pull_secrets"))
            ],
            env=_variables("pod.env", values.get("env") or {}),
            secrets=[Secret.parse(item) for item in _list("pod.secrets", values.get("secrets"))],
            checkpoint_claim=_name("pod.checkpoint_claim", claim) if claim else "",
            labels=_strings("pod.labels", values.get("labels") or {}),
        )


@dataclasses.dataclass(frozen=True)
class Placement:
    """The parameters that say where the nodes run; the component describes them."""

    nodes: int
    runtime: str
    image: str
    pod: Pod
    namespace: str
    storage_secret: str
    service_account: str
    timeout_seconds: int

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "Placement":
        """The parameters among the arguments of the component's function, checked.

        Raises:
            StepError: a parameter is out of range.
        """
        values = {field.name: arguments[field.name] for field in dataclasses.fields(cls)}
        if values["nodes"] < 1:
            raise StepError(f"parameter nodes is {values['nodes']}, must be at least 1")
        if values["timeout_seconds"] < 0:
            raise StepError(f"parameter timeout_seconds is {values['timeout_seconds']}, must not be negative")
        _name("runtime", values["runtime"])
        for name in ("namespace", "storage_secret", "service_account"):
            if values[name]:
                _name(name, values[name])
        return cls(**{**values, "pod": Pod.parse(values["pod"]), "image": values["image"] or images.TENSORFLOW})


def _table(where: str, given: Any, model: type) -> Mapping[str, Any]:
    known = [field.name for field in dataclasses.fields(model)]
    if not isinstance(given, Mapping):
        raise StepError(f"parameter {where} is {given!r}, must be a table with any of {', '.join(known)}")
    if unknown := [key for key in given if key not in known]:
        raise StepError(f"parameter {where} has the unknown key {unknown[0]!r}; it takes {', '.join(known)}")
    return given


def _list(where: str, given: Any) -> Sequence[Any]:
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise StepError(f"parameter {where} is {given!r}, must be a list")
    return given


def _name(where: str, given: Any) -> str:
    if not isinstance(given, str) or not _NAME.fullmatch(given):
        raise StepError(f"parameter {where} is {given!r}, must be the name of a Kubernetes object")
    return given


def _strings(where: str, given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping) or not all(isinstance(value, str) for value in given.values()):
        raise StepError(f"parameter {where} is {given!r}, must be a table of strings")
    return dict(given)


def _variables(where: str, given: Any) -> dict[str, str]:
    variables = _strings(where, given)
    for name in variables:
        if not _VARIABLE.fullmatch(name) or name in RESERVED:
            raise StepError(f"parameter {where} sets the variable {name!r}, which it cannot; take another name")
    return variables


def _quantities(given: Any) -> dict[str, str]:
    """Amounts of resources; numbers may arrive as floats, since a pipeline's tables know no integers."""
    if not isinstance(given, Mapping):
        raise StepError(f'parameter pod.resources is {given!r}, must be a table such as {{"cpu": "8"}}')
    amounts = {name: str(value).removesuffix(".0") for name, value in given.items()}
    for name, amount in amounts.items():
        if not _QUANTITY.fullmatch(amount):
            raise StepError(
                f'parameter pod.resources: {name} is {given[name]!r}, must be an amount such as "8" or "32Gi"'
            )
    return amounts


def _toleration(given: Any) -> dict[str, Any]:
    """A toleration as Kubernetes spells it."""
    known = ("key", "operator", "value", "effect", "tolerationSeconds")
    if not isinstance(given, Mapping) or not set(given) <= set(known):
        raise StepError(f"parameter pod.tolerations has {given!r}, must have keys among {', '.join(known)}")
    toleration = {name: value for name, value in given.items() if value is not None}
    if "tolerationSeconds" in toleration:
        toleration["tolerationSeconds"] = int(toleration["tolerationSeconds"])
    return toleration
