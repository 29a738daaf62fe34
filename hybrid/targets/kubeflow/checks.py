"""What `doctor` looks at on Kubeflow."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import yaml

from kfp_hybrid.errors import UserError
from kfp_hybrid.lint import ERROR
from kfp_hybrid.package import Package
from kfp_hybrid.profiles import image_reference
from kfp_hybrid.profiles.models import Images, KubernetesSecret, PortForwardAuth
from kfp_hybrid.targets.doctor import Check, CheckWarning
from kfp_hybrid.targets.kubeflow.client import Client, Trouble
from kfp_hybrid.targets.kubeflow.runs import named
from kfp_hybrid.targets.reality import clock_skew, image_in_registry, reason

if TYPE_CHECKING:
    from kfp_hybrid.targets.kubeflow.target import KubeflowTarget

OLDEST = (2, 16)
"""The first version that knows the security context of a step, which it otherwise refuses."""
LAUNCHER = "kfp-launcher"
"""The ConfigMap that says where artifacts go, in the namespace of the runs."""

KSERVE = "serving.kserve.io"
"""The group of its objects."""

T = TypeVar("T")


def checks(target: "KubeflowTarget") -> list[Check]:
    """The checks of a target, in order."""
    client, profile = target.client, target.profile
    found = [
        Check("the host is reachable", functools.partial(_reachable, client), needed=True),
        Check("the sign-in is accepted", functools.partial(_accepted, client), needed=True),
        Check(f"the version is {'.'.join(map(str, OLDEST))} or later", functools.partial(_version, client)),
        Check(f"the experiment {profile.experiment} can be used", functools.partial(_experiment, client)),
        Check("this machine's clock is right", lambda: clock_skew(client.address, ca_bundle=profile.ca_bundle)),
        Check("the pipeline root can be written", functools.partial(_root, target)),
    ]
    found += [
        Check(f"the secret {name} is there", functools.partial(_secret, client, secret))
        for name, secret in profile.secrets.items()
    ]
    found += [
        Check(f"the image {name} is there", functools.partial(image_in_registry, image_reference(profile, name)))
        for name in Images.model_fields
    ]
    if profile.serving == "kserve" and isinstance(profile.auth, PortForwardAuth):
        found.append(Check("KServe is there", functools.partial(_kserve, client)))
    return [*found, Check("packages for this target pass the linter", functools.partial(_lint, target))]


def _reachable(client: Client) -> str:
    client.call("ask whether Kubeflow Pipelines is there", lambda: _health(client))
    return client.profile.host or f"by a port-forward to the {client.host}"


def _accepted(client: Client) -> str:
    """The health of the server is shown to everybody; its lists are not."""
    namespace = client.profile.namespace
    health = client.call("ask whether Kubeflow Pipelines is there", lambda: _health(client))
    if (health.get("multi_user") or health.get("apiServerMultiUser")) and not namespace:
        raise UserError("the installation is for many users; set the namespace of your runs in the profile")
    client.call("list experiments", lambda: client.kfp.list_experiments(page_size=1, namespace=namespace))
    return f"as allowed in namespace {namespace}" if namespace else "for a single user"


def _version(client: Client) -> str:
    health = client.call("ask for the version", lambda: _health(client))
    version = str(health.get("apiServerTagName") or health.get("tag_name") or "unknown")
    try:
        numbers = tuple(int(part) for part in version.split("-")[0].split(".")[:2])
    except ValueError:
        raise CheckWarning(f"the server calls its version {version}; see that it is 2.16 or later") from None
    if numbers < OLDEST:
        raise UserError(f"the server has {version}, which does not know the security context of steps; upgrade it")
    return f"Kubeflow Pipelines {version}"


def _health(client: Client) -> dict[str, object]:
    """What the server says of itself; kfp's own model leaves the version out."""
    health = client.get("/apis/v2beta1/healthz")
    if not isinstance(health, dict):
        raise Trouble(0, f"{client.host} does not answer like Kubeflow Pipelines", passing=False)
    return health


