"""Port-forwards, and what else the Kubeflow target asks a cluster, on a real one."""

import concurrent.futures
import hashlib
import time
from urllib.parse import urlsplit

import pytest
import requests
from kubernetes import client

from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import KubeflowProfile
from kfp_hybrid.profiles.models import PortForwardAuth, Resources
from kfp_hybrid.targets.doctor import CheckWarning
from kfp_hybrid.targets.kubeflow import KubeflowTarget, checks, logs
from kfp_hybrid.targets.kubeflow.port_forward import PortForward

# Files for a browser on one port, and the same answer to every question of kfp's client on the other.
SERVE = r"""
mkdir -p /tmp/www && cd /tmp/www && hostname > name && busybox dd if=/dev/urandom of=big bs=1024 count=4096 2>/dev/null
busybox sha256sum big | busybox cut -d' ' -f1 > sum
cat > /tmp/answer <<'END'
#!/bin/sh
while read -r line; do [ ${#line} -le 1 ] && break; done
body='{"runs": [], "tag_name": "2.17.0"}'
printf 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' ${#body} "$body"
END
busybox chmod +x /tmp/answer
busybox nc -ll -p 3000 -e /tmp/answer &
echo ready
exec httpd -f -p 8501 -h /tmp/www
"""


@pytest.fixture
def core(admin):
    return client.CoreV1Api(admin)


@pytest.fixture
def start_pod(core, namespace, server_image):
    def start(name, script=SERVE, **metadata):
        metadata = {"name": name, "labels": {"app": "ml-pipeline-ui"}, **metadata}
        container = {
            "name": "main",
            "image": server_image,
            "command": ["sh", "-c", script],
            "ports": [{"name": "http", "containerPort": 8501}],
        }
        spec = {"containers": [container], "terminationGracePeriodSeconds": 0, "restartPolicy": "Never"}
        spec["automountServiceAccountToken"] = False  # it needs none, and a new namespace has none at first
        core.create_namespaced_pod(namespace, {"metadata": metadata, "spec": spec})
        for _ in range(600):
            status = core.read_namespaced_pod(name, namespace).status
            ready = [each.status for each in status.conditions or [] if each.type == "Ready"]
            if ready == ["True"] or status.phase == "Succeeded":
                return
            time.sleep(0.1)
        raise AssertionError(f"pod {name} did not start: {status}")

    return start


@pytest.fixture
def service(core, namespace):
    ports = [{"name": "files", "port": 80, "targetPort": "http"}, {"name": "api", "port": 8888, "targetPort": 3000}]
    spec = {"selector": {"app": "ml-pipeline-ui"}, "ports": ports}
    core.create_namespaced_service(namespace, {"metadata": {"name": "ml-pipeline-ui"}, "spec": spec})


@pytest.fixture
def forward(admin_kubeconfig, namespace):
    forwards = []

    def make(**settings):
        auth = {"kind": "kubeconfig", "file": admin_kubeconfig, "namespace": namespace, **settings}
        forwards.append(PortForward(PortForwardAuth.model_validate(auth)))
        return forwards[-1]

    yield make
    for each in forwards:
        each.close()


def test_a_named_port_of_a_service_is_reached_from_this_machine_only(start_pod, service, forward):
    start_pod("first")
    address = forward().open()
    assert urlsplit(address).hostname == "127.0.0.1"
    assert requests.get(f"{address}/name", timeout=60).text == "first\n"


def test_connections_side_by_side_bring_everything_unchanged(start_pod, service, forward):
    start_pod("first")
    address = forward().open()
    expected = requests.get(f"{address}/sum", timeout=60).text.strip()

    def digest(_):
        return hashlib.sha256(requests.get(f"{address}/big", timeout=60).content).hexdigest()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(digest, range(8))) == [expected] * 8


def test_a_pod_that_is_replaced_is_followed(core, namespace, start_pod, service, forward):
    start_pod("first")
    address = forward().open()
    assert requests.get(f"{address}/name", timeout=60).text == "first\n"
    core.delete_namespaced_pod("first", namespace)
    start_pod("second")
    assert requests.get(f"{address}/name", timeout=60).text == "second\n"


def test_nothing_listens_after_the_end(start_pod, service, forward):
    start_pod("first")
    made = forward()
    address = made.open()
    made.close()
    with pytest.raises(requests.ConnectionError):
        requests.get(address, timeout=60)


def test_a_service_that_is_not_there(forward, namespace):
    with pytest.raises(UserError, match=f"there is no service ml-pipeline-ui in namespace {namespace}"):
        forward().open()


