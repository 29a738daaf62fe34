"""What steps have printed: Kubeflow Pipelines keeps no logs, but its console and the cluster can read those of pods."""

import io
import logging
import re
from collections.abc import Iterator
from typing import Any

import kfp_server_api
import urllib3

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package
from kfp_hybrid.targets.kubeflow import runs
from kfp_hybrid.targets.kubeflow.client import Client, Trouble
from kfp_hybrid.targets.reality import reason

RUN_LABEL = "pipeline/runid"
NODE_ANNOTATION = "workflows.argoproj.io/node-name"
CONTAINER = "main"
TEMPLATE = "system-container-impl"
"""What Kubeflow Pipelines calls the Argo template in which the programs of steps run; pods have its name in theirs."""
EXECUTOR_TRY = re.compile(r"executor\((\d+)\)")

log = logging.getLogger(__name__)


def lines(client: Client, run_id: str, step: str) -> Iterator[str]:
    """The lines that a step has printed; see `Target.logs`."""
    run, package = runs.read(client, run_id)
    states = {found.name: found.state for found in runs.steps_of(run, package)}
    if step not in states:
        raise UserError(f"run {run_id} has no step {step}; it has: {', '.join(states) or 'none yet'}")
    if states[step] in ("cached", "skipped", "waiting"):
        why = {"cached": "took its result from an earlier run, which has its log", "skipped": "was skipped"}
        raise UserError(f"step {step} of run {run_id} {why.get(states[step], 'has not begun')}")
    found = _from_console(client, run, package, step) or _from_cluster(client, run_id, step)
    if found is None:
        page = client.page(f"runs/details/{run_id}")
        raise UserError(
            f"neither the console nor the cluster gives the log of step {step}; its pod may be gone. See "
            f"{f'{page}, or ' if page else ''}the archive of the installation, or while there are pods: "
            f"kubectl logs -n {client.cluster_namespace} -c {CONTAINER} -l {RUN_LABEL}={run_id}"
        )
    return found


def _from_console(client: Client, run: kfp_server_api.V2beta1Run, package: Package, step: str) -> Iterator[str] | None:
    """The log as the console shows it; it also knows the archive, if there is one."""
    for pod in _pods(run, package, step):
        query = {"podname": pod, "runid": run.run_id, "podnamespace": client.profile.namespace or ""}
        try:
            response = client.get("/k8s/pod/logs", {name: value for name, value in query.items() if value}, raw=True)
        except Trouble as trouble:
            log.info("no log of pod %s: %s", pod, trouble)
            continue
        return _lines_of(response)
    return None


def _lines_of(response: urllib3.HTTPResponse) -> Iterator[str]:
    response.auto_close = False  # or the last lines are lost
    try:
        for line in io.TextIOWrapper(response, "utf-8", "replace"):  # type: ignore[type-var]
            yield line.rstrip("\r\n")
    except urllib3.exceptions.HTTPError as error:
        raise UserError(f"the connection was cut, and the log goes on: {reason(error)}; ask for it again") from None


def _pods(run: kfp_server_api.V2beta1Run, package: Package, step: str) -> Iterator[str]:
    """The names that the pods of a step may have, the last try first.

    The API names no pods. But the Argo node of a task names the nodes below it: the workflow, and a hash of the node's
    name. A pod has the hash of its own node's name, which follows from that of a node above, because names of nodes
    begin with the names of those above them. Below the task `train` are

        train.executor                              a pod
        train.executor, train.executor(0)           the tries of a step that the pipeline lets try again
        train(0), train(0).executor, train(0).executor(0)   the same where Argo may try everything again (KFP 2.17)
    """
    details = runs.details_of(run)
    names = {detail.display_name for detail in details}
    numbers = sorted((int(found[1]) for name in names if (found := EXECUTOR_TRY.fullmatch(name))), reverse=True)
    retries = max(_retries(package, package.spec.root.dag, step), default=0)
    if f"{step}(0)" in names:
        below = [f".executor({number})" for number in numbers]
    else:
        below = [f"({number})" for number in numbers if number <= retries] if retries else [""]
    template = f"retry-{TEMPLATE}" if retries else TEMPLATE
    for detail in details:
        for child in reversed(detail.child_tasks or []) if detail.display_name == step else []:
            workflow, _, node = (child.pod_name or "").rpartition("-")
            if workflow and node.isdecimal():
                yield from (f"{workflow}-{template}-{_hash(path, int(node))}" for path in below)


def _retries(package: Package, dag: Any, step: str) -> Iterator[int]:
    """How often the pipeline lets a step try again; steps of one name may be in several branches."""
    for name, task in dag.tasks.items():
        component = package.spec.components[task.component_ref.name]
        if component.WhichOneof("implementation") == "dag":
            yield from _retries(package, component.dag, step)
        elif name == step:
            yield int(task.retry_policy.max_retry_count)


def _hash(name: str, beginning: int = 0x811C9DC5) -> int:
    """Argo's hash of a node's name, 32-bit FNV-1a; of a longer name with the hash of its beginning."""
    value = beginning
    for byte in name.encode():
        value = (value ^ byte) * 0x01000193 % 2**32
    return value


def _from_cluster(client: Client, run_id: str, step: str) -> Iterator[str] | None:
    """The log of the pod, when the profile has a kubeconfig."""
    core = client.core
    if core is None:
        return None
    from kubernetes.client import ApiException

    namespace = client.cluster_namespace
    of_step = re.compile(rf"\.{re.escape(step)}(\(\d+\))?\.executor(\(\d+\))?$")
    try:
        pods = core.list_namespaced_pod(namespace, label_selector=f"{RUN_LABEL}={run_id}").items
        fitting = [pod for pod in pods if of_step.search((pod.metadata.annotations or {}).get(NODE_ANNOTATION, ""))]
        if not fitting:
            return None
        newest: Any = max(fitting, key=lambda pod: pod.metadata.creation_timestamp)
        text = core.read_namespaced_pod_log(newest.metadata.name, namespace, container=CONTAINER)
    except ApiException as error:
        raise UserError(
            f"cannot read the log of step {step} from the cluster: {error.status} {error.reason}; "
            f"reading logs in namespace {namespace} needs the rights to list pods and get pods/log"
        ) from None
    return iter(text.splitlines())
