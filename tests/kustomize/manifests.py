"""Building and reading manifests/: what the unit tests and the tests on a cluster have in common."""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = ("kind", "onprem", "airgapped", "multi-user")
STORES = ("seaweedfs", "minio", "external")
NAMESPACE_OF = {"kind": "kubeflow", "onprem": "kubeflow", "airgapped": "kubeflow", "multi-user": "team-a"}

Object = dict[str, Any]


@functools.cache
def kubectl() -> str:
    """The program; a test that needs it is skipped where there is none."""
    found = shutil.which("kubectl")
    if not found:
        pytest.skip("kubectl is not installed (Debian: apt-get install kubernetes-client)")
    return found


@functools.cache
def build(folder: str) -> list[Object]:
    """The objects of a kustomization below manifests/, or of an absolute folder."""
    done = subprocess.run([kubectl(), "kustomize", MANIFESTS / folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def overlay(name: str) -> list[Object]:
    """The objects of an overlay."""
    return build(f"overlays/{name}")


def with_store(store: str, folder: Path) -> list[Object]:
    """The overlay onprem with another object store.

    Args:
        store: A folder of manifests/object-store.
        folder: Where to write the kustomization.
    """
    manifests = os.path.relpath(MANIFESTS, folder.resolve())
    kustomization = {
        "namespace": "kubeflow",
        "resources": [f"{manifests}/overlays/onprem"],
        "components": [f"{manifests}/object-store/{store}"],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return build(str(folder))


def only(objects: list[Object], kind: str, name: str = "") -> Object:
    """The one object of a kind, and name if given."""
    (found,) = (each for each in objects if each["kind"] == kind and name in ("", each["metadata"]["name"]))
    return found


def pod_specs(item: Object) -> Iterator[Object]:
    """The specs of the pods that an object makes."""
    for value in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        if isinstance(value, dict) and isinstance(value.get("containers"), list):
            yield value
        yield from pod_specs(value)


def containers(objects: list[Object]) -> Iterator[Object]:
    """Every container, those that run first too."""
    for item in objects:
        for spec in pod_specs(item):
            yield from [*spec.get("initContainers", []), *spec["containers"]]
