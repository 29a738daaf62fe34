"""Plays KServe on a cluster that has none: the kinds of objects, and a controller that answers like KServe's.

What it does with revisions, traffic and status follows KServe's own controller step by step, in the order of its
reconciliation, also where that surprises: observedGeneration counts the changes of an object that KServe makes,
requests for "the newest revision" go to the newest that is ready, and a model that had all requests and is then given
none takes two rounds to be withdrawn. The pods are real ones.

A storage URI with `missing` fails in the storage initializer, `broken` in the server, `unschedulable` finds no node;
a runtime that is not there, or that does not know the format of the model, is refused. Pods are those of the runtime;
without one, they are those of KServe's own for TensorFlow Serving.
"""

import json
import threading
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client
from kubernetes.client import ApiException

ISVC = ("serving.kserve.io", "v1beta1", "inferenceservices")
RUNTIME = ("serving.kserve.io", "v1alpha1", "servingruntimes")
REVISION = ("serving.knative.dev", "v1", "revisions")
MODELS = "/mnt/models"
LABEL = "serving.kserve.io/inferenceservice"
MODE = "serving.kserve.io/deploymentMode"
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def definitions() -> list[dict[str, Any]]:
    """The kinds of objects; of the fields, those by whose types an apply tells one manager's from another's."""
    predictor = {
        **ANYTHING,
        "properties": {
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            "canaryTrafficPercent": {"type": "integer"},
            "logger": ANYTHING,
            "maxReplicas": {"type": "integer"},
            "minReplicas": {"type": "integer"},
            "model": ANYTHING,
            "serviceAccountName": {"type": "string"},
        },
    }
    spec = {"type": "object", "properties": {"predictor": predictor}}
    return [
        _definition(*ISVC, "InferenceService", spec),
        _definition(*RUNTIME, "ServingRuntime", ANYTHING),
        _definition(*REVISION, "Revision", ANYTHING),
    ]


def _definition(group: str, version: str, plural: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": spec, "status": ANYTHING}}
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    names = {"kind": kind, "plural": plural, "singular": kind.lower()}
    return {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [served]},
    }


def merge_patch(
    api: client.ApiClient, kind: tuple[str, str, str], namespace: str, name: str, body: dict[str, Any], manager: str
) -> None:
    """Change fields of a custom object as `kubectl patch --type=merge` does."""
    api.call_api(
        f"/apis/{kind[0]}/{kind[1]}/namespaces/{namespace}/{kind[2]}/{name}",
        "PATCH",
        query_params=[("fieldManager", manager)],
        header_params={"Content-Type": "application/merge-patch+json"},
        auth_settings=["BearerToken"],
        body=body,
    )


@dataclass
class Revision:
    """A revision that was made, and whether its pod was ready once."""

    name: str
    template: str
    ready: bool = False


@dataclass
class Known:
    """What the controller remembers of an InferenceService."""

    revisions: list[Revision] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    changes: int = 0