def test_a_port_that_the_service_does_not_have(start_pod, service, forward):
    with pytest.raises(UserError, match="has no port 9999; it has: 80, 8888"):
        forward(port=9999).open()


def test_a_service_without_a_pod_that_is_ready(service, forward):
    with pytest.raises(UserError, match=r"no pod of service ml-pipeline-ui .* is ready"):
        forward().open()


def test_missing_rights_are_named(account, forward, service):
    with pytest.raises(UserError, match=r"does not let you look up service .* \(403 Forbidden\).*pods/portforward"):
        forward(file=account("nobody")).open()


def test_a_kubeconfig_that_is_missing(forward, tmp_path):
    with pytest.raises(UserError, match=f"cannot use the kubeconfig {tmp_path}/none"):
        forward(file=str(tmp_path / "none")).open()


# ------------------------------------------------------------------------------------- the target with a kubeconfig


@pytest.fixture
def target(admin_kubeconfig, namespace):
    auth = {"kind": "kubeconfig", "file": admin_kubeconfig, "namespace": namespace, "port": 8888}
    secrets = {
        "storage": {"secret": "s3-credentials", "env": {"AWS_ACCESS_KEY_ID": "accesskey"}},
        "more": {"secret": "more", "path": "/more", "optional": True},
    }
    profile = {"kind": "kubeflow", "auth": auth, "secrets": secrets, "pipeline_root": "s3://bucket/root"}
    return KubeflowTarget("onprem", KubeflowProfile.model_validate(profile), lambda name: Resources())


def run_check(target, title):
    (check,) = [check for check in target.checks() if check.title == title]
    try:
        return check.run()
    except UserError as error:
        return error


def test_kfps_client_reaches_the_api_through_the_forward(target, start_pod, service):
    start_pod("first")
    assert target.runs() == []
    assert "port-forward" in run_check(target, "the host is reachable")
    assert run_check(target, "the version is 2.16 or later") == "Kubeflow Pipelines 2.17.0"


def test_doctor_looks_for_secrets_and_their_keys(core, namespace, target):
    title = "the secret storage is there"
    assert str(run_check(target, title)) == f"there is no secret s3-credentials in namespace {namespace}; make it"
    core.create_namespaced_secret(namespace, {"metadata": {"name": "s3-credentials"}, "stringData": {"key": "x"}})
    assert str(run_check(target, title)).endswith("has no key accesskey")
    core.patch_namespaced_secret("s3-credentials", namespace, {"stringData": {"accesskey": "x"}})
    assert run_check(target, title) == f"s3-credentials in namespace {namespace}"
    assert isinstance(run_check(target, "the secret more is there"), CheckWarning)


def test_doctor_reads_what_steps_are_told_of_the_pipeline_root(core, namespace, target):
    title = "the pipeline root can be written"
    warning = str(run_check(target, title))
    assert "says nothing of s3://" in warning and "`kfp-hybrid doctor onprem --run`" in warning
    data = {"providers": "s3:\n  default:\n    endpoint: s3.example.com\n"}
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "kfp-launcher"}, "data": data})
    assert run_check(target, title) == "s3://bucket/root, as far as the ConfigMap kfp-launcher says"


def test_doctor_says_whether_kserve_is_there_to_serve_models(target, kserve_kinds, monkeypatch):
    title = "KServe is there"
    assert not isinstance(run_check(target, title), CheckWarning)
    monkeypatch.setattr(checks, "KSERVE", "no-such-group.example.com")
    warning = run_check(target, title)
    assert isinstance(warning, CheckWarning) and 'install it, or set serving = "deployment"' in str(warning)


@pytest.mark.parametrize(
    "train", ["flights-x7k2p.root.train", "flights-x7k2p(0).root(0).train(0)"], ids=["2.16", "2.17"]
)
def test_the_log_of_a_step_is_that_of_its_newest_pod(namespace, target, start_pod, train):
    def step(name, node, line):
        start_pod(
            name,
            f"echo {line}",
            labels={"pipeline/runid": "run-1"},
            annotations={"workflows.argoproj.io/node-name": node},
        )

    step("train-0", f"{train}.executor(0)", "first try")
    time.sleep(1.1)  # creation times have whole seconds
    step("train-1", f"{train}.executor(1)", "second try")
    step("driver", train.replace("train", "train-driver"), "not this one")
    step("other", f"{train.replace('train', 'pre-train')}.executor", "nor this one")
    assert list(logs._from_cluster(target.client, "run-1", "train")) == ["second try"]
    assert logs._from_cluster(target.client, "run-1", "evaluate") is None
