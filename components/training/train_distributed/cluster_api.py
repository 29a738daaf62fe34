"""The requests to the Kubernetes API that a training needs: TrainJobs, their pods, events and logs.

What may pass is tried again with growing pauses; what remains is one line for the user.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from kfp_hybrid.components.training.train_distributed.pods import index_of
from kfp_hybrid.components.training.train_distributed.train_job import GROUP, KIND, MANAGER, PLURAL, VERSION
from kfp_hybrid.step import StepError
from kfp_hybrid.storage.retries import retry

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
POD_NAME, POD_UID = "KFP_POD_NAME", "KFP_POD_UID"  # which Kubeflow Pipelines sets in every step
JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
PASSING_STATUSES = (408, 429, 500, 502, 503, 504)
REQUEST_SECONDS = (10.0, 60.0)  # to connect, to read

T = TypeVar("T")


class Cluster:
    """A namespace of a cluster, with the rights of this step's service account or of the kubeconfig.

    Args:
        namespace: where TrainJobs are; empty for the step's own.

    Raises:
        StepError: this is no pod and there is no kubeconfig.
    """

    def __init__(self, namespace: str = ""):
        api, own = _connect()
        self.namespace = namespace or own
        self._is_own = self.namespace == own
        self._jobs = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)

    def owner(self) -> dict[str, str] | None:
        """A reference to this step's pod, so that what it starts goes with it; None when that is unknown."""
        name, uid = os.environ.get(POD_NAME), os.environ.get(POD_UID)
        if not self._is_own or not name or not uid:
            return None  # an owner in another namespace would make Kubernetes delete the object at once
        return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}

    def get(self, name: str) -> dict[str, Any] | None:
        """A TrainJob, None when there is none."""
        return self._ask("get", PLURAL, lambda: self._jobs.get_namespaced_custom_object(*self._path(name)), absent=None)

    def apply(self, train_job: Mapping[str, Any]) -> dict[str, Any]:
        """Make a TrainJob, or give it what the object says, by server-side apply."""
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}/{train_job['metadata']['name']}"

        def send() -> Any:
            return self._jobs.api_client.call_api(
                path,
                "PATCH",
                query_params=[("fieldManager", MANAGER.replace("/", "-")), ("force", "true")],
                header_params={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"},
                body=dict(train_job),
                response_type="object",
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=REQUEST_SECONDS,
            )

        return self._ask("patch", PLURAL, send)

    def set_owner(self, name: str, owner: Mapping[str, str]) -> None:
        """Make a TrainJob go with another pod than the one that started it."""
        body = {"metadata": {"ownerReferences": [dict(owner)]}}
        self._ask("patch", PLURAL, lambda: self._jobs.patch_namespaced_custom_object(*self._path(name), body))

    def delete(self, name: str, uid: str) -> None:
        """Delete a TrainJob, with its pods; not one that was made anew under the same name meanwhile."""
        body = client.V1DeleteOptions(propagation_policy="Background", preconditions=client.V1Preconditions(uid=uid))
        self._ask(
            "delete",
            PLURAL,
            lambda: self._jobs.delete_namespaced_custom_object(*self._path(name), body=body),
            absent=None,
        )

    def pods(self, name: str) -> list[client.V1Pod]:
        """The pods of a TrainJob, by their index; those of its last try."""
        selector = f"{JOBSET_LABEL}={name}"
        found = self._ask(
            "list", "pods", lambda: self._core.list_namespaced_pod(self.namespace, label_selector=selector)
        )
        return sorted(found.items, key=index_of)

    def warnings(self, kind: str, name: str) -> list[client.CoreV1Event]:
        """What Kubernetes warns of about an object."""
        selector = f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"
        return self._ask(
            "list", "events", lambda: self._core.list_namespaced_event(self.namespace, field_selector=selector)
        ).items

    def log(self, pod: str, since_seconds: int | None = None, tail: int | None = None) -> list[str]:
        """Lines of a pod's log with their times in front; none when the pod has not started or has gone.

        Args:
            pod: name of the pod.
            since_seconds: how far back to begin; None for its start.
            tail: the most lines, counted from the end; None for all.
        """
        options = {"since_seconds": since_seconds, "tail_lines": tail, "timestamps": True, "_preload_content": False}
        given = {name: value for name, value in options.items() if value is not None}
        try:
            answer = self._core.read_namespaced_pod_log(pod, self.namespace, _request_timeout=REQUEST_SECONDS, **given)
            return answer.data.decode("utf-8", "replace").splitlines()
        except (ApiException, urllib3.exceptions.HTTPError):
            return []  # the log only tells; the training does not depend on it

    def _path(self, name: str) -> tuple[str, str, str, str, str]:
        return GROUP, VERSION, self.namespace, PLURAL, name

    def _ask(self, verb: str, kind: str, request: Callable[[], T], **absent: Any) -> Any:
        """Send a request; `absent=VALUE` is the answer when there is no such object."""
        try:
            return retry(request, f"{verb} {kind} in namespace {self.namespace}", _passing)
        except ApiException as error:
            if error.status == 404 and "absent" in absent:
                return absent["absent"]
            raise self._explained(verb, kind, error) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise StepError(f"the Kubernetes API does not answer: {_one_line(str(error))}; try again later") from None

    def _explained(self, verb: str, kind: str, error: ApiException) -> StepError:
        message = _message(error)
        if error.status == 401:
            hint = "the token is not accepted; check the service account or log in again"
        elif error.status == 403 and "admission" not in message:
            hint = f"let the service account {verb} {kind}: manifests/base/trainer-role.yaml"
        elif error.status == 404 and kind == PLURAL:
            hint = f"the cluster knows no {KIND} here; install Kubeflow Trainer 2.2 or later, and check the namespace"
        else:
            hint = "check runtime, pod and image of the step"
        return StepError(f"cannot {verb} {kind} in namespace {self.namespace} ({error.status}: {message}); {hint}")


def _connect() -> tuple[client.ApiClient, str]:
    """The connection, and the namespace that is one's own there."""
    configuration = client.Configuration()
    try:
        own = _configure(configuration)
    except (config.ConfigException, OSError) as error:
        raise StepError(
            f"there is no cluster to train on: {_one_line(str(error))}; run it on a Kubeflow target, or set KUBECONFIG"
        ) from None
    configuration.retries = False  # they are done here, where they can be seen
    return client.ApiClient(configuration), own


def _configure(configuration: client.Configuration) -> str:
    file = os.environ.get("KUBECONFIG")  # the client itself looks at the variable only when it is imported
    if not file and NAMESPACE_FILE.exists():
        config.load_incluster_config(client_configuration=configuration)
        return NAMESPACE_FILE.read_text("utf-8").strip()
    config.load_kube_config(file, client_configuration=configuration)
    _, context = config.list_kube_config_contexts(file)
    return str(context["context"].get("namespace") or "default")


def _passing(error: BaseException) -> str:
    if isinstance(error, ApiException):
        return f"HTTP status {error.status}" if error.status in PASSING_STATUSES else ""
    if isinstance(error, urllib3.exceptions.MaxRetryError) and isinstance(error.reason, urllib3.exceptions.SSLError):
        return ""
    return type(error).__name__ if isinstance(error, urllib3.exceptions.HTTPError) else ""


def _message(error: ApiException) -> str:
    try:
        return _one_line(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        return _one_line(str(error.reason or "no reason given"))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
