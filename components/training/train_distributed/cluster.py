"""What a training asks a cluster for besides TrainJobs themselves: its pods, their logs, and the pod of this step."""

import os
from typing import Any

from kfp_hybrid.components.training.train_distributed.pods import index_of
from kfp_hybrid.components.training.train_distributed.train_job import FIELD_MANAGER
from kfp_hybrid.kubernetes_api.cluster import Cluster
from kfp_hybrid.kubernetes_api.connection import connect
from kfp_hybrid.kubernetes_api.kinds import PODS
from kfp_hybrid.step import StepError

POD_NAME, POD_UID = "KFP_POD_NAME", "KFP_POD_UID"  # which Kubeflow Pipelines sets in every step
JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
ROLE = "manifests/base/trainer-role.yaml"
RETRY_SECONDS = 300.0


def open_cluster(namespace: str = "", retry_seconds: float = RETRY_SECONDS) -> tuple[Cluster, dict[str, str] | None]:
    """Connect to where TrainJobs are.

    Args:
        namespace: where they are; empty for the step's own.
        retry_seconds: for how long to try again when the API server is away.

    Returns:
        The cluster, and a reference to this step's pod, so that what it starts goes with it; None when that is unknown.

    Raises:
        StepError: this is no pod and there is no kubeconfig.
    """
    api, own = connect()
    cluster = Cluster(api, namespace or own, manager=FIELD_MANAGER, role=ROLE, retry_seconds=retry_seconds)
    # An owner in another namespace would make Kubernetes delete the object at once.
    return cluster, _own_pod() if cluster.namespace == own else None


def pods_of(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """The pods of a TrainJob, by their index; those of its last try."""
    return sorted(cluster.find(PODS, labels=f"{JOBSET_LABEL}={name}"), key=index_of)


def log_of(cluster: Cluster, pod: str, *, since_seconds: int | None = None, lines: int | None = None) -> list[str]:
    """Lines of a pod's log with their times in front; none when the pod has not started or has gone.

    Args:
        cluster: where it is.
        pod: its name.
        since_seconds: how far back to begin; None for its start.
        lines: the most lines, counted from the end; None for all.
    """
    try:
        text = cluster.log(pod, timestamps=True, since_seconds=since_seconds, lines=lines, retry_seconds=0)
    except StepError:
        return []  # the log only tells; the training does not depend on it
    return text.splitlines()


def _own_pod() -> dict[str, str] | None:
    name, uid = os.environ.get(POD_NAME), os.environ.get(POD_UID)
    return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid} if name and uid else None
