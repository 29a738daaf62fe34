"""The manifests: that they build, what Kubernetes makes of them, and what they say, read as written."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kfp_hybrid import __version__, images, profiles
from kfp_hybrid.components.deployment.deploy_model.servers import TENSORFLOW_SERVING
from kfp_hybrid.sources import pipeline_names
from kfp_hybrid.targets.model_server import server_images

sys.path.insert(0, str(Path(__file__).parents[2] / "kustomize"))

from manifests import (
    MANIFESTS,
    NAMESPACE_OF,
    OVERLAYS,
    ROOT,
    STORES,
    build,
    containers,
    only,
    overlay,
    pod_specs,
    with_store,
)

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")

OLDEST, NEWEST = "1.25", kubernetes_validate.latest_version()
CLUSTER_WIDE = ("trainer", "serving", "overlays/airgapped/trainer", "overlays/airgapped/serving", "namespace")
FOLDERS = [*(f"overlays/{name}" for name in OVERLAYS), *CLUSTER_WIDE, "pipelines/native"]
CUSTOM = ("pipelines.kubeflow.org/", "trainer.kubeflow.org/", "serving.kserve.io/")
ISOLATED = ("overlays/airgapped", "overlays/airgapped/trainer", "overlays/airgapped/serving")
KUBECTL_LIMIT = 262144  # bytes of the annotation in which `kubectl apply` keeps what was applied


@pytest.fixture(params=[*FOLDERS, *STORES])
def objects(request, tmp_path):
    """What each folder, and each object store in the overlay onprem, builds."""
    return with_store(request.param, tmp_path) if request.param in STORES else build(request.param)


# Kubernetes


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_valid_in_the_oldest_and_the_newest_kubernetes(objects, version):
    for item in objects:
        if not item["apiVersion"].startswith(CUSTOM):
            validate(json.dumps(item), version)
        for spec in (
            pod_specs(item) if item["kind"].startswith("Cluster") and item["apiVersion"].startswith(CUSTOM) else ()
        ):
            if item["kind"] == "ClusterServingRuntime":  # its other fields are KServe's, and tested with its models
                spec = {name: spec[name] for name in ("containers", "volumes")}
            template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "a"}}
            validate(json.dumps({**template, "template": {"spec": spec}}), version)


@functools.cache  # folders share most of their objects
def validate(item, version):
    kubernetes_validate.validate(json.loads(item), version, strict=True)


def test_an_unknown_field_is_not_valid():
    with pytest.raises(kubernetes_validate.ValidationError):
        validate('{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}, "automount": true}', NEWEST)


def test_kubectl_apply_can_keep_every_object_in_its_annotation(objects):
    for item in objects:
        assert len(json.dumps(item)) < KUBECTL_LIMIT, item["metadata"]["name"]


def test_every_pod_keeps_to_the_standard_restricted(objects):
    for item in objects:
        for spec in pod_specs(item):
            assert violations(spec) == [], item["metadata"]["name"]


def violations(spec):
    """What Pod Security's standard "restricted" would refuse, of the fields that these manifests use."""
    pod = spec.get("securityContext", {})
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    allowed = {"name", "configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim", "downwardAPI", "csi"}
    found += [f"volume {volume['name']}" for volume in spec.get("volumes", []) if set(volume) - allowed]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own = container.get("securityContext", {})
        checks = {
            "privilege escalation": own.get("allowPrivilegeEscalation") is False and not own.get("privileged"),
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "root": (own.get("runAsNonRoot") or pod.get("runAsNonRoot"))
            and 0 not in (own.get("runAsUser"), pod.get("runAsUser")),
            "seccomp": (own.get("seccompProfile") or pod.get("seccompProfile")) == {"type": "RuntimeDefault"},
        }
        found += [f"{container['name']}: {what}" for what, kept in checks.items() if not kept]
    return found


