"""A cluster to test on, a namespace for each test, and an account that has only the deployer's Role.

The cluster is that of KUBECONFIG; else `../shared/cluster/up` starts one, for root; else the tests are skipped.
"""

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from kubernetes import client, config

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT.parent / "shared" / "cluster"
STEP = """
import json, sys
from kfp_hybrid.components.deployment.deploy_model.deploy import run_action
from kfp_hybrid.components.deployment.deploy_model.request import Request
from kfp_hybrid.step import step
with step():
    run_action(Request(**json.loads(sys.argv[1])))
"""
AUDIENCE = "https://kubernetes.default.svc.cluster.local"


def sibling(name: str) -> ModuleType:
    """A module of this folder that holds no tests."""
    spec = importlib.util.spec_from_file_location(f"cluster_tests_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def admin_kubeconfig() -> str:
    """The kubeconfig of an administrator."""
    if path := os.environ.get("KUBECONFIG"):
        return path
    if not (TOOLS / "up").exists():
        pytest.skip(f"no cluster: KUBECONFIG is not set and there is no {TOOLS / 'up'}")
    if os.geteuid() != 0:
        pytest.skip(f"no cluster: KUBECONFIG is not set and only root may run {TOOLS / 'up'}")
    return subprocess.run([TOOLS / "up"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@pytest.fixture(scope="session")
def admin(admin_kubeconfig: str) -> client.ApiClient:
    """A connection as administrator."""
    return config.new_client_from_config(admin_kubeconfig)


@pytest.fixture
def namespace(admin: client.ApiClient) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    core = client.CoreV1Api(admin)
    core.create_namespace({"metadata": {"name": name}})
    _wait_until(lambda: _takes_pods(core, name))
    yield name
    core.delete_namespace(name)


def _takes_pods(core: client.CoreV1Api, namespace: str) -> bool:
    """Whether the cluster has made what a pod needs: the account `default`, and on older clusters its token."""
    pod = {"metadata": {"name": "probe"}, "spec": {"containers": [{"name": "probe", "image": "registry.invalid/none"}]}}
    try:
        core.create_namespaced_pod(namespace, pod, dry_run="All")
    except client.ApiException:
        return False
    return True


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def account(admin: client.ApiClient, admin_kubeconfig: str, namespace: str, tmp_path: Path) -> Callable[..., str]:
    """Makes a service account and gives the path of its kubeconfig.

    Args:
        name: Its name.
        roles: Files with the Roles that are bound to it.
    """

    def make(name: str, *roles: Path) -> str:
        core, rbac = client.CoreV1Api(admin), client.RbacAuthorizationV1Api(admin)
        core.create_namespaced_service_account(namespace, {"metadata": {"name": name}})
        for path in roles:
            role = yaml.safe_load(path.read_text())
            rbac.create_namespaced_role(namespace, role)
            binding = {
                "metadata": {"name": f"{name}-{role['metadata']['name']}"},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "Role",
                    "name": role["metadata"]["name"],
                },
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            }
            rbac.create_namespaced_role_binding(namespace, binding)
        request = {"spec": {"audiences": [AUDIENCE], "expirationSeconds": 3600}}
        token = core.create_namespaced_service_account_token(name, namespace, request).status.token
        content = yaml.safe_load(Path(admin_kubeconfig).read_text())
        current = next(each for each in content["contexts"] if each["name"] == content["current-context"])
        context = {"cluster": current["context"]["cluster"], "user": name, "namespace": namespace}
        content |= {
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": context}],
            "current-context": name,
        }
        path = tmp_path / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return make


@pytest.fixture
def deployer(account: Callable[..., str]) -> str:
    """The kubeconfig of an account that has the deployer's Role and nothing else."""
    return account("deployer", ROOT / "manifests/base/deployer-role.yaml")


@pytest.fixture
def process(deployer: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts deploy_model as a process with the interpreter of its image."""
    started = []

    def start(**inputs: Any) -> subprocess.Popen[str]:
        command = [
            Path(sys.executable).with_name("kfp-hybrid"),
            "python",
            "deployment",
            "-c",
            STEP,
            json.dumps({"service": "flights", **inputs}),
        ]
        environ = {**os.environ, "KUBECONFIG": deployer}
        child = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()


@pytest.fixture
def stopped_at() -> Callable[[str, subprocess.Popen[str]], str]:
    """Sends SIGTERM to a process when it says a word; gives what it says from then on."""

    def stop(word: str, child: subprocess.Popen[str]) -> str:
        read = ""
        while word not in read:
            line = child.stderr.readline()
            assert line, f"the step ended: {read}"
            read += line
        child.send_signal(signal.SIGTERM)
        rest = child.stderr.read()
        assert child.wait() == 143, rest
        return rest

    return stop


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes deploy_model look more often, and believe sooner what it sees; what it does stays the same."""
    from kfp_hybrid.components.deployment.deploy_model import kserve, waiting

    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.2)
    monkeypatch.setattr(kserve, "SETTLING_SECONDS", 1.0)


@pytest.fixture(scope="session")
def server_image(admin_kubeconfig: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image in the cluster with a tiny model server, see `server_image.py`."""
    if image := os.environ.get("KFP_HYBRID_TEST_SERVER_IMAGE"):
        return image
    loader = TOOLS / "load-image"
    if not loader.exists() or "test-cluster" not in Path(admin_kubeconfig).read_text():
        pytest.skip("no image for pods: set KFP_HYBRID_TEST_SERVER_IMAGE to one built by tests/cluster/server_image.py")
    builder = sibling("server_image")
    tag = hashlib.sha256(Path(builder.__file__).read_bytes()).hexdigest()[:8]
    name = f"kfp-hybrid.test/server:{tag}"
    archive = tmp_path_factory.mktemp("image") / "server.tar"
    builder.build(archive, name)
    subprocess.run([loader, archive], check=True, capture_output=True)
    return name


@pytest.fixture(scope="session")
def kserve_kinds(admin: client.ApiClient) -> Iterator[ModuleType]:
    """The kinds of KServe and Knative that are used, without anything that answers to them."""
    controller = sibling("kserve_controller")
    extensions = client.ApiextensionsV1Api(admin)
    definitions = controller.definitions()
    names = {each["metadata"]["name"] for each in definitions}

    def existing() -> list[Any]:
        found = extensions.list_custom_resource_definition().items
        return [each.metadata for each in found if each.metadata.name in names]

    # Those of tests that have just ended are on their way out.
    _wait_until(lambda: not any(metadata.deletion_timestamp for metadata in existing()))
    there, made = {metadata.name for metadata in existing()}, []
    for definition in definitions:
        name = definition["metadata"]["name"]
        if name not in there:
            extensions.create_custom_resource_definition(definition)
            made.append(name)
        elif not os.environ.get("KFP_HYBRID_TEST_KSERVE_KINDS"):
            pytest.skip(
                f"{name} is there already, and with it perhaps a real KServe, which these tests play themselves"
            )
    _wait_until(lambda: all(_is_served(admin, definition) for definition in definitions))
    yield controller
    for name in made:
        extensions.delete_custom_resource_definition(name)


def _is_served(admin: client.ApiClient, definition: dict[str, Any]) -> bool:
    spec = definition["spec"]
    objects = client.CustomObjectsApi(admin)
    try:
        objects.list_cluster_custom_object(spec["group"], spec["versions"][0]["name"], spec["names"]["plural"])
    except client.ApiException:
        return False
    return True


@pytest.fixture
def kserve(
    kserve_kinds: ModuleType, admin: client.ApiClient, namespace: str, server_image: str
) -> Iterator[Callable[..., Any]]:
    """Starts something that answers like KServe in the test's namespace; arguments as of `Controller`."""
    started = []

    def start(**options: Any) -> Any:
        controller = kserve_kinds.Controller(admin, namespace, server_image, **options)
        controller.start()
        started.append(controller)
        return controller

    yield start
    for controller in started:
        controller.stop()
