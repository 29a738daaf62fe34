"""The TrainJob that is asked for, held against the models of Kubeflow Trainer's API; and what is refused before."""

from pathlib import Path

import pytest
import yaml
from kubeflow_trainer_api import models

from kfp_hybrid import images
from kfp_hybrid.components.training.train_distributed.placement import Placement
from kfp_hybrid.components.training.train_distributed.request import NODE_LOST, Request
from kfp_hybrid.components.training.train_distributed.train_job import addresses, train_job
from kfp_hybrid.components.training.train_model.parameters import Parameters
from kfp_hybrid.step import StepError

MANIFESTS = Path(__file__).parents[3] / "manifests"
MODEL = "minio://mlpipeline/v2/artifacts/p/run/task/salt/model"
DEFAULTS = {
    "nodes": 2,
    "runtime": "kfp-hybrid-tensorflow",
    "image": "",
    "pod": {},
    "namespace": "",
    "storage_secret": "",
    "service_account": "",
    "timeout_seconds": 86400,
}
GPU_POD = {
    "resources": {"cpu": 8.0, "memory": "32Gi", "nvidia.com/gpu": "1"},
    "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "tolerationSeconds": 300.0, "effect": "NoExecute"}],
    "pull_secrets": ["registry"],
    "env": {"NCCL_DEBUG": "INFO"},
    "secrets": [{"secret": "s3", "env": {"AWS_ACCESS_KEY_ID": "accesskey"}, "path": "/secrets/s3", "optional": True}],
    "checkpoint_claim": "checkpoints",
    "labels": {"kueue.x-k8s.io/queue-name": "training"},
}
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "step", "uid": "1-2"}


def make(environment=None, owner=None, **changes):
    placement = Placement.of({**DEFAULTS, **changes, "label": "late"})
    request = Request({"examples": "s3://b/e"}, f"{MODEL}-staging", Parameters("late"), addresses("t", placement.nodes))
    return train_job("t", "team", MODEL, request, placement, environment or {}, owner)


def pods_of(job):
    """The patch of the runtime's pods."""
    (patch,) = job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["name"] == "node"
    return replicated["template"]["spec"]["template"]["spec"]


def environment_of(job):
    return {variable["name"]: variable for variable in job["spec"]["trainer"]["env"]}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pod": GPU_POD, "storage_secret": "mlpipeline-minio-artifact", "service_account": "trainer", "owner": OWNER},
        {"timeout_seconds": 0, "nodes": 1},
    ],
)
def test_the_api_of_trainer_knows_every_field(changes):
    job = make(**changes)
    read = models.TrainerV1alpha1TrainJob.from_dict(job)
    assert read.to_dict() == job, "a field that the models do not know would be lost"


def test_a_plain_training_leaves_everything_else_to_the_runtime():
    job = make()
    assert job["spec"].keys() == {"runtimeRef", "trainer", "activeDeadlineSeconds"}
    assert job["spec"]["trainer"]["image"] == images.TENSORFLOW
    assert job["spec"]["runtimeRef"]["name"] == "kfp-hybrid-tensorflow"
    assert set(environment_of(job)) == {"KFP_HYBRID_TRAINING"}
    assert "ownerReferences" not in job["metadata"]


def test_pods_get_what_is_asked_for():
    job = make(pod=GPU_POD, service_account="trainer")
    asked = {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}
    assert job["spec"]["trainer"]["resourcesPerNode"] == {"limits": asked, "requests": asked}
    pods = pods_of(job)
    assert pods["nodeSelector"] == GPU_POD["node_selector"]
    assert pods["tolerations"][0]["tolerationSeconds"] == 300
    assert isinstance(pods["tolerations"][0]["tolerationSeconds"], int)
    assert pods["imagePullSecrets"] == [{"name": "registry"}]
    assert pods["serviceAccountName"] == "trainer"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"


