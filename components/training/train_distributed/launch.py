"""The launching step: starts a TrainJob, waits for it, and takes its result as its own."""

import contextlib
import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from kfp_hybrid import storage
from kfp_hybrid.components.training.train_distributed.cluster import open_cluster
from kfp_hybrid.components.training.train_distributed.lease import Lease
from kfp_hybrid.components.training.train_distributed.placement import Placement
from kfp_hybrid.components.training.train_distributed.request import (
    LOGS,
    MODEL,
    RESULT,
    Request,
    nodes_strategy,
)
from kfp_hybrid.components.training.train_distributed.train_job import KIND, TRAIN_JOBS, addresses, name_of, train_job
from kfp_hybrid.components.training.train_distributed.watching import (
    POLL_SECONDS,
    OutOfTime,
    TrainingFailed,
    Watch,
    condition,
)
from kfp_hybrid.components.training.train_model.hyperparameters import Hyperparameters
from kfp_hybrid.components.training.train_model.parameters import Parameters, Trained
from kfp_hybrid.components.training.train_model.user_module import UserModule
from kfp_hybrid.kubernetes_api.cluster import Cluster
from kfp_hybrid.step import StepError, Stopped

FORWARDED = ("S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION")
DELETION_SECONDS = 300.0


class Artifact(Protocol):
    """What is used of an artifact of Kubeflow Pipelines: its place in the store, and its place on this machine."""

    uri: str
    path: str


def launch(
    inputs: Mapping[str, str],
    parameters: Parameters,
    placement: Placement,
    model: Artifact,
    logs: Artifact,
    poll_seconds: float = POLL_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Trained:
    """Train on several nodes and fetch the result.

    A step that is tried again finds the TrainJob of the try before by its name, and goes on waiting for it.

    Args:
        inputs: "examples", "statistics" and "schema" -> URI.
        parameters: those of `train_model`.
        placement: where, and with what.
        model: the output; its URI names the TrainJob.
        logs: the output.
        poll_seconds: between two looks at the TrainJob.
        sleep: waits some seconds.

    Returns:
        Metrics and metadata.

    Raises:
        StepError: a parameter is wrong, the cluster or the store refuses, or the training has failed.
    """
    strategy = nodes_strategy(parameters.strategy, placement.nodes)
    _check(parameters)
    _refuse_local_paths({**inputs, "model": model.uri})
    cluster, own_pod = open_cluster(placement.namespace)
    name, staging = name_of(model.uri), f"{model.uri.rstrip('/')}-staging"
    request = Request(
        dict(inputs), staging, dataclasses.replace(parameters, strategy=strategy), addresses(name, placement.nodes)
    )
    environment = {key: os.environ[key] for key in FORWARDED if os.environ.get(key)}
    wanted = train_job(name, cluster.namespace, model.uri, request, placement, environment, own_pod)
    lease = Lease(staging)
    with _leaving_nothing_running(cluster, name, staging):
        _start_or_find(cluster, wanted, staging, lease, sleep)
        Watch(cluster, name, lease.renew, sleep).wait(placement.timeout_seconds, poll_seconds)
    trained = _fetch(staging, model, logs)
    if found := cluster.get(TRAIN_JOBS, name):  # before the result, without which it would look like one that failed
        cluster.delete(TRAIN_JOBS, name, found["metadata"]["uid"])
    _empty(staging)
    return trained


def _check(parameters: Parameters) -> None:
    """Refuse here what the nodes would refuse, before any of them is asked for."""
    parameters.validate()
    if not parameters.module:
        Hyperparameters.parse(parameters.hyperparameters)
    elif not parameters.module.endswith(".py"):  # a file is read where it is: in the pods
        UserModule(parameters.module)


def _refuse_local_paths(uris: Mapping[str, str]) -> None:
    for name, uri in uris.items():
        if not storage.is_uri(uri):
            raise StepError(
                f"{name} is at {uri}, which pods of a cluster cannot read; run this on a Kubeflow target, "
                "or train_model on this machine"
            )


def _start_or_find(
    cluster: Cluster, wanted: dict[str, Any], staging: str, lease: Lease, sleep: Callable[[float], None]
) -> None:
    name = wanted["metadata"]["name"]
    found = cluster.get(TRAIN_JOBS, name)
    if found and _has_ended_badly(found, staging):
        logging.info("removing %s %s, which failed in an earlier try", KIND, name)
        _delete(cluster, found, sleep)
        found = None
    if found:
        logging.info("going on waiting for %s %s of an earlier try", KIND, name)
        if owners := wanted["metadata"].get("ownerReferences"):
            cluster.merge(TRAIN_JOBS, name, {"metadata": {"ownerReferences": owners}})
        return
    storage.open_store(staging).delete_tree()  # a result there would not be of this training
    lease.renew()
    cluster.apply(TRAIN_JOBS, wanted, force=True)
    nodes = wanted["spec"]["trainer"]["numNodes"]
    logging.info("started %s %s/%s with %d nodes", KIND, cluster.namespace, name, nodes)


def _has_ended_badly(train_job: Mapping[str, Any], staging: str) -> bool:
    without_result = condition(train_job, "Complete") and not storage.open_store(staging).exists(RESULT)
    return bool(condition(train_job, "Failed") or without_result)


def _delete(cluster: Cluster, train_job: Mapping[str, Any], sleep: Callable[[float], None]) -> None:
    """Delete a TrainJob and wait until it is gone, so that its name is free."""
    name, uid = train_job["metadata"]["name"], train_job["metadata"]["uid"]
    cluster.delete(TRAIN_JOBS, name, uid)
    deadline = time.monotonic() + DELETION_SECONDS
    while (left := cluster.get(TRAIN_JOBS, name)) and left["metadata"]["uid"] == uid:
        if time.monotonic() > deadline:
            raise StepError(f"{KIND} {cluster.namespace}/{name} is not gone {DELETION_SECONDS:g} s after its deletion")
        sleep(1.0)


@contextlib.contextmanager
def _leaving_nothing_running(cluster: Cluster, name: str, staging: str) -> Iterator[None]:
    """Delete the TrainJob when this step is stopped or out of time, so that no node goes on for nobody."""
    try:
        yield
    except (Stopped, KeyboardInterrupt, OutOfTime) as error:
        if found := cluster.get(TRAIN_JOBS, name):
            cluster.delete(TRAIN_JOBS, name, found["metadata"]["uid"])
            why = "out of time" if isinstance(error, OutOfTime) else "stopped"
            logging.warning("%s: deleted %s %s/%s, its pods end", why, KIND, cluster.namespace, name)
        _empty(staging)
        raise
    except TrainingFailed:
        _empty(staging)
        raise


def _empty(staging: str) -> None:
    try:
        storage.open_store(staging).delete_tree()
    except StepError as error:
        logging.warning("something is left behind: %s", error)


def _fetch(staging: str, model: Artifact, logs: Artifact) -> Trained:
    """Take model, logs and result from the staging folder.

    Raises:
        StepError: the nodes have handed back nothing.
    """
    try:
        trained = Trained(**json.loads(storage.open_store(staging).read(RESULT)))
    except storage.NotFound:
        raise StepError(
            f"the training is complete, but {staging} has no result; check that its pods run this version's image"
        ) from None
    storage.download(f"{staging}/{MODEL}", Path(model.path))
    storage.download(f"{staging}/{LOGS}", Path(logs.path))
    return trained
