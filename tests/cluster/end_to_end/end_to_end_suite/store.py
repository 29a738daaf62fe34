"""The object store of the runs: found in the cluster as the steps find it, and read from this machine."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml
from kubernetes import client, config
from kubernetes.client import ApiException, CoreV1Api

from end_to_end_suite.pods import Secrets
from kfp_hybrid import storage
from kfp_hybrid.profiles.models import PortForwardAuth
from kfp_hybrid.targets.kubeflow import KubeflowTarget
from kfp_hybrid.targets.kubeflow.port_forward import PortForward

ADDRESS = "KFP_HYBRID_TEST_STORE"
SECRET_FOLDER = "S3_SECRET_DIR"
DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"
SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
KFPS_STORE = {
    "endpoint": "seaweedfs.kubeflow:9000",
    "disableSSL": True,
    "credentials": {
        "secretRef": {
            "secretName": "mlpipeline-minio-artifact", "accessKeyKey": "accesskey", "secretKeyKey": "secretkey",
        }
    },
}  # fmt: skip
"""What Kubeflow Pipelines takes for minio:// when nothing else is said."""
HOW = (
    f"set {ADDRESS} to the pipeline root as this machine reaches it, such as "
    "s3://mlpipeline/v2/artifacts?endpoint=http://localhost:9000, with credentials as docs/storage.md says"
)


class NoStore(Exception):
    """The store cannot be reached from here; the text says what to set."""


@dataclass
class RunStore:
    """The pipeline root.

    Attributes:
        store: It, as this machine reaches it.
        root: It, as steps know it.
        secrets: Values that no package, pod or log may show.
    """

    store: storage.Store
    root: str
    secrets: Secrets

    def keys(self, pipeline: str, run_id: str, step: str = "") -> list[str]:
        """The objects that a run, or a step of it, has written."""
        return [entry.key for entry in self.store.entries(f"{pipeline}/{run_id}/{step}{'/' if step else ''}")]

    def artifact(self, pipeline: str, run_id: str, step: str, name: str, folder: Path) -> Path:
        """Fetch an artifact: a file, or a folder of files.

        Kubeflow Pipelines puts it at ROOT/PIPELINE/RUN/STEP/SOMETHING NEW/NAME; SOMETHING NEW is missing before 2.5.
        """
        base = f"{pipeline}/{run_id}/{step}/"
        keys = self.keys(pipeline, run_id, step)
        paths = [key.removeprefix(base).split("/") for key in keys]
        depths = {path.index(name) for path in paths if name in path[:2]}
        assert depths, f"step {step} of run {run_id} has no artifact {name} in the store; there is: {keys or 'nothing'}"
        place = folder / step / name
        for path in paths:
            depth = next((depth for depth in depths if len(path) > depth and path[depth] == name), None)
            if depth is not None:
                file = place.joinpath(*path[depth + 1 :])
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(self.store.read(base + "/".join(path)))
        return place


def core_of(target: KubeflowTarget, environ: Mapping[str, str]) -> CoreV1Api | None:
    """The Kubernetes API: of the profile's kubeconfig, else of KUBECONFIG; None without either."""
    if target.client.core is not None:
        return target.client.core
    file = environ.get("KUBECONFIG")
    return client.CoreV1Api(config.new_client_from_config(file)) if file else None


def connect(target: KubeflowTarget, environ: Mapping[str, str], folder: Path) -> RunStore:
    """The store of a target's runs.

    Args:
        target: The target.
        environ: The variables.
        folder: A private folder; credentials of the cluster are put there, and $S3_SECRET_DIR is set to it.

    Raises:
        NoStore: it cannot be found or reached.
    """
    core = core_of(target, environ)
    launcher = _config_map(core, target.client.cluster_namespace) if core else {}
    root = target.profile.pipeline_root or launcher.get("defaultPipelineRoot") or DEFAULT_ROOT
    if address := environ.get(ADDRESS):
        known = Secrets(environ[name] for name in SECRET_VARIABLES if environ.get(name))
        return RunStore(storage.open_store(address), root, known)
    if root.startswith("gs://"):
        return RunStore(storage.open_store(root), root, Secrets())
    if core is None:
        raise NoStore(f"the object store is not known: {HOW}; or set KUBECONFIG, to find it in the cluster")
    return _in_cluster(target, core, root, _provider(launcher, root), folder)


