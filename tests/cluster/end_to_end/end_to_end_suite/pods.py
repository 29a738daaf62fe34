"""The pods of runs: seen while they are there, and what must hold for them."""

import base64
import json
import re
import threading
from typing import Any

from kubernetes.client import ApiException, CoreV1Api

RUN_LABEL = "pipeline/runid"
NODE = "workflows.argoproj.io/node-name"
MAIN = "main"
Pod = dict[str, Any]


class Pods(threading.Thread):
    """Keeps what pods of the suite's runs look like; an installation may delete them as soon as they have ended."""

    def __init__(self, core: CoreV1Api, namespace: str, run_ids: list[str]) -> None:
        super().__init__(daemon=True)
        self._core = core
        self._namespace = namespace
        self._run_ids = run_ids
        self._seen: dict[str, Pod] = {}
        self._stopping = threading.Event()

    def run(self) -> None:
        """Look, again and again."""
        while not self._stopping.wait(1):
            self.look()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self.join()

    def look(self) -> None:
        """Look once."""
        if not self._run_ids:
            return
        selector = f"{RUN_LABEL} in ({','.join(self._run_ids)})"
        try:
            answer = self._core.list_namespaced_pod(self._namespace, label_selector=selector, _preload_content=False)
        except ApiException as error:
            if error.status < 500:
                raise
            return
        for pod in json.loads(answer.data)["items"]:
            self._seen[pod["metadata"]["uid"]] = pod

    def of(self, run_id: str, step: str = "") -> list[Pod]:
        """All pods of a run so far, or of the program of one of its steps, the oldest first."""
        self.look()
        found = [pod for pod in self._seen.values() if pod["metadata"]["labels"][RUN_LABEL] == run_id]
        found = [pod for pod in found if not step or step_of(pod) == step]
        return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def running(self, run_id: str, step: str) -> Pod | None:
        """The pod in which a step runs now."""
        return next((pod for pod in self.of(run_id, step) if _main_runs(pod)), None)

    def delete(self, pod: Pod, *, at_once: bool) -> None:
        """Delete a pod: as a drained node does, or at once, as when a node is lost."""
        grace = {"grace_period_seconds": 0} if at_once else {}
        self._core.delete_namespaced_pod(pod["metadata"]["name"], self._namespace, **grace)

    def left(self, run_id: str) -> list[str]:
        """The pods of a run that have not ended."""
        selector = f"{RUN_LABEL}={run_id}"
        pods = self._core.list_namespaced_pod(self._namespace, label_selector=selector).items
        return [pod.metadata.name for pod in pods if pod.status.phase in ("Pending", "Running")]

    def logs(self, pod: Pod) -> str:
        """What all containers of a pod have printed; "" when it is gone."""
        name = pod["metadata"]["name"]
        texts = []
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            try:
                texts.append(
                    self._core.read_namespaced_pod_log(name, self._namespace, container=container["name"]) or ""
                )
            except ApiException as error:
                if error.status not in (400, 404):  # it did not start; it is gone
                    raise
        return "\n".join(texts)


def step_of(pod: Pod) -> str:
    """The step whose program a pod runs; "" for the pods in which Kubeflow Pipelines prepares steps.

    What is tried again has numbers: until Kubeflow Pipelines 2.16 steps with retries, then everything.
    """
    node = pod["metadata"].get("annotations", {}).get(NODE, "")
    found = re.search(r"\.([^.()]+)(\(\d+\))?\.executor(\(\d+\))?$", node)
    return found[1] if found else ""


def rights_of_root(pod: Pod) -> list[str]:
    """What lets a pod do more than it must; nothing for one that is confined."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    whole = spec.get("securityContext") or {}
    found = [f"{name}: {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    found += [f"{name}: a folder of the node" for volume in spec.get("volumes", []) if "hostPath" in volume]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own = container.get("securityContext") or {}
        context = {**whole, **own}
        where = f"{name}, container {container['name']}"
        if context.get("runAsUser") == 0:
            found.append(f"{where}: runAsUser 0")
        if own.get("privileged"):
            found.append(f"{where}: privileged")
        if container["name"] != MAIN:
            continue  # those of Argo: its own defaults
        if not context.get("runAsNonRoot"):
            found.append(f"{where}: runAsNonRoot is not set")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append(f"{where}: allowPrivilegeEscalation is not false")
        if (own.get("capabilities") or {}).get("drop") != ["ALL"]:
            found.append(f"{where}: capabilities are not dropped")
        if (context.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.append(f"{where}: no seccomp profile")
    return found


class Secrets(frozenset[str]):
    """Values that must not be seen, nor in what pytest prints of a failure."""

    def __repr__(self) -> str:
        return f"{len(self)} secrets"


def shown_secrets(text: str, secrets: Secrets) -> bool:
    """Whether a text holds a secret, as it is or in base64."""
    forms = {form for secret in secrets for form in (secret, base64.b64encode(secret.encode()).decode().rstrip("="))}
    return any(form in text for form in forms)


def _main_runs(pod: Pod) -> bool:
    states = {each["name"]: each["state"] for each in pod["status"].get("containerStatuses", [])}
    return "running" in states.get(MAIN, {}) and "deletionTimestamp" not in pod["metadata"]