class Controller(threading.Thread):
    """Answers to the InferenceServices of one namespace.

    Args:
        api: A connection as administrator.
        namespace: The namespace.
        image: The image of the tiny model server.
        lag: How long it looks away after a change, in seconds.
    """

    def __init__(self, api: client.ApiClient, namespace: str, image: str, lag: float = 0.0) -> None:
        super().__init__(daemon=True)
        self._api = api
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._apps = client.AppsV1Api(api)
        self._namespace = namespace
        self._image = image
        self._lag = lag
        self._generations: dict[str, int] = {}
        self._known: dict[str, Known] = {}
        self._ended = threading.Event()
        self.splits: list[dict[str, int]] = []  # every distribution of requests that there was, in order

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Reconcile everything, again and again."""
        while not self._ended.wait(0.1):
            try:
                for item in self._custom.list_namespaced_custom_object(*ISVC[:2], self._namespace, ISVC[2])["items"]:
                    self._reconcile(item)
            except ApiException as error:
                # It was deleted or changed, the namespace is going away, or the API server has too much to do.
                if error.status not in (403, 404, 409, 429) and error.status < 500:
                    raise

    def _reconcile(self, item: dict[str, Any]) -> None:
        name, generation = item["metadata"]["name"], item["metadata"]["generation"]
        if self._generations.get(name) != generation:
            self._generations[name] = generation
            self._ended.wait(self._lag)
        known = self._known.setdefault(name, Known())
        before = item.get("status") or {}
        mode = before.get("deploymentMode") or item["metadata"].get("annotations", {}).get(MODE, "Knative")
        if not self._is_supported(item["spec"]["predictor"]["model"]):
            status = self._refused(mode)
        elif mode == "RawDeployment":
            status = self._raw(item, known)
        else:
            status = self._knative(item, known, before)
        if status != before:
            body = {"status": status | {key: None for key in before if key not in status}}
            merge_patch(self._api, ISVC, self._namespace, f"{name}/status", body, "kserve-controller")

    def _refused(self, mode: str) -> dict[str, Any]:
        info = {"reason": "RuntimeNotRecognized", "message": "Specified runtime does not exist"}
        model = {"transitionStatus": "InvalidSpec", "lastFailureInfo": info}
        conditions = [{"type": "PredictorReady", "status": "False", "reason": "ReconcileFailed"}]
        return {"deploymentMode": mode, "modelStatus": model, "conditions": conditions}

    def _is_supported(self, model: dict[str, Any]) -> bool:
        if "runtime" not in model:
            return model["modelFormat"]["name"] == "tensorflow"
        try:
            runtime = self._runtime(model["runtime"])
        except ApiException as error:
            if error.status == 404:
                return False
            raise
        return model["modelFormat"]["name"] in [each["name"] for each in runtime["supportedModelFormats"]]

    def _runtime(self, name: str) -> dict[str, Any]:
        return self._custom.get_namespaced_custom_object(*RUNTIME[:2], self._namespace, RUNTIME[2], name)["spec"]

    # ------------------------------------------------------------------------------------------------- Knative

    def _knative(self, item: dict[str, Any], known: Known, before: dict[str, Any]) -> dict[str, Any]:
        service = item["metadata"]["name"]
        predictor = dict(item["spec"]["predictor"])
        share = predictor.pop("canaryTrafficPercent", None)
        annotations = item["metadata"].get("annotations", {}) | predictor.get("annotations", {})
        template = json.dumps([annotations, predictor], sort_keys=True)
        old = before.get("components", {}).get("predictor", {})
        targets = _targets(share, old.get("latestRolledoutRevision", ""))
        if not known.revisions or known.revisions[-1].template != template:
            revision = Revision(f"{service}-predictor-{len(known.revisions) + 1:05d}", template)
            self._make_revision(service, revision.name, annotations, predictor)
            known.revisions.append(revision)
            known.changes += 1
        known.changes += known.targets != targets
        known.targets = targets
        pod = self._core.read_namespaced_pod(f"{known.revisions[-1].name}-deployment-0", self._namespace)
        known.revisions[-1].ready |= _is_ready(pod)
        return self._knative_status(service, known, pod, dict(old))

    def _knative_status(self, service: str, known: Known, pod: Any, seen: dict[str, Any]) -> dict[str, Any]:
        newest = known.revisions[-1]
        ready = next((each.name for each in reversed(known.revisions) if each.ready), "")
        traffic = [target | {"revisionName": target.get("revisionName", ready)} for target in known.targets if ready]
        _propagate(seen, traffic, ready, newest.name)
        split: dict[str, int] = {}
        for target in traffic:
            split[target["revisionName"]] = split.get(target["revisionName"], 0) + target["percent"]
        if split and (not self.splits or self.splits[-1] != split):
            self.splits.append(split)
        state = "True" if newest.ready else "Unknown"
        url = f"http://{service}.{self._namespace}.example.com"
        status: dict[str, Any] = {
            "deploymentMode": "Knative",
            "observedGeneration": known.changes,
            "components": {"predictor": seen | {"traffic": traffic}},
            "conditions": [{"type": kind, "status": state} for kind in ("PredictorReady", "Ready")]
            + [{"type": "IngressReady", "status": "True" if ready else "Unknown"}],
            "modelStatus": _model_status(pod, newest.ready),
        }
        return status | ({"url": url} if ready else {})

    def _make_revision(self, service: str, name: str, annotations: dict[str, str], predictor: dict[str, Any]) -> None:
        body = {"metadata": {"name": name, "annotations": annotations}, "spec": {}}
        body |= {"apiVersion": "/".join(REVISION[:2]), "kind": "Revision"}
        self._custom.create_namespaced_custom_object(*REVISION[:2], self._namespace, REVISION[2], body)
        metadata = {"name": f"{name}-deployment-0", "annotations": annotations, "labels": {LABEL: service}}
        self._core.create_namespaced_pod(
            self._namespace, {"metadata": metadata, "spec": self._pod(service, predictor) | {"restartPolicy": "Always"}}
        )

    def _pod(self, service: str, predictor: dict[str, Any]) -> dict[str, Any]:
        model = predictor["model"]
        uri = model["storageUri"]
        runtime = self._runtime(model["runtime"]) if "runtime" in model else self._tensorflow_serving()
        server = {"resources": {}, **runtime["containers"][0]}
        server["resources"] |= model.get("resources", {})
        server["args"] = [each.replace("{{.Name}}", service) for each in server.get("args", [])]
        server["env"] = [{"name": "MODEL_NAME", "value": service}, {"name": "MODEL_URI", "value": MODELS}]
        mount = {"name": "model", "mountPath": MODELS}
        server["volumeMounts"] = [*server.get("volumeMounts", []), mount]
        initializer = {
            "name": "storage-initializer",
            "image": self._image,
            "command": ["sh", "-c", _initializing(uri)],
            "volumeMounts": [mount],
        }
        volume: dict[str, Any] = {"emptyDir": {}}
        if uri.startswith("pvc://"):  # it is mounted, nothing is copied
            claim, _, mount["subPath"] = uri.removeprefix("pvc://").partition("/")
            volume = {"persistentVolumeClaim": {"claimName": claim}}
        return {
            "initContainers": [] if uri.startswith("pvc://") else [initializer],
            "containers": [server],
            "volumes": [*runtime.get("volumes", []), {"name": "model", **volume}],
            "securityContext": {
                "runAsUser": 10001,
                "fsGroup": 10001,
            },  # as servers' images say; ours is root
            "terminationGracePeriodSeconds": 0,
            "serviceAccountName": predictor.get("serviceAccountName", "default"),
            **({"nodeSelector": {"no-such": "node"}} if "unschedulable" in uri else {}),
        }

    def _tensorflow_serving(self) -> dict[str, Any]:
        readiness = {"tcpSocket": {"port": 8501}, "periodSeconds": 1}
        return {"containers": [{"name": "kserve-container", "image": self._image, "readinessProbe": readiness}]}

    # --------------------------------------------------------------------------------------- without Knative

    def _raw(self, item: dict[str, Any], known: Known) -> dict[str, Any]:
        service, predictor = item["metadata"]["name"], item["spec"]["predictor"]
        annotations = item["metadata"].get("annotations", {}) | predictor.get("annotations", {})
        labels = {LABEL: service, "component": "predictor"}
        template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": self._pod(service, predictor)}
        name, key = f"{service}-predictor", json.dumps(template, sort_keys=True)
        if not known.revisions or known.revisions[-1].template != key:
            spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
            body = {"metadata": {"name": name, "labels": labels}, "spec": spec}
            if known.revisions:
                self._apps.replace_namespaced_deployment(name, self._namespace, body)
            else:
                self._apps.create_namespaced_deployment(self._namespace, body)
            known.revisions.append(Revision(name, key))
        deployment = self._apps.read_namespaced_deployment(name, self._namespace)
        conditions = {each.type: each for each in deployment.status.conditions or []}
        available = conditions.get("Available")
        state = "True" if available and available.status == "True" else "False"
        return {
            "deploymentMode": "RawDeployment",
            "observedGeneration": deployment.status.observed_generation or 0,
            "conditions": [{"type": kind, "status": state} for kind in ("PredictorReady", "Ready")],
            **({"url": f"http://{service}-{self._namespace}.example.com"} if state == "True" else {}),
        }


def _initializing(uri: str) -> str:
    if "missing" in uri:
        return f"echo Copying {uri}; echo RuntimeError: Failed to fetch model; exit 1"
    return f"echo {uri} > {MODELS}/saved_model.pb"


def _targets(share: int | None, rolled_out: str) -> list[dict[str, Any]]:
    """How Knative is told to split requests."""
    if share is None or not rolled_out:
        return [{"latestRevision": True, "percent": 100}]
    targets: list[dict[str, Any]] = [{"latestRevision": True, "percent": share}]
    if share < 100:
        targets.append({"latestRevision": False, "revisionName": rolled_out, "percent": 100 - share, "tag": "prev"})
    return targets


def _propagate(seen: dict[str, Any], traffic: list[dict[str, Any]], ready: str, newest: str) -> None:
    """What KServe makes of Knative's answer in the status of the predictor."""
    seen["latestCreatedRevision"] = newest
    for target in traffic:
        if target["revisionName"] != ready or not target["latestRevision"]:
            continue
        if seen.get("latestRolledoutRevision") != ready:
            if target["percent"] == 100:
                if seen.get("latestRolledoutRevision"):
                    seen["previousRolledoutRevision"] = seen["latestRolledoutRevision"]
                seen["latestRolledoutRevision"] = ready
        elif ready == newest and target["percent"] < 100:
            total = sum(each["percent"] for each in traffic if each["revisionName"] == ready)
            if total == 100 and seen.get("previousRolledoutRevision"):
                seen["latestRolledoutRevision"] = seen["previousRolledoutRevision"]
    if ready:
        seen["latestReadyRevision"] = ready


def _is_ready(pod: Any) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or [])


def _model_status(pod: Any, ready: bool) -> dict[str, Any]:
    for status in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]:
        ended = status.state.terminated or (status.last_state.terminated if status.state.waiting else None)
        if ended and ended.exit_code:
            info = {"reason": "ModelLoadFailed", "exitCode": ended.exit_code, "message": ended.message or ""}
            return {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": info}
    return {"transitionStatus": "UpToDate" if ready else "InProgress"}
