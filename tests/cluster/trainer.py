"""Plays Kubeflow Trainer on a cluster that has none: its kind TrainJob, and what its controller would do.

Each TrainJob is read with the models of Trainer's API first; one with a field that they do not know is never served.
"""

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubeflow_trainer_api import models
from kubernetes import client, watch
from ports import unused_port

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
FREE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
DEFINITION = {
    "metadata": {"name": f"{PLURAL}.{GROUP}"},
    "spec": {
        "group": GROUP,
        "names": {"kind": "TrainJob", "plural": PLURAL, "singular": "trainjob", "listKind": "TrainJobList"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": VERSION,
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": FREE, "status": FREE}}},
            }
        ],
    },
}


def install(api: client.ApiClient) -> bool:
    """Define TrainJobs; says whether they were not defined before."""
    definitions = client.ApiextensionsV1Api(api)
    while _is_leaving(definitions):  # deleted by tests that have just ended
        time.sleep(0.2)
    try:
        definitions.create_custom_resource_definition(DEFINITION)
    except client.ApiException as error:
        if error.status != 409:
            raise
        return False
    for _ in range(1200):
        with contextlib.suppress(client.ApiException):
            client.CustomObjectsApi(api).list_cluster_custom_object(GROUP, VERSION, PLURAL)
            return True
        time.sleep(0.1)
    raise AssertionError("the cluster does not serve TrainJobs")


def _is_leaving(definitions: client.ApiextensionsV1Api) -> bool:
    try:
        found = definitions.read_custom_resource_definition(DEFINITION["metadata"]["name"])
    except client.ApiException:
        return False
    return found.metadata.deletion_timestamp is not None


def uninstall(api: client.ApiClient) -> None:
    """Take the definition away again."""
    client.ApiextensionsV1Api(api).delete_custom_resource_definition(DEFINITION["metadata"]["name"])


class Trainer(threading.Thread):
    """The controller of a namespace.

    Args:
        api: A connection as administrator.
        namespace: Where it looks for TrainJobs.
        play: What it does with each.
    """

    def __init__(self, api: client.ApiClient, namespace: str, play: Callable[["Played"], None]) -> None:
        super().__init__(daemon=True)
        self.namespace = namespace
        self.api = api
        self.seen: list[dict[str, Any]] = []
        self.errors: list[BaseException] = []
        self._play = play
        self._watch = watch.Watch()

    def run(self) -> None:
        objects = client.CustomObjectsApi(self.api)
        for event in self._watch.stream(
            objects.list_namespaced_custom_object, GROUP, VERSION, self.namespace, PLURAL, timeout_seconds=3600
        ):
            if event["type"] == "ADDED":
                self.seen.append(event["object"])
                try:
                    refuse_unknown_fields(event["object"])
                    self._play(Played(self.api, self.namespace, event["object"]))
                except BaseException as error:
                    self.errors.append(error)

    def stop(self) -> None:
        self._watch.stop()


def refuse_unknown_fields(train_job: dict[str, Any]) -> None:
    asked = {key: train_job[key] for key in ("apiVersion", "kind", "spec")}
    read = models.TrainerV1alpha1TrainJob.from_dict(train_job).to_dict()
    assert {key: read[key] for key in asked} == asked


class Played:
    """One TrainJob, and what may happen to it."""

    def __init__(self, api: client.ApiClient, namespace: str, train_job: dict[str, Any]) -> None:
        self.train_job = train_job
        self.name = train_job["metadata"]["name"]
        self.nodes = train_job["spec"]["trainer"]["numNodes"]
        variables = {each["name"]: each.get("value") for each in train_job["spec"]["trainer"]["env"]}
        self.request = json.loads(variables["KFP_HYBRID_TRAINING"])
        self.staging = Path(self.request["staging"].removeprefix("file://"))  # a folder of this machine
        self._objects = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._namespace = namespace

    def set_condition(self, kind: str, reason: str = "Played", message: str = "") -> None:
        """Set a condition of the TrainJob, as its controller would."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        one = {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
        self._objects.patch_namespaced_custom_object_status(
            GROUP, VERSION, self._namespace, PLURAL, self.name, {"status": {"conditions": [one]}}
        )

    def start_pod(self, index: int, image: str, script: str, cpu: str = "10m") -> str:
        """Start the pod of a node with a shell script in the place of the training."""
        pod = {
            "metadata": {
                "name": f"{self.name}-node-0-{index}-abcde",
                "labels": {"jobset.sigs.k8s.io/jobset-name": self.name},
                "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
                "ownerReferences": [
                    {
                        "apiVersion": f"{GROUP}/{VERSION}",
                        "kind": "TrainJob",
                        "name": self.name,
                        "uid": self.train_job["metadata"]["uid"],
                    }
                ],
            },
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "node",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["/bin/sh", "-c", script],
                        "resources": {"requests": {"cpu": cpu}},
                    }
                ],
            },
        }
        return self._core.create_namespaced_pod(self._namespace, pod).metadata.name

    def wait_for_end(self, *pods: str) -> None:
        """Wait until pods have ended."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            phases = {self._core.read_namespaced_pod(pod, self._namespace).status.phase for pod in pods}
            if phases <= {"Failed", "Succeeded"}:
                return
            time.sleep(0.2)
        raise AssertionError(f"the pods did not end: {phases}")

    def hand_back(self, files: dict[str, str]) -> None:
        """Put a result into the staging folder."""
        for name, text in files.items():
            path = self.staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def train(self, python: list[str]) -> None:
        """Start the command of the TrainJob for each node as a process of this machine, and wait for all.

        Args:
            python: What starts Python in the environment of the image.
        """
        here = [f"127.0.0.1:{unused_port()}" for _ in range(self.nodes)]
        assert [address.partition(":")[0] for address in self.request["addresses"]] == [
            f"{self.name}-node-0-{index}.{self.name}" for index in range(self.nodes)
        ]
        request = json.dumps({**self.request, "addresses": here})  # the names are those of pods, which these are not
        command = self.train_job["spec"]["trainer"]["command"]
        assert command[0] == "python3"
        processes = [
            subprocess.Popen(
                [*python, *command[1:]],
                env={**os.environ, "KFP_HYBRID_TRAINING": request, "JOB_COMPLETION_INDEX": str(index)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in range(self.nodes)
        ]
        for process in processes:
            output, _ = process.communicate(timeout=1500)
            assert process.returncode == 0, output
