"""Runs: from what was submitted to pods, artifacts and what the API shows."""

import base64
import datetime
import io
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client
from kubernetes.client import ApiException
from minio import Minio

from kfp_hybrid.package import Package
from played_kubeflow.api import Api, contract, delete_pods
from played_kubeflow.results import Result, Results

FAULTS = (
    "damaged examples", "damaged model", "damaged bundle", "no cache", "publishes what was rejected",
    "root in a pod spec", "root in a pod", "secret in a pod spec", "secret in a log", "no second try",
    "pods outlive their run",
)  # fmt: skip
IDENTITY = """
status() { busybox grep "^$1:" /proc/self/status | busybox cut -f2; }
caps=$(status CapEff); new=$(status NoNewPrivs)
echo "identity: {\\"uid\\": $(busybox id -u), \\"capabilities\\": \\"$caps\\", \\"no_new_privileges\\": \\"$new\\"}"
"""


class Player(threading.Thread):
    """Plays the runs of an installation.

    Args:
        admin: A connection to the cluster.
        namespace: Where pods go.
        image: The image of the pods, see `server_image.py`.
        store: A client of the object store, and the bucket and folder of the pipeline root.
        variables: What the steps' secret has, for their local runs.
        results: What runs come to.
        faults: What to do wrong, of `FAULTS`.
        version: Which Kubeflow Pipelines is played. Since 2.17, Argo may try all nodes again, which gives them numbers.
    """

    def __init__(
        self, admin: client.ApiClient, namespace: str, image: str, store: tuple[Minio, str, str],
        variables: dict[str, str], results: Results, faults: tuple[str, ...] = (), version: str = "2.17.0",
    ) -> None:  # fmt: skip
        super().__init__(daemon=True)
        assert set(faults) <= set(FAULTS)
        self.core = client.CoreV1Api(admin)
        self.api = Api(self.core, namespace)
        self.api.version = version
        self.argo_tries_all = not version.startswith("2.16")
        self.namespace, self.image, self.store, self.variables = namespace, image, store, variables
        self.results, self.faults = results, faults
        self.secret = variables["AWS_SECRET_ACCESS_KEY"]
        self.errors: list[BaseException] = []
        self.earlier: set[tuple[str, str, str]] = set()
        """What is in the cache: the pipeline, the step and its result."""
        self._playing: dict[str, threading.Thread] = {}
        self._ended = threading.Event()
        self._fired: set[str] = set()

    def stop(self) -> None:
        """End; what a run has raised is raised here."""
        self._ended.set()
        self.join()
        for thread in self._playing.values():
            thread.join()
        if self.errors:
            raise self.errors[0]

    def run(self) -> None:
        """Start what was submitted, and what schedules want."""
        while not self._ended.wait(0.1):
            for key, schedule in list(self.api.schedules.items()):
                if key not in self._fired:
                    self._fired.add(key)
                    self._fire(key, schedule)
            for run_id, run in list(self.api.runs.items()):
                if run_id not in self._playing:
                    self._playing[run_id] = threading.Thread(target=self._play, args=(run_id, run), daemon=True)
                    self._playing[run_id].start()

    @property
    def ended(self) -> bool:
        """Whether it was stopped."""
        return self._ended.is_set()

    def _fire(self, key: str, schedule: dict[str, Any]) -> None:
        fields = ("experiment_id", "pipeline_spec", "runtime_config")
        run = {"display_name": f"{schedule['display_name']}-1", **{name: schedule[name] for name in fields}}
        run |= {"recurring_run_id": key, "state": "PENDING", "finished_at": contract.NEVER}
        self.api.keep(self.api.runs, "run_id", run)

    def _play(self, run_id: str, run: dict[str, Any]) -> None:
        try:
            PlayedRun(self, run_id, run).play()
        except BaseException as error:
            self.errors.append(error)
            run["state"] = "FAILED"


