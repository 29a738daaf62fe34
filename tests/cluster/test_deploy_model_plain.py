"""deploy_model with plain Deployments: real pods behind a real Service, as an account with only the deployer's Role."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client import ApiException

from kfp_hybrid.components.deployment.deploy_model.deploy import run_action
from kfp_hybrid.components.deployment.deploy_model.request import Request, Result
from kfp_hybrid.step import StepError

SMALL = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}


@pytest.fixture
def act(
    namespace: str, deployer: str, server_image: str, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> Callable[..., Result]:
    """Runs an action as the deployer, with the tiny server in the place of the real images."""
    monkeypatch.setenv("KUBECONFIG", deployer)

    def run(action: str = "deploy", uri: str = "", **inputs: Any) -> Result:
        images = {"image": server_image, "download_image": server_image}
        fixed = {"service": "flights", "serving": "deployment", "server": "kfp-hybrid", **images}
        settings = {"resources": SMALL, "timeout_seconds": 300, **inputs}
        return run_action(Request(**{**fixed, "action": action, "storage_uri": uri, **settings}))

    return run


@pytest.fixture
def answer(admin: client.ApiClient, namespace: str) -> Callable[..., str]:
    """Asks the service once, through the Service; the tiny server answers with what it has loaded."""
    core = client.CoreV1Api(admin)

    def ask(path: str = "v1/models/flights") -> str:
        return core.connect_get_namespaced_service_proxy_with_path("flights:http", namespace, path).strip()

    return ask


@pytest.fixture
def pods(admin: client.ApiClient, namespace: str) -> Callable[[], dict[str, int]]:
    """How many pods each Deployment has."""
    apps = client.AppsV1Api(admin)
    return lambda: {each.metadata.name: each.spec.replicas for each in apps.list_namespaced_deployment(namespace).items}


@pytest.fixture
def answers(answer: Callable[[], str]) -> Callable[..., None]:
    """Asks until 30 answers on end are the models named, all of them; a Service needs a moment to forget a pod."""

    def ask(*expected: str) -> None:
        end = time.monotonic() + 120
        while (seen := {answer() for _ in range(30)}) != set(expected):
            assert time.monotonic() < end, f"{seen} answer instead of {expected}"

    return ask


def test_a_model_is_served_behind_a_service(act, answer, namespace):
    result = act(uri="s3://models/flights/7")
    assert result.url == f"http://flights.{namespace}.svc"
    assert result.changed
    assert answer() == "s3://models/flights/7"
    assert not act(uri="s3://models/flights/7").changed


def test_a_canary_gets_pods_in_proportion_then_everything_then_nothing(act, answers, pods):
    one, two = "s3://models/flights/1", "s3://models/flights/2"
    act(uri=one, min_replicas=2)
    result = act(uri=two, min_replicas=2, canary_percent=10)
    assert "1 of 2 pods, so 50 % of the requests" in result.summary
    assert pods() == {"flights": 1, "flights-canary": 1}
    answers(one, two)
    assert not act(uri=two, min_replicas=2, canary_percent=10).changed

    assert act("promote").changed
    assert pods() == {"flights": 2}
    answers(two)
    assert not act("promote").changed

    result = act("rollback")
    assert (result.storage_uri, pods()) == (one, {"flights": 2})
    answers(one)
    assert not act("rollback").changed


def test_a_canary_is_rolled_back_by_taking_its_pods_away(act, answers, pods):
    act(uri="s3://models/flights/1")
    act(uri="s3://models/flights/2", canary_percent=50)
    result = act("rollback")
    assert (result.storage_uri, pods()) == ("s3://models/flights/1", {"flights": 1})
    answers("s3://models/flights/1")
    assert not act("rollback").changed


def test_a_service_moves_from_tensorflow_serving_to_the_server_that_was_tried_by_a_canary_and_back(
    act, answer, answers
):
    one, two = "s3://models/flights/1", "s3://models/flights/2"
    act(uri=one, server="tensorflow-serving")
    act(uri=two, canary_percent=50)
    answers(one, two)
    act("rollback")
    answers(one)
    act(uri=two, canary_percent=50)
    act("promote")
    answers(two)
    assert answer("v1/servers/flights") == "kfp-hybrid"
    act("rollback")
    answers(one)
    assert answer("v1/servers/flights") == "tensorflow-serving"


@pytest.mark.parametrize("server", ["kfp-hybrid", "tensorflow-serving"])
def test_requests_are_answered_while_one_model_replaces_another(act, answer, server):
    """Also when the server before was another one."""
    act(uri="s3://models/flights/1", server=server)
    seen, failures, done = [], [], threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                seen.append(answer())
            except ApiException as error:
                failures.append(error.status)
            time.sleep(0.05)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        act(uri="s3://models/flights/2")
        end = time.monotonic() + 120
        while "s3://models/flights/2" not in seen:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        done.set()
        asking.join()
    assert failures == []
    assert set(seen) == {"s3://models/flights/1", "s3://models/flights/2"}


@pytest.mark.parametrize("canary_percent", [50, 100])
def test_a_model_that_cannot_be_downloaded_leaves_the_one_before_in_service(act, answers, caplog, canary_percent):
    act(uri="s3://models/flights/1")
    with pytest.raises(StepError, match=r"container download-model of pod flights-.* keeps ending") as caught:
        act(uri="s3://missing/flights/2", canary_percent=canary_percent)
    assert "\n" not in str(caught.value)
    assert "there is no object s3://missing/flights/2" in caplog.text
    answers("s3://models/flights/1")
    assert act("rollback").storage_uri == "s3://models/flights/1"


def test_an_image_that_cannot_be_had_is_named(act, caplog):
    with pytest.raises(StepError, match=r"Deployment .*/flights did not get ready: not within 20 s"):
        act(uri="s3://models/flights/1", image="registry.invalid/server:1", timeout_seconds=20)
    assert "registry.invalid/server:1" in caplog.text


def test_the_download_gets_the_storage_credentials(act, answer, admin, namespace):
    secret = {"metadata": {"name": "store"}, "stringData": {"AWS_ACCESS_KEY_ID": "somebody"}}
    client.CoreV1Api(admin).create_namespaced_secret(namespace, secret)
    act(uri="s3://secret/flights/1", storage_secret="store")
    assert answer() == "s3://secret/flights/1"


def test_a_model_on_a_volume_is_served_from_there(act, answer, admin, namespace, filled_volume):
    act(uri=f"pvc://{filled_volume}/flights/7")
    assert answer() == "version 7"
    act(uri=f"pvc://{filled_volume}/flights/6")  # an older version than the newest there is
    assert answer() == "version 6"


@pytest.fixture
def filled_volume(admin: client.ApiClient, namespace: str, server_image: str) -> Iterator[str]:
    """A claim with two versions of a model."""
    core = client.CoreV1Api(admin)
    claim = {
        "metadata": {"name": "models"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    core.create_namespaced_persistent_volume_claim(namespace, claim)
    script = "for v in 6 7; do mkdir -p /v/flights/$v; echo version $v > /v/flights/$v/saved_model.pb; done"
    container = {
        "name": "writer",
        "image": server_image,
        "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    }
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "models"}}
    spec = {"containers": [container], "volumes": [volume], "restartPolicy": "Never"}
    core.create_namespaced_pod(namespace, {"metadata": {"name": "writer"}, "spec": spec})
    while (phase := core.read_namespaced_pod("writer", namespace).status.phase) != "Succeeded":
        assert phase != "Failed"
        time.sleep(0.2)
    yield "models"
    client.AppsV1Api(admin).delete_collection_namespaced_deployment(namespace)  # so that the volume is free again


def test_the_pods_of_a_server_are_confined(act, admin, namespace):
    act(uri="s3://models/flights/1")
    (pod,) = client.CoreV1Api(admin).list_namespaced_pod(namespace).items
    assert pod.spec.security_context.run_as_non_root
    assert pod.spec.security_context.seccomp_profile.type == "RuntimeDefault"
    assert pod.spec.automount_service_account_token is False
    for container in [*pod.spec.init_containers, *pod.spec.containers]:
        assert container.security_context.allow_privilege_escalation is False
        assert container.security_context.read_only_root_filesystem
        assert container.security_context.capabilities.drop == ["ALL"]


@pytest.mark.parametrize("kind", ["Service", "Deployment"])
def test_what_others_have_made_under_that_name_is_not_touched(act, admin, namespace, kind):
    labels = {"app": "theirs"}
    if kind == "Service":
        spec: dict[str, Any] = {"selector": labels, "ports": [{"port": 80}]}
        client.CoreV1Api(admin).create_namespaced_service(namespace, {"metadata": {"name": "flights"}, "spec": spec})
    else:
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
        spec = {"selector": {"matchLabels": labels}, "template": template, "replicas": 0}
        client.AppsV1Api(admin).create_namespaced_deployment(namespace, {"metadata": {"name": "flights"}, "spec": spec})
    with pytest.raises(StepError, match=f"the {kind} flights in namespace {namespace} was not made by deploy_model"):
        act(uri="s3://models/flights/1")


def test_a_step_that_is_stopped_leaves_the_model_before_in_service_and_can_be_run_again(
    act, answers, process, stopped_at, server_image
):
    images = {"image": server_image, "download_image": server_image}
    inputs = {"serving": "deployment", "server": "kfp-hybrid", "resources": SMALL}
    inputs |= {"canary_percent": 50, "storage_uri": "s3://models/flights/2"}
    act(uri="s3://models/flights/1")
    rest = stopped_at("asked for 1 pods of Deployment flights-canary", process(**images, **inputs))
    assert "stopped: Deployment" in rest
    assert "pods that are ready go on answering; run the step again" in rest
    assert not act(uri="s3://models/flights/2", canary_percent=50).summary.startswith("s3://models/flights/1")
    answers("s3://models/flights/1", "s3://models/flights/2")