def test_the_check_of_that_standard_finds_what_it_looks_for():
    root = {"containers": [{"name": "a"}], "volumes": [{"name": "host", "hostPath": {"path": "/"}}], "hostPID": True}
    assert violations(root) == [
        "hostPID", "volume host", "a: privilege escalation", "a: capabilities", "a: root", "a: seccomp",
    ]  # fmt: skip


def test_every_container_has_a_read_only_root_and_pods_get_no_token_of_the_api_server(objects):
    for item in objects:
        for spec in pod_specs(item):
            if item["kind"] != "ClusterServingRuntime":  # KServe gives its pods the account of the InferenceService
                assert spec["automountServiceAccountToken"] is False
    for container in containers(objects):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_containers_ask_for_memory_and_are_bounded():
    for name in OVERLAYS:
        for container in containers(overlay(name)):
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


# What an installation is


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_changes_one_namespace_and_nothing_outside_of_it(name):
    for item in overlay(name):
        assert item["metadata"]["namespace"] == NAMESPACE_OF[name]
        assert item["kind"] not in ("Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition")
        assert item["metadata"]["labels"]["app.kubernetes.io/part-of"] == "kfp-hybrid"


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_has_no_secret_and_every_secret_it_names_is_made_by_secrets_or_by_kubeflow(name):
    assert not [each for each in overlay(name) if each["kind"] == "Secret"]
    named = {
        entry["valueFrom"]["secretKeyRef"]["name"]
        for container in containers(overlay(name))
        for entry in container.get("env", [])
        if "valueFrom" in entry
    }
    assert named <= {"object-store"}