def _experiment(client: Client) -> str:
    profile = client.profile
    found = client.call(
        f"look up the experiment {profile.experiment}",
        lambda: client.kfp.list_experiments(namespace=profile.namespace, filter=named(profile.experiment)),
    )
    return "it is there" if found.experiments else "it will be made by the first run"


def _root(target: "KubeflowTarget") -> str:
    """Steps write there, with rights of their own; what can be seen from here is what they are told."""
    client, profile, core = target.client, target.profile, target.client.core
    if core is None:
        root = profile.pipeline_root or "the default of the server"
        raise CheckWarning(f"{root}: only steps can tell; try it with `kfp-hybrid doctor {target.name} --run`")
    namespace = client.cluster_namespace
    config = _of_cluster(
        f"ConfigMap {LAUNCHER} in namespace {namespace}",
        lambda: core.read_namespaced_config_map(LAUNCHER, namespace),
    )
    data = (config.data or {}) if config else {}
    root = profile.pipeline_root or data.get("defaultPipelineRoot") or "minio://mlpipeline/v2/artifacts"
    scheme = root.partition("://")[0]
    if scheme not in (yaml.safe_load(data.get("providers") or "{}") or {}) and scheme != "minio":
        raise CheckWarning(
            f"{root}: the ConfigMap {LAUNCHER} in namespace {namespace} says nothing of {scheme}:// (providers), so "
            f"steps need rights of their own there; try it with `kfp-hybrid doctor {target.name} --run`"
        )
    return f"{root}, as far as the ConfigMap {LAUNCHER} says"


def _secret(client: Client, secret: KubernetesSecret) -> str:
    namespace, core = client.cluster_namespace, client.core
    if core is None:
        raise CheckWarning(f"only a profile with a kubeconfig can tell; see `kubectl get secret {secret.secret}`")
    found = _of_cluster(
        f"secret {secret.secret} in namespace {namespace}",
        lambda: core.read_namespaced_secret(secret.secret, namespace),
    )
    if found is None:
        what = f"there is no secret {secret.secret} in namespace {namespace}"
        raise CheckWarning(f"{what}; steps start without it") if secret.optional else UserError(f"{what}; make it")
    missing = sorted(set(secret.env.values()) - set(found.data or {}))
    if missing:
        raise UserError(f"the secret {secret.secret} in namespace {namespace} has no key {', '.join(missing)}")
    return f"{secret.secret} in namespace {namespace}"


def _kserve(client: Client) -> str:
    """What serves models; a cluster without it runs all other steps."""
    from kubernetes.client import ApisApi

    assert client.core is not None  # the profile has a kubeconfig
    apis = ApisApi(client.core.api_client)
    found = _of_cluster("list of APIs", apis.get_api_versions)
    if KSERVE not in [group.name for group in (found.groups if found else [])]:
        raise CheckWarning(
            'there is none, so runs that serve a model fail; install it, or set serving = "deployment" in the profile'
        )
    return "deploy_model brings it the model server together with a model"


def _of_cluster(what: str, read: Callable[[], T]) -> T | None:
    """An object of the cluster; None when it is not there."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return read()
    except ApiException as error:
        if error.status == 404:
            return None
        raise CheckWarning(f"the cluster does not show you the {what}: {error.status} {error.reason}") from None
    except HTTPError as error:
        raise UserError(f"cannot reach the cluster of the kubeconfig: {reason(error)}") from None


def _lint(target: "KubeflowTarget") -> str:
    from kfp_hybrid.sources import compile_pipeline

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hello.yaml"
        compile_pipeline("hello", target, path)
        errors = [finding for finding in target.lint(Package.load(path)) if finding.level == ERROR]
    if errors:
        raise UserError(f"{len(errors)} errors in the pipeline hello, the first: {errors[0]}")
    return "hello does"