def _config_map(core: CoreV1Api, namespace: str) -> dict[str, str]:
    try:
        return core.read_namespaced_config_map("kfp-launcher", namespace).data or {}
    except ApiException as error:
        if error.status in (403, 404):
            return {}
        raise


def _provider(launcher: Mapping[str, str], root: str) -> dict[str, Any]:
    """What the ConfigMap kfp-launcher says of the store of `root`."""
    scheme, _, place = root.partition("?")[0].partition("://")
    bucket, _, prefix = place.partition("/")
    said = (yaml.safe_load(launcher.get("providers") or "{}") or {}).get(scheme) or {}
    for override in said.get("overrides") or []:
        if override.get("bucketName") == bucket and prefix.startswith(override.get("keyPrefix") or ""):
            return override
    if said.get("default"):
        return said["default"]
    if scheme == "minio":
        return KFPS_STORE
    raise NoStore(f"the ConfigMap kfp-launcher says nothing of {scheme}://: {HOW}")


def _in_cluster(target: KubeflowTarget, core: CoreV1Api, root: str, provider: dict[str, Any], folder: Path) -> RunStore:
    endpoint = str(provider.get("endpoint") or "s3.amazonaws.com")
    secure = not provider.get("disableSSL")
    host, _, port = endpoint.removeprefix("http://").removeprefix("https://").partition(":")
    service, _, namespace = host.partition(".")
    namespace = namespace.partition(".")[0] or target.client.cluster_namespace
    if _is_service(core, service, namespace):
        auth = target.profile.auth if isinstance(target.profile.auth, PortForwardAuth) else None
        auth = auth or PortForwardAuth(kind="kubeconfig")
        way = {"namespace": namespace, "service": service, "port": int(port or (443 if secure else 80))}
        address = PortForward(auth.model_copy(update=way)).open()
        address = address.replace("http://", "https://") if secure else address
    else:
        address = f"{'https' if secure else 'http'}://{host}{f':{port}' if port else ''}"
    options = {"endpoint": address, "region": provider.get("region") or "us-east-1"}
    if provider.get("forcePathStyle") is False:
        options["s3ForcePathStyle"] = "false"
    keys = _credentials(core, target.client.cluster_namespace, provider.get("credentials") or {})
    for name, value in keys.items():
        (folder / name).touch(0o600)
        (folder / name).write_text(value)
    if keys:
        os.environ[SECRET_FOLDER] = str(folder)
    place = root.partition("?")[0].partition("://")[2]
    return RunStore(
        storage.open_store(f"s3://{place}?{urlencode(options)}"), root, Secrets([keys["secretkey"]] if keys else [])
    )


def _is_service(core: CoreV1Api, name: str, namespace: str) -> bool:
    try:
        core.read_namespaced_service(name, namespace)
    except ApiException as error:
        if error.status in (403, 404):
            return False
        raise
    return True


def _credentials(core: CoreV1Api, namespace: str, said: dict[str, Any]) -> dict[str, str]:
    """The keys in the secret that steps take them from; none when they take them from their environment."""
    reference = said.get("secretRef")
    if said.get("fromEnv") or not reference:
        return {}
    name = reference["secretName"]
    try:
        data = core.read_namespaced_secret(name, namespace).data or {}
    except ApiException as error:
        raise NoStore(f"cannot read the secret {name} in namespace {namespace} ({error.status}): {HOW}") from None
    keys = {"accesskey": reference["accessKeyKey"], "secretkey": reference["secretKeyKey"]}
    return {file: base64.b64decode(data[key]).decode() for file, key in keys.items()}