def test_the_template_of_the_secret_has_no_values_and_git_ignores_the_filled_one(tmp_path):
    template = MANIFESTS / "secrets/object-store.env.template"
    keys = dict(line.split("=", 1) for line in template.read_text().splitlines())
    assert keys.pop("S3_ENDPOINT")
    assert keys == {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    ignored = subprocess.run(["git", "-C", ROOT, "check-ignore", "manifests/secrets/object-store.env"])
    assert ignored.returncode == 0
    (tmp_path / "kustomization.yaml").write_text((MANIFESTS / "secrets/kustomization.yaml").read_text())
    (tmp_path / "object-store.env").write_text(template.read_text())
    secret = only(build(str(tmp_path)), "Secret", "object-store")
    kubernetes_validate.validate(secret, NEWEST, strict=True)
    assert set(secret["data"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "S3_ENDPOINT"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_profile_of_an_overlay_is_one_that_the_command_line_takes_and_fits_the_overlay(name, tmp_path):
    objects = overlay(name)
    file = tmp_path / "kfp-hybrid.toml"
    file.write_text(only(objects, "ConfigMap", "kfp-hybrid-profile")["data"]["kfp-hybrid.toml"])
    (profile,) = (each for each in profiles.load(file).targets.values() if each.kind == "kubeflow")
    assert profile.namespace in (None, NAMESPACE_OF[name])
    only(objects, "ServiceAccount", profile.service_account)
    storage = profile.secrets["storage"]
    assert (storage.secret, set(storage.env)) == (
        "object-store",
        {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "S3_ENDPOINT"},
    )
    image = next(each["image"] for each in containers(objects) if "kfp-hybrid/" in each["image"])
    assert image == profiles.image_reference(profile, "deployment")
    assert set(profiles.load(file).resources) >= {"training", "serving", "prediction"}


def test_pods_that_must_end_get_no_proxy_of_istio_which_would_go_on():
    ending = [
        (item["metadata"]["name"], item["spec"]["template"]) for item in overlay("airgapped") if item["kind"] == "Job"
    ]
    ending += [
        (job["name"], job["template"]["spec"]["template"])
        for runtime in build("trainer")
        for job in runtime["spec"]["template"]["spec"]["replicatedJobs"]
    ]
    assert len(ending) == 3
    for name, template in ending:
        assert template["metadata"]["labels"]["sidecar.istio.io/inject"] == "false", name


def test_jobs_are_named_after_the_version_because_they_cannot_be_changed():
    jobs = [each["metadata"]["name"] for each in overlay("airgapped") if each["kind"] == "Job"]
    assert jobs and all(name.endswith("-" + __version__.replace(".", "-")) for name in jobs)


# Object stores


def stores(tmp_path):
    """The overlays, and onprem with each store."""
    yield from ((name, overlay(name)) for name in OVERLAYS)
    for store in STORES:
        (tmp_path / store).mkdir()
        yield store, with_store(store, tmp_path / store)


def test_runs_sign_in_to_the_store_of_their_root_with_a_secret_that_they_may_read(tmp_path):
    for name, objects in stores(tmp_path):
        launcher = only(objects, "ConfigMap", "kfp-launcher")["data"]
        provider = yaml.safe_load(launcher["providers"])[launcher["defaultPipelineRoot"].partition(":")[0]]["default"]
        assert provider["disableSSL"] is not provider["endpoint"].startswith("https://"), name
        secret = provider["credentials"]["secretRef"]["secretName"]
        rules = only(objects, "Role", "kfp-hybrid-runner")["rules"]
        (readable,) = (rule["resourceNames"] for rule in rules if rule["resources"] == ["secrets"])
        assert secret in readable, name


def test_a_store_of_the_cluster_is_where_runs_look_for_it_and_gets_its_keys_from_the_secret(tmp_path):
    for store in ("seaweedfs", "minio"):
        (tmp_path / store).mkdir()
        objects = with_store(store, tmp_path / store)
        service, deployment = only(objects, "Service"), only(objects, "Deployment")
        assert "http://object-store.kubeflow:8333" in only(objects, "ConfigMap", "kfp-launcher")["data"]["providers"]
        (port,) = service["spec"]["ports"]
        where = service["metadata"]["name"], service["metadata"]["namespace"], port["port"]
        assert where == ("object-store", "kubeflow", 8333)
        template = deployment["spec"]["template"]
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        ports = {each["name"]: each["containerPort"] for each in template["spec"]["containers"][0]["ports"]}
        assert ports[port["targetPort"]] == 8333
        keys = {
            entry["valueFrom"]["secretKeyRef"]["key"]
            for container in containers([deployment])
            for entry in container.get("env", [])
            if "valueFrom" in entry
        }
        assert keys == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_seaweedfs_knows_its_user_before_it_starts_and_nobody_else(tmp_path):
    (starting,) = only(with_store("seaweedfs", tmp_path), "Deployment")["spec"]["template"]["spec"]["initContainers"]
    file = tmp_path / "s3.json"
    script = starting["command"][-1].replace("/identities/s3.json", str(file))
    subprocess.run(["sh", "-ec", script], check=True, env={"ACCESS_KEY": "AKIA1", "SECRET_KEY": "a+b/c="})
    (identity,) = json.loads(file.read_text())["identities"]
    assert identity["credentials"] == [{"accessKey": "AKIA1", "secretKey": "a+b/c="}]
    assert identity["actions"][0] == "Admin"
    assert file.stat().st_mode & 0o077 == 0


def test_a_namespace_of_a_profile_keeps_to_its_own_folder_of_the_store():
    launcher = only(overlay("multi-user"), "ConfigMap", "kfp-launcher")["data"]
    assert launcher["defaultPipelineRoot"] == "minio://mlpipeline/private-artifacts/team-a/v2/artifacts"


# Images


def third_party():
    listed = yaml.safe_load((MANIFESTS / "images.yaml").read_text())["images"]
    return {f"{each['name']}:{each['tag']}" for each in listed}


def test_images_are_those_of_this_version_or_listed_once(tmp_path):
    used = {
        container["image"]
        for name, objects in stores(tmp_path)
        if name != "airgapped"
        for container in containers(objects)
    }
    used |= {container["image"] for name in ("trainer", "serving") for container in containers(build(name))}
    ours = {image for image in used if image.startswith(images.REGISTRY)}
    assert ours == {images.DEPLOYMENT, images.TENSORFLOW, images.SERVING}
    assert third_party() == (used - ours) | {f"docker.io/{TENSORFLOW_SERVING.image}"}


def test_an_isolated_site_needs_the_same_images_from_its_own_registry():
    mirrored = {each["image"] for folder in ISOLATED for each in containers(build(folder))}
    paths = {each.partition("/")[2] for each in mirrored}
    known = third_party() | {images.DEPLOYMENT, images.TENSORFLOW, images.SERVING}
    assert {each.partition("/")[0] for each in mirrored} == {"registry.internal:5000"}
    assert paths <= {each.partition("/")[2] for each in known}
    target = profiles.load(ROOT / "manifests/overlays/airgapped/kfp-hybrid.toml").target("onprem")
    servers = {reference.partition("/")[2] for reference in server_images(target, profiles.Resources()).values()}
    assert servers == {each.partition("/")[2] for each in (images.TENSORFLOW, images.SERVING)} < paths
    assert target.registry.startswith("registry.internal:5000/")


PUBLIC_NAME = re.compile(r"\b(?:[a-z0-9-]+\.)+(?:com|org|net|io|dev|ai|app|cloud|co|google|eu|de|uk)\b", re.I)
NAMES_OF_THE_API = {"apiVersion", "apiGroup", "apiGroups", "matchLabels", "labels", "annotations", "key", "audience"}


@pytest.mark.parametrize("folder", ISOLATED)
def test_nothing_outside_of_an_isolated_site_is_named(folder):
    texts = [text for item in build(folder) for text in values(item)]
    assert [found.group() for text in texts for found in PUBLIC_NAME.finditer(text)] == []


def test_the_search_for_outside_names_finds_them():
    assert PUBLIC_NAME.search("image: ghcr.io/kfp-hybrid/deployment:0.1.0")
    assert PUBLIC_NAME.search("https://storage.googleapis.com")
    assert not PUBLIC_NAME.search("http://ml-pipeline.kubeflow:8888, registry.internal:5000/x:1")


def values(item):
    """The texts of an object, without the names of API groups and labels, which look like host names but are none."""
    if isinstance(item, dict):
        for key, each in item.items():
            if key not in NAMES_OF_THE_API:
                yield from values(each)
    elif isinstance(item, list):
        for each in item:
            yield from values(each)
    elif isinstance(item, str):
        yield item


# Pipelines


def test_every_pipeline_is_there_as_resources_too():
    objects = build("pipelines/native")
    names = {each["metadata"]["name"] for each in objects if each["kind"] == "Pipeline"}
    versions = {each["spec"]["pipelineName"]: each for each in objects if each["kind"] == "PipelineVersion"}
    assert names == set(versions) and len(names) == len(pipeline_names())
    for version in versions.values():
        assert version["spec"]["displayName"] == __version__
        assert version["spec"]["pipelineSpec"]["pipelineInfo"]["name"] == version["spec"]["pipelineName"]


def test_the_page_gives_pull_secrets_to_every_account_that_pods_have():
    (accounts,) = re.findall(r"for account in (.*); do", (ROOT / "docs/onprem.md").read_text())
    made = {each["metadata"]["name"] for each in overlay("airgapped") if each["kind"] == "ServiceAccount"}
    assert set(accounts.split()) == made | {"default"}


def test_the_pages_of_the_installation_name_only_folders_that_are_there():
    text = (ROOT / "docs/onprem.md").read_text()
    to_be_made = {"manifests/secrets/object-store.env", "manifests/overlays/team-b"}
    named = set(re.findall(r"manifests/[\w/.-]*\w", text)) - to_be_made
    assert {path for path in named if not (ROOT / path).exists()} == set()