class PlayedRun:
    """One run."""

    def __init__(self, player: Player, run_id: str, run: dict[str, Any]) -> None:
        self.player, self.run_id, self.run = player, run_id, run
        documents = run["pipeline_spec"]
        self.file = player.results.folder / f"{uuid.uuid4().hex}.yaml"
        self.file.write_text(yaml.safe_dump_all([documents["pipeline_spec"], documents.get("platform_spec", {})]))
        self.package = Package.load(self.file)
        self.platform = documents.get("platform_spec", {}).get("platforms", {}).get("kubernetes", {})
        self.parameters = dict(run["runtime_config"].get("parameters", {}))
        self.workflow = f"{self.package.name[:40]}-{run_id}"
        self.tasks = dict(tasks_of(self.package, self.package.spec.root.dag, "root"))

    def play(self) -> None:
        """From its start to its end."""
        self.run["state"] = "RUNNING"
        seconds = self.parameters.pop("seconds", 0)  # the pod waits for them, not this machine
        asked = {**self.parameters, **({"seconds": 0} if "seconds" in self.package.parameters else {})}
        results = self.player.results.of(self.file, asked, self.player.variables)
        if self.run["state"] == "CANCELING":
            self.run["state"] = "CANCELED"
            return
        states = {name: self._state(name, result) for name, result in results.items()}
        self._start_pod("root-driver", "system-dag-driver", "echo driving", main_context={"runAsNonRoot": True})
        ran = [name for name, state in states.items() if state in ("done", "failed")]
        threads = [
            threading.Thread(target=self._run_step, args=(name, results[name].log, seconds, states)) for name in ran
        ]
        self._show(states | dict.fromkeys(ran, "running"))
        for name in ran:
            if states[name] == "done":
                self._upload(name, results[name])
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and not self.player.ended:
            if self.run["state"] == "CANCELING":
                self.run["state"] = "CANCELED"
                if "pods outlive their run" not in self.player.faults:
                    delete_pods(self.player.core, self.player.namespace, self.run_id)
            time.sleep(0.1)
        if self.run["state"] == "RUNNING":
            self._show(states)
            self.run["state"] = "FAILED" if "failed" in states.values() else "SUCCEEDED"

    def _state(self, step: str, result: Result) -> str:
        """The cache of Kubeflow Pipelines goes by the pipeline's name too; that of this machine does not."""
        key = (self.package.name, step, result.identity)
        is_known = key in self.player.earlier and "no cache" not in self.player.faults
        self.player.earlier.add(key)
        return "done" if result.state == "cached" and not is_known else result.state

    def _upload(self, step: str, result: Result) -> None:
        base = f"{self.player.store[2]}/{self.package.name}/{self.run_id}"
        salt = uuid.uuid4()
        for name, path in result.outputs.items():
            artifact = Path(path)
            files = [file for file in artifact.rglob("*") if file.is_file()] if artifact.is_dir() else [artifact]
            for file in files:
                key = "/".join((step, str(salt), name, *file.relative_to(artifact).parts))
                self._put(f"{base}/{key}", self._damaged(step, key, file.read_bytes()))
        if step.startswith("report-rejection") and "publishes what was rejected" in self.player.faults:
            self._put(f"{base}/push-model/{salt}/pushed/1/saved_model.pb", b"model")

    def _damaged(self, step: str, key: str, data: bytes) -> bytes:
        damaged = {
            "damaged examples": step == "ingest-examples" and key.endswith(".parquet"),
            "damaged model": step == "push-model" and key.endswith("/saved_model.pb"),
            "damaged bundle": step == "export-tflite" and key.endswith("model.tflite"),
        }
        return data[:-1] + b"?" if any(damaged[fault] for fault in damaged if fault in self.player.faults) else data

    def _put(self, key: str, data: bytes) -> None:
        minio, bucket, _ = self.player.store
        minio.put_object(bucket, key, io.BytesIO(data), len(data))

    def _run_step(self, step: str, text: str, seconds: int, states: dict[str, str]) -> None:
        """The tries of a step, each a pod."""
        if step == "tell-identity":
            text = ""  # what the pod is counts, not what this machine is
        if step == "evaluate-model" and "secret in a log" in self.player.faults:
            text += f"\nsigned in with {self.player.secret}\n"
        script = f"echo {base64.b64encode(text[-60_000:].encode()).decode()} | busybox base64 -d; "
        script += IDENTITY if step == "tell-identity" else ""
        script += f"trap 'exit 143' TERM; sleep {seconds} & wait $!; exit {int(states[step] == 'failed')}"
        task = self.tasks[step]
        tries = 1 if "no second try" in self.player.faults else task.retries + 1
        for number in range(tries):
            numbered = task.retries or self.player.argo_tries_all
            node = f"{self._node_of(step)}.executor{f'({number})' if numbered else ''}"
            template = f"{'retry-' if task.retries else ''}system-container-impl"
            pod = self._start_pod(node, template, script, step=step)
            if self._succeeds(pod) or self.run["state"] != "RUNNING":
                return
        states[step] = "failed"

    def _node_of(self, step: str) -> str:
        """Argo's node of a task, or that of its try."""
        ending = "(0)" if self.player.argo_tries_all else ""
        return ".".join(f"{part}{ending}" for part in (self.workflow, *self.tasks[step].path.split(".")))

    def _start_pod(
        self, node: str, template: str, script: str, *, step: str = "", main_context: dict[str, Any] | None = None
    ) -> str:
        name = f"{self.workflow}-{template}-{fnv1a(node)}"
        own = {} if not step else self._executor(step).get("securityContext", {})
        context = {key: value if value is True else int(value) for key, value in (main_context or own).items()}
        context |= {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        context.setdefault("runAsUser", 10001)
        env = self._variables(step) if step else []
        if step == "push-model" and "secret in a pod spec" in self.player.faults:
            env.append({"name": "AWS_SECRET_ACCESS_KEY_2", "value": self.player.secret})
        if step == "train-model" and "root in a pod spec" in self.player.faults:
            context |= {"runAsUser": 0, "runAsNonRoot": False}
        if step == "tell-identity" and "root in a pod" in self.player.faults:
            context |= {"runAsUser": 0, "runAsNonRoot": False}
        container = {"name": "main", "image": self.player.image, "command": ["sh", "-c", script], "env": env}
        metadata = {
            "name": name,
            "labels": {"pipeline/runid": self.run_id, "pipelines.kubeflow.org/v2_component": "true"},
            "annotations": {"workflows.argoproj.io/node-name": node},
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{**container, "securityContext": context}],
        }
        self.player.core.create_namespaced_pod(self.player.namespace, {"metadata": metadata, "spec": spec})
        return name

    def _variables(self, step: str) -> list[dict[str, Any]]:
        """What a step gets from secrets: their names."""
        return [
            {"name": each["envVar"],
             "valueFrom": {"secretKeyRef": {"name": secret["secretName"], "key": each["secretKey"]}}}
            for secret in self._executor(step).get("secretAsEnv", [])
            for each in secret["keyToEnv"]
        ]  # fmt: skip

    def _executor(self, step: str) -> dict[str, Any]:
        executors = self.platform.get("deploymentSpec", {}).get("executors", {})
        return executors.get(self.tasks[step].executor, {})

    def _succeeds(self, pod: str) -> bool:
        """Waits for the end of a pod; one that is deleted has failed."""
        while not self.player.ended:
            try:
                found = self.player.core.read_namespaced_pod(pod, self.player.namespace)
            except ApiException as error:
                if error.status != 404:
                    raise
                return False
            if found.status.phase in ("Succeeded", "Failed") or self.run["state"] == "CANCELED":
                return found.status.phase == "Succeeded"
            time.sleep(0.2)
        return False

    def _show(self, steps: dict[str, str]) -> None:
        """The nodes of the workflow, as the API shows them; a task begins every ten seconds."""
        names = {"done": "SUCCEEDED", "cached": "SUCCEEDED", "failed": "FAILED", "running": "RUNNING"}
        nodes = [self._node("root-driver", "SUCCEEDED", 0), self._node("root", "RUNNING", 0)]
        for number, (step, state) in enumerate(steps.items(), 1):
            if state not in names:
                continue
            shown = {step: names[state], "executor": "SKIPPED" if state == "cached" else names[state]}
            node = self._node_of(step)
            if self.player.argo_tries_all:
                shown |= {f"{name}(0)": state for name, state in shown.items() if state != "SKIPPED"}
            else:
                node = f"{node}.executor"
            nodes.append(self._node(f"{step}-driver", "SUCCEEDED", 10 * number))
            for name, node_state in shown.items():
                children = {"child_tasks": [{"pod_name": f"{self.workflow}-{fnv1a(node)}"}]} if name == step else {}
                nodes.append(self._node(name, node_state, 10 * number + 2, **children))
        self.run.update(contract.checked({"run_details": {"task_details": nodes}}, "V2beta1Run"))

    def _node(self, name: str, state: str, seconds: int, **fields: Any) -> dict[str, Any]:
        start = datetime.datetime(2026, 11, 21, tzinfo=datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
        times = {"create_time": start, "start_time": start, "end_time": start + datetime.timedelta(seconds=6)}
        if state == "RUNNING":
            del times["end_time"]
        return {
            "run_id": self.run_id,
            "display_name": name,
            "state": state,
            **{key: moment.isoformat() for key, moment in times.items()},
            **fields,
        }


@dataclass(frozen=True)
class Task:
    """A step: where it is, as the names of Argo's nodes say it; how often it is tried again; its executor."""

    path: str
    retries: int
    executor: str


def tasks_of(package: Package, dag: Any, above: str) -> Iterator[tuple[str, Task]]:
    """The steps of a pipeline by name."""
    for name, task in dag.tasks.items():
        component = package.spec.components[task.component_ref.name]
        if component.WhichOneof("implementation") == "dag":
            yield from tasks_of(package, component.dag, f"{above}.{name}")
        else:
            yield name, Task(f"{above}.{name}", task.retry_policy.max_retry_count, component.executor_label)


def fnv1a(text: str) -> int:
    """Argo's hash of a node's name."""
    value = 2166136261
    for byte in text.encode():
        value = ((value ^ byte) * 16777619) % 2**32
    return value
