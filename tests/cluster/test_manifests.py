"""The manifests on a real cluster: what the API server accepts, who may do what, and that nothing stays behind."""

import json
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import yaml
from kubernetes import client

sys.path.insert(0, str(Path(__file__).parents[1] / "kustomize"))

from manifests import OVERLAYS, STORES, build, kubectl, overlay, pod_specs, with_store

OURS = "app.kubernetes.io/part-of=kfp-hybrid"
KINDS = (
    "serviceaccounts,roles,rolebindings,configmaps,secrets,networkpolicies,resourcequotas,limitranges,jobs,pods,"
    "deployments,replicasets,services,persistentvolumeclaims"
)


@pytest.fixture
def run(admin_kubeconfig):
    """Runs kubectl as administrator; gives what it prints."""

    def call(*arguments, objects=None, check=True):
        text = None if objects is None else yaml.safe_dump_all(objects)
        command = [kubectl(), "--kubeconfig", admin_kubeconfig, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    return call


def placed(objects, namespace):
    """The objects in another namespace: many tests share a cluster, and one may have a real Kubeflow.

    Their pods, whose images are not there, end at once.
    """
    copies = json.loads(json.dumps(objects))
    for item in copies:
        item["metadata"]["namespace"] = namespace
        for subject in item.get("subjects", []):
            subject["namespace"] = namespace
        for spec in pod_specs(item):
            spec["terminationGracePeriodSeconds"] = 0
    return copies


@pytest.fixture(params=[*OVERLAYS, *STORES])
def objects(request, namespace, tmp_path):
    """Each overlay, and the overlay onprem with each store, in the test's namespace."""
    built = with_store(request.param, tmp_path) if request.param in STORES else overlay(request.param)
    return placed(built, namespace)


def test_an_overlay_passes_the_server_is_applied_once_and_is_gone_after_deleting(run, objects, namespace):
    checked = run("apply", "--server-side", "--dry-run=server", "-f", "-", objects=objects)
    assert checked.count("serverside-applied") == len(objects)
    assert ours(run, namespace) == []

    run("apply", "-f", "-", objects=objects)
    again = run("apply", "-f", "-", objects=objects).splitlines()
    assert [line for line in again if not line.endswith(" unchanged")] == []

    run("delete", "--wait", "-f", "-", objects=objects)
    end = time.monotonic() + 120  # the pods of Jobs go when the garbage collector comes to them
    while left := ours(run, namespace):
        assert time.monotonic() < end, left
        time.sleep(0.5)


def ours(run, namespace):
    """What there is of the collection in a namespace."""
    return run("get", KINDS, "-n", namespace, "-l", OURS, "-o", "name", "--ignore-not-found").split()


@pytest.fixture
def may(run, admin, namespace):
    """Installs the overlay onprem and asks what its accounts may do.

    As `kubectl auth can-i` does, which however drops the group of a kind that the cluster does not know.
    """
    rights = ("ServiceAccount", "Role", "RoleBinding")
    run("apply", "-f", "-", objects=placed([each for each in overlay("onprem") if each["kind"] in rights], namespace))

    def ask(account, verb, what, where=None):
        kind, _, name = what.partition("/")
        resource, _, group = kind.partition(".")
        resource, _, subresource = resource.partition(":")
        asked = {"verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name}
        user = f"system:serviceaccount:{namespace}:{account}"
        attributes = {key: value for key, value in asked.items() if value} | {"namespace": where or namespace}
        review = {"spec": {"user": user, "resourceAttributes": attributes}}
        return client.AuthorizationV1Api(admin).create_subject_access_review(review).status.allowed

    return ask


@pytest.mark.parametrize("account", ["kfp-hybrid-runner", "kfp-hybrid-deployer"])
def test_kubectl_says_the_same_of_what_runs_may(may, run, namespace, account):
    user = f"--as=system:serviceaccount:{namespace}:{account}"
    for question, answer in (
        ("get secrets/object-store", "yes"),
        ("get secrets/another", "no"),
        ("list secrets", "no"),
    ):
        assert run("auth", "can-i", *question.split(), user, "-n", namespace, check=False).strip() == answer
        assert may(account, *question.split()) is (answer == "yes")


@pytest.mark.parametrize("account", ["kfp-hybrid-runner", "kfp-hybrid-deployer"])
def test_every_run_may_what_kubeflow_pipelines_and_trainings_need(may, account):
    assert may(account, "get", "configmaps/kfp-launcher")
    assert may(account, "get", "secrets/object-store")
    assert may(account, "get", "pods/some-step")
    assert may(account, "create", "workflowtaskresults.argoproj.io")
    for verb in ("get", "create", "patch", "delete"):
        assert may(account, verb, "trainjobs.trainer.kubeflow.org")


@pytest.mark.parametrize("account", ["kfp-hybrid-runner", "kfp-hybrid-deployer"])
def test_no_run_may_more(may, account):
    for question in (
        ("list", "secrets"),
        ("get", "secrets/another"),
        ("get", "configmaps/another"),
        ("delete", "configmaps"),
        ("create", "pods"),
        ("delete", "pods"),
        ("create", "pods:exec"),
        ("create", "serviceaccounts:token"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("list", "trainjobs.trainer.kubeflow.org"),
        ("delete", "workflows.argoproj.io"),
        ("get", "nodes"),
    ):
        assert not may(account, *question), question
    assert not may(account, "get", "secrets/object-store", where="kube-system")
    assert not may(account, "create", "trainjobs.trainer.kubeflow.org", where="default")


def test_only_the_deployer_may_change_what_is_served(may):
    for question in (
        ("patch", "inferenceservices.serving.kserve.io"),
        ("create", "deployments.apps"),
        ("delete", "deployments.apps"),
        ("patch", "services"),
        ("create", "configmaps"),
        ("patch", "serviceaccounts"),
        ("get", "revisions.serving.knative.dev"),
    ):
        assert may("kfp-hybrid-deployer", *question), question
        assert not may("kfp-hybrid-runner", *question), question
    for question in (("delete", "services"), ("delete", "inferenceservices.serving.kserve.io")):
        assert not may("kfp-hybrid-deployer", *question), question


def test_the_installer_may_make_pipelines_and_nothing_else(may):
    assert may("kfp-hybrid-installer", "create", "pipelines.pipelines.kubeflow.org")
    assert may("kfp-hybrid-installer", "create", "pipelines:versions.pipelines.kubeflow.org")
    assert not may("kfp-hybrid-installer", "delete", "pipelines.pipelines.kubeflow.org")
    assert not may("kfp-hybrid-installer", "create", "runs.pipelines.kubeflow.org")
    assert not may("kfp-hybrid-installer", "get", "secrets/object-store")


def test_pods_that_ask_for_nothing_are_admitted_and_counted(run, admin, namespace):
    limits = [each for each in overlay("onprem") if each["kind"] in ("ResourceQuota", "LimitRange")]
    run("apply", "-f", "-", objects=placed(limits, namespace))
    end = time.monotonic() + 60
    while not client.CoreV1Api(admin).read_namespaced_resource_quota("kfp-hybrid", namespace).status.hard:
        assert time.monotonic() < end
        time.sleep(0.2)
    container = {"name": "a", "image": "registry.example/nothing:1"}
    metadata = {"name": "a", "namespace": namespace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
    made = yaml.safe_load(run("create", "--dry-run=server", "-o", "yaml", "-f", "-", objects=[pod]))
    assert made["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "100m", "memory": "256Mi"}}
    container["resources"] = {"requests": {"cpu": "65"}}
    assert run("create", "--dry-run=server", "-f", "-", objects=[pod], check=False) == ""


# Kinds of others


@pytest.fixture
def define(admin):
    """Defines kinds that the cluster does not know, for the time of a test."""
    extensions = client.ApiextensionsV1Api(admin)
    made = []

    def make(group, version, kind, plural, scope):
        name = f"{plural}.{group}"
        if any(each.metadata.name == name for each in extensions.list_custom_resource_definition().items):
            return
        free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": free}}}
        served = {"name": version, "served": True, "storage": True, "schema": schema}
        spec = {"group": group, "scope": scope, "names": {"kind": kind, "plural": plural}, "versions": [served]}
        extensions.create_custom_resource_definition({"metadata": {"name": name}, "spec": spec})
        made.append(name)
        end = time.monotonic() + 60
        while not is_served(extensions.read_custom_resource_definition(name)):
            assert time.monotonic() < end, f"{name} is not served"
            time.sleep(0.2)

    yield make
    for name in made:
        extensions.delete_custom_resource_definition(name)


def is_served(definition):
    return any(each.type == "Established" and each.status == "True" for each in definition.status.conditions or [])


def applied_twice(run, objects):
    """Apply, apply again, delete; what the second time changed."""
    end = time.monotonic() + 60
    while "error" in (said := run("apply", "-f", "-", objects=objects, check=time.monotonic() > end) or "error"):
        time.sleep(0.5)  # a new kind is not served at once
    assert said.count("created") == len(objects)
    again = run("apply", "-f", "-", objects=objects).splitlines()
    run("delete", "-f", "-", objects=objects)
    return [line for line in again if not line.endswith(" unchanged")]


def test_pipelines_are_applied_as_resources(run, define, namespace):
    define("pipelines.kubeflow.org", "v2beta1", "Pipeline", "pipelines", "Namespaced")
    define("pipelines.kubeflow.org", "v2beta1", "PipelineVersion", "pipelineversions", "Namespaced")
    assert applied_twice(run, placed(build("pipelines/native"), namespace)) == []


def test_the_runtime_of_trainings_is_applied(run, define):
    define("trainer.kubeflow.org", "v1alpha1", "ClusterTrainingRuntime", "clustertrainingruntimes", "Cluster")
    objects = build("trainer")
    for item in objects:
        item["metadata"]["name"] += f"-{uuid.uuid4().hex[:8]}"  # of no namespace, so that others may have some
    assert applied_twice(run, objects) == []
