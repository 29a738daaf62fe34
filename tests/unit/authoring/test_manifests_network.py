"""The network policies, read: what the pods of the collection reach, and what reaches them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "kustomize"))

from network import Network

from kfp_hybrid.components.deployment.deploy_model import names
from manifests import NAMESPACE_OF, OVERLAYS, build, only, overlay, with_store

RUN = {"pipelines.kubeflow.org/v2_component": "true", "workflows.argoproj.io/workflow": "train-x"}
DEPLOYMENT = {names.MANAGED_BY: names.MANAGER, names.SERVICE: "flights", names.TRACK: "stable"}
KSERVE = {"serving.kserve.io/inferenceservice": "flights"}
TRAINING = {"app.kubernetes.io/part-of": "kfp-hybrid", "app.kubernetes.io/component": "training"}
INSTALLATION = {"app.kubernetes.io/part-of": "kfp-hybrid", "app.kubernetes.io/component": "installation"}
CONFINED = [RUN, DEPLOYMENT, KSERVE, TRAINING, INSTALLATION]

DNS = ("kube-system", {"k8s-app": "kube-dns"})
API_SERVER, INTERNET = "10.96.0.1", "198.51.100.7"
ML_PIPELINE = ("kubeflow", {"app": "ml-pipeline"})
METADATA = ("kubeflow", {"component": "metadata-grpc-server"})
KFP_STORE = ("kubeflow", {"app": "seaweedfs"})
OUR_STORE = ("kubeflow", {"app.kubernetes.io/name": "object-store"})
DATABASE = ("kubeflow", {"app": "mysql"})


@pytest.fixture(params=OVERLAYS)
def network(request):
    """The network of an overlay."""
    return Network(overlay(request.param), NAMESPACE_OF[request.param])


@pytest.mark.parametrize("pod", CONFINED, ids=lambda labels: next(iter(labels)))
def test_what_is_not_allowed_is_denied_to_all_pods_of_the_collection_in_both_directions(network, pod):
    assert network.is_confined(pod)


@pytest.mark.parametrize("pod", CONFINED, ids=lambda labels: next(iter(labels)))
def test_all_of_them_reach_dns_and_the_object_store_and_no_other_place(network, pod):
    assert network.sends(pod, DNS, 53, "UDP") and network.sends(pod, DNS, 53) and network.sends(pod, KFP_STORE, 8333)
    assert not network.sends(pod, INTERNET, 443)
    assert not network.sends(pod, DATABASE, 3306)
    assert not network.sends(pod, (network.namespace, {"app": "somebody-else"}), 80)
    assert not network.sends(pod, KFP_STORE, 8111)  # the administration of the store


def test_runs_reach_kubeflow_pipelines_and_the_api_server_and_nothing_reaches_them(network):
    assert network.sends(RUN, ML_PIPELINE, 8887) and network.sends(RUN, ML_PIPELINE, 8888)
    assert network.sends(RUN, METADATA, 8080)
    assert network.sends(RUN, API_SERVER, 443) and network.sends(RUN, "192.168.1.10", 6443)
    assert not network.sends(RUN, API_SERVER, 22)
    assert not network.receives(RUN, (network.namespace, RUN), 8080)


def test_the_nodes_of_a_training_reach_each_other_and_not_the_api_server(network):
    node = (network.namespace, TRAINING)
    assert network.sends(TRAINING, node, 2222) and network.receives(TRAINING, node, 2222)
    assert not network.sends(TRAINING, ("another-team", TRAINING), 2222)
    assert not network.receives(TRAINING, ("another-team", TRAINING), 2222)
    assert not network.receives(TRAINING, (network.namespace, RUN), 2222)
    assert not network.sends(TRAINING, API_SERVER, 443)


def test_models_answer_and_reach_only_the_store(network):
    assert network.receives(DEPLOYMENT, ("shop", {}), 8501) and network.receives(DEPLOYMENT, ("shop", {}), 8500)
    assert not network.receives(DEPLOYMENT, ("shop", {}), 22)
    assert network.receives(KSERVE, ("knative-serving", {"app": "activator"}), 8012)
    for model in (DEPLOYMENT, KSERVE):
        assert network.sends(model, ("istio-system", {"app": "istiod"}), 15012)  # its proxy, where there is one
        assert not network.sends(model, API_SERVER, 443)
        assert not network.sends(model, ML_PIPELINE, 8888)


def test_the_installer_reaches_kubeflow_pipelines_alone(network):
    assert network.sends(INSTALLATION, ML_PIPELINE, 8888)
    assert not network.sends(INSTALLATION, API_SERVER, 443)


def test_pods_of_others_are_left_alone_where_they_share_the_namespace_and_denied_where_it_is_the_teams():
    notebook = {"notebook-name": "anna"}
    for name in ("kind", "onprem", "airgapped"):
        shared = Network(overlay(name), "kubeflow")
        assert shared.sends(DATABASE[1], INTERNET, 443) and shared.receives(DATABASE[1], ML_PIPELINE, 3306)
    team = Network(overlay("multi-user"), "team-a")
    assert team.is_confined(notebook) and not team.sends(notebook, INTERNET, 443)


@pytest.mark.parametrize("store", ["seaweedfs", "minio"])
def test_the_stores_let_in_the_namespaces_of_profiles_and_one_that_is_made_here(store, tmp_path):
    """The selector is that of the NetworkPolicy `seaweedfs` of Kubeflow Pipelines, from 2.15 on."""
    (namespace,) = build("namespace")
    profile = {"app.kubernetes.io/part-of": "kubeflow-profile"}
    assert {**profile, "pipelines.kubeflow.org/enabled": "true"}.items() <= namespace["metadata"]["labels"].items()
    policy = only(with_store(store, tmp_path), "NetworkPolicy", "object-store")
    let_in = [peer["namespaceSelector"] for peer in policy["spec"]["ingress"][0]["from"] if "namespaceSelector" in peer]
    assert {"matchLabels": profile} in let_in


@pytest.mark.parametrize("store", ["seaweedfs", "minio"])
def test_a_store_in_the_cluster_takes_s3_and_sends_nothing(store, tmp_path):
    objects = with_store(store, tmp_path)
    network, labels = Network(objects, "kubeflow"), OUR_STORE[1]
    for pod in CONFINED:
        assert network.sends(pod, OUR_STORE, 8333) and network.receives(labels, ("kubeflow", pod), 8333)
    assert not network.receives(labels, ("another-team", {}), 8333)
    assert not network.receives(labels, ("kubeflow", {}), 9333)
    assert not network.sends(labels, INTERNET, 443) and not network.sends(labels, DNS, 53, "UDP")
    template = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert labels.items() <= template.items()


def test_a_store_outside_of_the_cluster_is_reached_with_tls_alone(tmp_path):
    network = Network(with_store("external", tmp_path), "kubeflow")
    for pod in CONFINED:
        assert network.sends(pod, INTERNET, 443) and not network.sends(pod, INTERNET, 80)


def test_the_pods_of_a_training_have_the_labels_that_the_policy_selects():
    (job,) = build("trainer")[0]["spec"]["template"]["spec"]["replicatedJobs"]
    assert TRAINING.items() <= job["template"]["spec"]["template"]["metadata"]["labels"].items()


def test_the_jobs_of_the_installation_have_the_labels_that_the_policy_selects():
    jobs = [each for each in overlay("airgapped") if each["kind"] == "Job"]
    assert len(jobs) == 2
    for job in jobs:
        assert INSTALLATION.items() <= job["spec"]["template"]["metadata"]["labels"].items()
