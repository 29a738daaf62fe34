"""How this process reaches a Kubernetes cluster."""

import os
from pathlib import Path

from kubernetes import client, config

from kfp_hybrid.kubernetes_api.errors import one_line
from kfp_hybrid.step import StepError

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def connect() -> tuple[client.ApiClient, str]:
    """Connect as the pod's service account when in a pod, else by the kubeconfig; `KUBECONFIG` comes before both.

    Returns:
        The connection, and one's own namespace: the pod's, or that of the kubeconfig's context.

    Raises:
        StepError: there is neither.
    """
    configuration = client.Configuration()
    try:
        own = _configure(configuration)
    except (config.ConfigException, OSError) as error:
        raise StepError(
            f"there is no Kubernetes cluster to work on: {one_line(error, 200)}; "
            "run this step on a Kubeflow target, or set KUBECONFIG"
        ) from None
    configuration.retries = False  # they are done by `Cluster`, where they can be seen
    return client.ApiClient(configuration), own


def _configure(configuration: client.Configuration) -> str:
    """Fill in how to reach the cluster; returns one's own namespace."""
    file = os.environ.get("KUBECONFIG") or None  # the client itself looks at the variable only when it is imported
    if not file and "KUBERNETES_SERVICE_HOST" in os.environ and OWN_NAMESPACE.exists():
        config.load_incluster_config(client_configuration=configuration)
        return OWN_NAMESPACE.read_text(encoding="utf-8").strip()
    config.load_kube_config(file, client_configuration=configuration)
    _, context = config.list_kube_config_contexts(file)
    return str(context["context"].get("namespace") or "default")