def test_secrets_are_references():
    job = make(pod=GPU_POD, storage_secret="mlpipeline-minio-artifact")
    variables = environment_of(job)
    assert variables["AWS_ACCESS_KEY_ID"] == {
        "name": "AWS_ACCESS_KEY_ID",
        "valueFrom": {"secretKeyRef": {"name": "s3", "key": "accesskey", "optional": True}},
    }
    volumes = {volume["name"]: volume for volume in pods_of(job)["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in pods_of(job)["containers"][0]["volumeMounts"]}
    assert mounts["/secrets/s3"]["secret"] == {"secretName": "s3", "optional": True}
    storage = mounts[variables["S3_SECRET_DIR"]["value"]]
    assert storage["secret"] == {"secretName": "mlpipeline-minio-artifact", "optional": False}


def test_a_claim_holds_the_checkpoints_of_all_nodes():
    job = make(pod={"checkpoint_claim": "checkpoints"})
    folder = environment_of(job)["KFP_HYBRID_CHECKPOINTS"]["value"]
    assert pods_of(job)["containers"][0]["volumeMounts"] == [{"name": "checkpoints", "mountPath": folder}]
    assert pods_of(job)["volumes"][0]["persistentVolumeClaim"] == {"claimName": "checkpoints"}


def test_variables_of_the_pod_come_before_those_of_the_step():
    job = make({"S3_ENDPOINT": "http://step:9000", "AWS_REGION": "eu"}, pod={"env": {"S3_ENDPOINT": "http://pod:9000"}})
    variables = environment_of(job)
    assert variables["S3_ENDPOINT"]["value"] == "http://pod:9000"
    assert variables["AWS_REGION"]["value"] == "eu"


def test_it_goes_with_the_pod_of_its_step_and_says_whose_model_it_makes():
    job = make(owner=OWNER)
    assert job["metadata"]["ownerReferences"] == [OWNER]
    assert job["metadata"]["annotations"] == {"kfp-hybrid/model": MODEL}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"nodes": 0}, "parameter nodes is 0, must be at least 1"),
        ({"timeout_seconds": -1}, "parameter timeout_seconds is -1"),
        ({"runtime": "Not A Name"}, "parameter runtime is 'Not A Name'"),
        ({"namespace": "a_b"}, "parameter namespace is 'a_b'"),
        ({"pod": []}, r"parameter pod is \[\], must be a table"),
        ({"pod": {"gpu": 1}}, "parameter pod has the unknown key 'gpu'; it takes resources, "),
        ({"pod": {"resources": {"memory": "much"}}}, "pod.resources: memory is 'much', must be an amount"),
        ({"pod": {"resources": ["8"]}}, "pod.resources is .*, must be a table"),
        ({"pod": {"node_selector": {"a": 1}}}, "pod.node_selector is .*, must be a table of strings"),
        ({"pod": {"tolerations": {"key": "a"}}}, "pod.tolerations is .*, must be a list"),
        ({"pod": {"tolerations": [{"keys": "a"}]}}, "pod.tolerations has .*, must have keys among key, operator"),
        ({"pod": {"pull_secrets": "registry"}}, "pod.pull_secrets is 'registry', must be a list"),
        ({"pod": {"env": {"TF_CONFIG": "{}"}}}, "pod.env sets the variable 'TF_CONFIG', which it cannot"),
        ({"pod": {"env": {"1A": "x"}}}, "pod.env sets the variable '1A'"),
        ({"pod": {"secrets": [{"secret": "s3"}]}}, "s3 needs env or path"),
        ({"pod": {"secrets": [{"env": {"A": "b"}}]}}, "pod.secrets is None, must be the name"),
        ({"pod": {"checkpoint_claim": 7}}, "pod.checkpoint_claim is 7, must be the name"),
    ],
)
def test_what_kubernetes_would_not_take_is_one_line_before_anything_starts(changes, what):
    with pytest.raises(StepError, match=what):
        make(**changes)


def runtime():
    return yaml.safe_load((MANIFESTS / "trainer/cluster-training-runtime.yaml").read_text())


def node_of_runtime():
    (replicated,) = runtime()["spec"]["template"]["spec"]["replicatedJobs"]
    return replicated


def test_the_api_of_trainer_knows_every_field_of_the_runtime():
    read = models.TrainerV1alpha1ClusterTrainingRuntime.from_dict(runtime())
    assert read.to_dict() == runtime()


def test_the_runtime_has_what_the_training_counts_on():
    assert runtime()["metadata"]["name"] == DEFAULTS["runtime"]
    node = node_of_runtime()
    assert node["name"] == "node"
    assert node["template"]["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"] == "trainer"
    (container,) = node["template"]["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "node"
    assert container["image"] == images.TENSORFLOW


def test_the_runtime_starts_all_nodes_again_except_after_a_mistake():
    (rule,) = node_of_runtime()["template"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": "node", "operator": "In", "values": [1]}
    assert NODE_LOST not in rule["onExitCodes"]["values"]
    policy = runtime()["spec"]["template"]["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    assert policy["rules"] == [{"name": "mistake", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]


def test_the_runtime_keeps_to_the_restricted_pod_security_standard():
    pod = node_of_runtime()["template"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = pod["containers"][0]["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert all(volume.keys() <= {"name", "emptyDir"} for volume in pod["volumes"])
