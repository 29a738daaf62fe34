"""The API: that of the contract tests, and what it lacks."""

import contextlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from kubernetes import client
from kubernetes.client import ApiException

CONTRACT = Path(__file__).resolve().parents[2] / "contract"


def load(path: Path, name: str) -> ModuleType:
    """A module of another folder of tests."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


contract = load(CONTRACT / "kubeflow/conftest.py", "cluster_tests_kubeflow_api")
local_server = load(CONTRACT / "conftest.py", "cluster_tests_local_server")


class Api(contract.Installation):
    """The part of the API that the suite needs beyond the contract tests': what deletes, and logs of real pods."""

    def __init__(self, core: client.CoreV1Api, namespace: str) -> None:
        super().__init__()
        self.namespaces = {namespace}
        self._core = core
        self._namespace = namespace

    def route(self, request: Any) -> Any:
        parts = request.path.removeprefix(contract.API).strip("/").split("/")
        tables = {"runs": self.runs, "experiments": self.experiments, "pipelines": self.pipelines}
        if request.path == "/k8s/pod/logs":
            return self._logs_of_pod(request)
        if request.method != "DELETE" or parts[0] == "recurringruns":
            return super().route(request)
        table = self.versions if "versions" in parts else tables[parts[0]]
        if parts[-1] not in table:
            return contract.error(404, 5, f"Failed to delete: {parts[-1]} not found")
        if parts[0] == "runs":
            delete_pods(self._core, self._namespace, parts[-1])
        del table[parts[-1]]
        return 200, {}

    def _logs_of_pod(self, request: Any) -> Any:
        contract.only(request.query, {"podname", "runid", "podnamespace", "createdat"})
        try:
            return 200, self._core.read_namespaced_pod_log(request.query["podname"], request.query["podnamespace"])
        except ApiException:
            return 500, "Could not get main container logs: Error: Unable to retrieve workflow status"


contract.ROUTES.append(("DELETE", rf"{contract.API}/recurringruns/([^/]+)", contract.Installation.delete_schedule))


def delete_pods(core: client.CoreV1Api, namespace: str, run_id: str) -> None:
    """What Kubernetes does when the workflow of a run goes."""
    for pod in core.list_namespaced_pod(namespace, label_selector=f"pipeline/runid={run_id}").items:
        with contextlib.suppress(ApiException):
            core.delete_namespaced_pod(pod.metadata.name, namespace)


@contextlib.contextmanager
def playing(player: Any, folder: Path) -> Iterator[str]:
    """Serve a player's API on this machine; gives its address."""
    folder.mkdir()
    server = local_server.LocalServer(player.api, None, folder)
    player.api.served = server
    player.start()
    try:
        yield server.url
    finally:
        player.stop()
        server.stop()
        shutil.rmtree(folder)
        assert not server.errors, server.errors
