"""The Roles: exactly the verbs that the components use, read from their source."""

import ast
import functools
import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "kustomize"))

from kfp_hybrid.kubernetes_api.kinds import Kind
from manifests import OVERLAYS, ROOT, only, overlay

# What the methods of `Cluster` send. To apply an object that is not there yet, one may have to create it.
VERBS = {"get": ["get"], "find": ["list"], "apply": ["patch", "create"], "merge": ["patch"], "delete": ["delete"]}
WITHOUT_KIND = {"log": ("", "pods/log", "get"), "warnings": ("", "events", "list")}
COMPONENTS = {
    "kfp-hybrid-deployer": "components/deployment/deploy_model",
    "kfp-hybrid-trainer": "components/training/train_distributed",
}


class Source:
    """A module, and the calls of a `Cluster` in it.

    Attributes:
        calls: The calls of methods of something that is named cluster.
    """

    def __init__(self, file):
        self._file = file
        self._tree = ast.parse(file.read_text())
        self.calls = [node for node in ast.walk(self._tree) if isinstance(node, ast.Call) and is_of_cluster(node.func)]

    @functools.cached_property
    def _module(self):
        return importlib.import_module(".".join(["kfp_hybrid", *self._file.relative_to(ROOT).with_suffix("").parts]))

    def rights(self):
        """What the calls need, as (group, resource, verb)."""
        for call in self.calls:
            method = call.func.attr
            if method in WITHOUT_KIND:
                yield WITHOUT_KIND[method]
            for verb in VERBS.get(method, ()):
                yield from ((*group_and_plural(kind), verb) for kind in self._kinds(call.args[0]))

    def _kinds(self, argument):
        """A constant is itself; a variable may be any kind that is handed around, and not named in a call itself."""
        if kind := self._constant(argument):
            return [kind]
        direct = {id(call.args[0]) for call in self.calls if call.args}
        names = [node for node in ast.walk(self._tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
        return {kind for node in names if id(node) not in direct and (kind := self._constant(node))}

    def _constant(self, node):
        value = getattr(self._module, getattr(node, "id", ""), None)
        return value if isinstance(value, Kind) else None


def is_of_cluster(function):
    if not isinstance(function, ast.Attribute):
        return False
    return (getattr(function.value, "id", "") or getattr(function.value, "attr", "")).lstrip("_") == "cluster"


def group_and_plural(kind):
    return kind.api_version.rpartition("/")[0], kind.plural


def granted(role):
    return {
        (group, resource, verb)
        for rule in only(overlay("onprem"), "Role", role)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("role", COMPONENTS)
def test_a_role_has_the_verbs_that_its_component_uses_and_no_others(role):
    used = {right for file in (ROOT / COMPONENTS[role]).glob("*.py") for right in Source(file).rights()}
    assert used == granted(role)


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_role_has_wildcards_or_reads_secrets_other_than_the_stores(name):
    for role in (each for each in overlay(name) if each["kind"] == "Role"):
        for rule in role["rules"]:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
            if "secrets" in rule["resources"]:
                assert rule["verbs"] == ["get"]
                assert rule["resourceNames"] == ["mlpipeline-minio-artifact", "object-store"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_runs_may_train_and_only_the_deployer_may_change_what_is_served(name):
    accounts = {}
    for binding in (each for each in overlay(name) if each["kind"] == "RoleBinding"):
        for subject in binding["subjects"]:
            only(overlay(name), "ServiceAccount", subject["name"])
            assert subject["namespace"] == binding["metadata"]["namespace"]
            accounts.setdefault(subject["name"], set()).add(binding["roleRef"]["name"])
    assert accounts == {
        "kfp-hybrid-runner": {"kfp-hybrid-runner", "kfp-hybrid-trainer"},
        "kfp-hybrid-deployer": {"kfp-hybrid-runner", "kfp-hybrid-trainer", "kfp-hybrid-deployer"},
        "kfp-hybrid-installer": {"kfp-hybrid-installer"},
    }
