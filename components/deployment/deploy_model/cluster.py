"""The Kubernetes API as deploy_model uses it: a few verbs for any kind of object, with retries and clear errors."""

import contextlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenacity
import urllib3
from kubernetes import client, config
from kubernetes.client import ApiException

from kfp_hybrid.components.deployment.deploy_model import api_errors
from kfp_hybrid.components.deployment.deploy_model.names import MANAGER
from kfp_hybrid.step import StepError

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
RETRY_SECONDS = 120.0  # how long the API server may be away
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 15.0
CONNECT_SECONDS, READ_SECONDS = 10, 30

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A kind of object."""

    api_version: str
    name: str
    plural: str

    @property
    def resource(self) -> str:
        """What RBAC calls it, such as `inferenceservices.serving.kserve.io`."""
        group, slash, _ = self.api_version.rpartition("/")
        return f"{self.plural}.{group}" if slash else self.plural

    def path(self, namespace: str) -> str:
        """Where its objects are in the API."""
        root = "apis" if "/" in self.api_version else "api"
        return f"/{root}/{self.api_version}/namespaces/{namespace}/{self.plural}"


INFERENCE_SERVICES = Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")
REVISIONS = Kind("serving.knative.dev/v1", "Revision", "revisions")
DEPLOYMENTS = Kind("apps/v1", "Deployment", "deployments")
SERVICES = Kind("v1", "Service", "services")
SERVICE_ACCOUNTS = Kind("v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAPS = Kind("v1", "ConfigMap", "configmaps")
PODS = Kind("v1", "Pod", "pods")
EVENTS = Kind("v1", "Event", "events")


class Cluster:
    """One namespace of a cluster.

    Every method raises `StepError` with one line for what the user can put right, after retrying what may pass.

    Args:
        api: The connection.
        namespace: The namespace.
        retry_seconds: For how long to try again when the API server is away or busy.
    """

    def __init__(self, api: client.ApiClient, namespace: str, retry_seconds: float = RETRY_SECONDS) -> None:
        self.namespace = namespace
        self._api = api
        self._retry_seconds = retry_seconds

    @classmethod
    def connect(cls, namespace: str = "") -> "Cluster":
        """Connect as the pod's service account when in a pod, else by the kubeconfig.

        Args:
            namespace: The namespace; "" for the pod's own, or that of the kubeconfig's context.

        Raises:
            StepError: there is neither.
        """
        configuration = client.Configuration()
        try:
            own = _configure(configuration)
        except (config.ConfigException, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise StepError(
                f"there is no cluster to deploy to: {reason}; run this step in a pod, or set KUBECONFIG"
            ) from None
        configuration.retries = False  # they are done here, where they can be seen
        return cls(client.ApiClient(configuration), namespace or own)

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        """The object, or None when there is none."""
        try:
            return self._call("get", kind, name)
        except api_errors.Missing:
            return None

    def find(self, kind: Kind, *, labels: str = "", fields: str = "") -> list[dict[str, Any]]:
        """The objects that match both selectors."""
        query = [("labelSelector", labels), ("fieldSelector", fields)]
        return self._call("list", kind, query=[(key, value) for key, value in query if value])["items"]

    def apply(self, kind: Kind, item: dict[str, Any], *, force: bool = False) -> dict[str, Any]:
        """Make the fields of `item` so, and those asked for earlier but no more go away (server-side apply).

        Args:
            kind: The kind of the object.
            item: metadata and what else is asked for.
            force: Take over fields that another manager has set.
        """
        metadata = {**item["metadata"], "namespace": self.namespace}
        body = {"apiVersion": kind.api_version, "kind": kind.name, **item, "metadata": metadata}
        query = [("fieldManager", MANAGER), ("force", "true" if force else "false")]
        return self._call("patch", kind, metadata["name"], query=query, body=body)

    def delete(self, kind: Kind, name: str) -> None:
        """Delete an object and what belongs to it; one that is gone already is no error."""
        with contextlib.suppress(api_errors.Missing):
            self._call("delete", kind, name, query=[("propagationPolicy", "Background")])

    def log(self, pod: str, container: str, *, previous: bool, lines: int) -> str:
        """The end of a container's log; "" where there is none (yet, or any more)."""
        query = [("container", container), ("previous", str(previous).lower()), ("tailLines", str(lines))]
        try:
            return self._call("get", PODS, f"{pod}/log", query=query, text=True)
        except StepError as error:
            return f"(no log: {error})"

    def _call(
        self,
        verb: str,
        kind: Kind,
        name: str = "",
        *,
        query: list[tuple[str, str]] | None = None,
        body: dict[str, Any] | None = None,
        text: bool = False,
    ) -> Any:
        method = {"list": "GET"}.get(verb, verb.upper())
        what = f"{verb} {kind.resource}{'/' if name else ''}{name}"

        def send() -> Any:
            response = self._api.call_api(
                f"{kind.path(self.namespace)}{'/' if name else ''}{name}",
                method,
                query_params=query or [],
                header_params={"Accept": "*/*" if text else "application/json"}
                | ({"Content-Type": "application/apply-patch+yaml"} if body else {}),
                body=body,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _preload_content=False,
                _request_timeout=(CONNECT_SECONDS, READ_SECONDS),
            )
            return response.data.decode(errors="replace") if text else json.loads(response.data)

        try:
            return self._retrying(what)(send)
        except (ApiException, urllib3.exceptions.HTTPError, ValueError) as error:
            where = api_errors.Where(verb, kind.resource, name, self.namespace, self._api.configuration.host)
            raise api_errors.explain(error, where) from None

    def _retrying(self, what: str) -> tenacity.Retrying:
        def say(state: tenacity.RetryCallState) -> None:
            assert state.outcome is not None
            error = state.outcome.exception()
            log.warning(
                "the API server failed to %s (%s); attempt %d follows in %.1f s, trying for at most %g s",
                *(what, api_errors.passing(error), state.attempt_number + 1, state.upcoming_sleep, self._retry_seconds),
            )

        backoff = tenacity.wait_exponential(multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS)
        pause = backoff + tenacity.wait_random(0, FIRST_PAUSE_SECONDS)
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: bool(api_errors.passing(error))),
            wait=lambda state: max(pause(state), api_errors.asked_pause(state.outcome, LONGEST_PAUSE_SECONDS)),
            stop=tenacity.stop_before_delay(self._retry_seconds),
            before_sleep=say,
            reraise=True,
        )


def _configure(configuration: client.Configuration) -> str:
    """Fill in how to reach the cluster; returns the namespace to work in."""
    if "KUBERNETES_SERVICE_HOST" in os.environ and OWN_NAMESPACE.exists() and not os.environ.get("KUBECONFIG"):
        config.load_incluster_config(client_configuration=configuration)
        return OWN_NAMESPACE.read_text(encoding="utf-8").strip()
    file = os.environ.get("KUBECONFIG") or None  # the client itself looks at the variable only when it is imported
    config.load_kube_config(file, client_configuration=configuration)
    _, context = config.list_kube_config_contexts(file)
    return context["context"].get("namespace") or "default"
