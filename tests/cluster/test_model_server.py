"""deploy_model with this collection's model server: real pods of the image serving, which answer with a real model."""

import base64
import json
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client import ApiException

from kfp_hybrid import images
from kfp_hybrid.components.deployment.deploy_model.deploy import run_action
from kfp_hybrid.components.deployment.deploy_model.request import Request, Result

ROOT = Path(__file__).resolve().parents[2]
LOADER = ROOT.parent / "shared/cluster/load-image"
BUNDLE = ROOT / "tests/unit/serving/bundles/late"
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
FILL = "import shutil; [shutil.copytree('/bundle', f'/models/{version}') for version in (7, 8)]"
CONFINED = {"runAsUser": images.USER, "runAsNonRoot": True, "fsGroup": images.USER}


@pytest.fixture(scope="session")
def serving_image(admin_kubeconfig: str) -> str:
    """The image serving in the cluster: built by scripts/images.sh, or named by KFP_HYBRID_TEST_SERVING_IMAGE."""
    if image := os.environ.get("KFP_HYBRID_TEST_SERVING_IMAGE"):
        return image
    docker = shutil.which("docker")
    built = docker and subprocess.run([docker, "image", "inspect", images.SERVING], capture_output=True).returncode == 0
    if not built or not LOADER.exists() or "test-cluster" not in Path(admin_kubeconfig).read_text():
        pytest.skip("no image serving: build it with scripts/images.sh, or set KFP_HYBRID_TEST_SERVING_IMAGE")
    subprocess.run([LOADER, images.SERVING], check=True, capture_output=True)
    return images.SERVING


@pytest.fixture
def models(admin: client.ApiClient, namespace: str, serving_image: str) -> str:
    """A volume with the versions 7 and 8 of a model."""
    core = client.CoreV1Api(admin)
    content = {path.name: base64.b64encode(path.read_bytes()).decode() for path in BUNDLE.iterdir()}
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "bundle"}, "binaryData": content})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    core.create_namespaced_persistent_volume_claim(namespace, {"metadata": {"name": "models"}, "spec": claim})
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("bundle", "models")]
    container = {"name": "fill", "image": serving_image, "command": ["python", "-c", FILL], "volumeMounts": mounts}
    volumes = [
        {"name": "bundle", "configMap": {"name": "bundle"}},
        {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
    ]
    spec = {"containers": [container], "volumes": volumes, "restartPolicy": "Never", "securityContext": CONFINED}
    core.create_namespaced_pod(namespace, {"metadata": {"name": "fill"}, "spec": spec})
    end = time.monotonic() + 300
    while (phase := core.read_namespaced_pod("fill", namespace).status.phase) != "Succeeded":
        assert phase != "Failed" and time.monotonic() < end, phase
        time.sleep(0.2)
    return "pvc://models"


@pytest.fixture
def deploy(
    namespace: str, deployer: str, serving_image: str, models: str, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> Callable[[int], Result]:
    """Deploys a version as the deployer."""
    monkeypatch.setenv("KUBECONFIG", deployer)
    fixed: dict[str, Any] = {"service": "late", "serving": "deployment", "server": "kfp-hybrid", "image": serving_image}

    def run(version: int) -> Result:
        return run_action(Request(**fixed, resources=SMALL, storage_uri=f"{models}/{version}", timeout_seconds=300))

    return run


@pytest.fixture
def ask(admin: client.ApiClient, namespace: str) -> Callable[..., Any]:
    """Sends a request through the API server to the Service, or to a pod."""

    def send(path: str, document: Any = None, to: str = "services/late:http") -> Any:
        return admin.call_api(
            f"/api/v1/namespaces/{namespace}/{to}/proxy/{path}",
            "POST" if document else "GET",
            header_params={"Content-Type": "application/json", "Accept": "*/*"},
            auth_settings=["BearerToken"],
            body=document,
            response_type="str",
            _preload_content=False,
        )[0].data.decode()

    return send


def rows() -> list[dict[str, Any]]:
    """The sample rows of the model."""
    columns = json.loads((BUNDLE / "samples.json").read_text())["rows"]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def test_a_pod_of_the_image_serving_answers_in_both_protocols_and_tells_prometheus(deploy, ask):
    deploy(7)
    expected = json.loads((BUNDLE / "samples.json").read_text())["scores"]
    answered = json.loads(ask("v1/models/late:predict", {"instances": rows()}))["predictions"]
    assert answered == pytest.approx([score for (score,) in expected], abs=1e-6)
    assert json.loads(ask("v2/models/late"))["name"] == "late"
    assert "kfp_hybrid_serving_request_seconds_count" in ask("metrics")


def test_kserve_runs_the_image_serving_by_the_runtime_that_comes_with_the_model(
    kserve, deployer, serving_image, models, ask, monkeypatch, impatient
):
    kserve()
    monkeypatch.setenv("KUBECONFIG", deployer)
    settings = {"service": "late", "server": "kfp-hybrid", "image": serving_image, "resources": SMALL}

    def act(**inputs: Any) -> str:
        revision = run_action(Request(**settings, timeout_seconds=300, **inputs)).revision
        pod = f"pods/{revision}-deployment-0:8080"
        answered = json.loads(ask("v1/models/late:predict", {"instances": rows()}, to=pod))["predictions"]
        expected = json.loads((BUNDLE / "samples.json").read_text())["scores"]
        assert answered == pytest.approx([score for (score,) in expected], abs=1e-6)
        return revision

    first = act(storage_uri=f"{models}/7")
    second = act(storage_uri=f"{models}/8", canary_percent=10)
    assert act(action="promote") == second != first
    assert act(action="rollback") == first


def test_every_request_is_answered_while_one_version_replaces_another(deploy, ask):
    deploy(7)
    seen: Counter[str] = Counter()
    done = threading.Event()

    def keep_asking() -> None:
        while not done.is_set():
            try:
                ask("v1/models/late:predict", {"instances": rows()})
                seen["answered"] += 1
            except ApiException as error:
                seen[f"status {error.status}"] += 1
            time.sleep(0.02)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        deploy(8)
        time.sleep(8)  # the pod of version 7 ends in this time
    finally:
        done.set()
        asking.join()
    assert set(seen) == {"answered"}, seen
