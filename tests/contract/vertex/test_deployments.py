"""Pipelines that deploy, run as Vertex AI runs them: with the programs of Google's components, and a registry of models
that holds what they ask for."""

import sys
from pathlib import Path

import pytest
from kfp import dsl
from played_run import PlayedRun

sys.path.insert(0, str(Path(__file__).parents[2] / "servers"))
from gcs_server import Buckets, serve_gcs
from vertex_registry import FakeRegistry

from kfp_hybrid import __version__
from kfp_hybrid.components.deployment.plan_vertex_deployment.component import plan_vertex_deployment
from kfp_hybrid.components.deployment.shift_endpoint_traffic.component import shift_endpoint_traffic
from kfp_hybrid.lint import lint
from kfp_hybrid.package import Package
from kfp_hybrid.pipelines import deploy, shift_traffic
from kfp_hybrid.profiles import Resources
from kfp_hybrid.profiles.models import PREBUILT
from kfp_hybrid.serving.options import read

HOST = "europe-west4-aiplatform.googleapis.com"
KEY = "projects/ml-production/locations/europe-west4/keyRings/ml/cryptoKeys/k"
ACCOUNT = "pipelines@ml-production.iam.gserviceaccount.com"


@pytest.fixture
def registry(google):
    google.hosts[HOST] = FakeRegistry()
    return google.hosts[HOST]


@pytest.fixture
def models(monkeypatch, no_google_environment):
    """Cloud Storage with three models."""
    buckets = Buckets()
    buckets.blobs["models"] = {}
    for version in range(1, 4):
        buckets.put("models", f"flights/{version}/saved_model.pb", b"a model", {}, None)
    with serve_gcs(buckets) as port:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        yield buckets


@pytest.fixture
def play(registry, models, server, open_target, tmp_path, no_pauses):
    """Runs a pipeline that is made for a target with a profile and resources."""
    runs = []

    def run(make, profile, resources, **arguments):
        target = open_target(**profile)
        target.resources_for = lambda name: resources.get(name, Resources())
        folder = tmp_path / f"run-{len(runs)}"
        folder.mkdir()
        target.compile(make(target), folder / "package.yaml")
        package = Package.load(folder / "package.yaml")
        assert not lint(package, ["vertex"])
        runs.append(PlayedRun(package, [plan_vertex_deployment, shift_endpoint_traffic, pushed], folder))
        return runs[-1].run(**arguments)

    return run


@pytest.fixture
def deploys(play):
    """Deploys a model from Cloud Storage."""

    def run(uri="gs://models/flights/1", canary_percent=100, resources=None, **profile):
        arguments = {"model_uri": uri, "service": "flights", "canary_percent": canary_percent}
        return play(deploy.deploy, profile, resources or {}, **arguments)

    return run


def the_endpoint(registry):
    (endpoint,) = registry.endpoints.values()
    return endpoint


def shares(registry):
    """The shares of the models on the endpoint, the oldest first."""
    endpoint = the_endpoint(registry)
    return [endpoint.traffic_split.get(each.id, 0) for each in endpoint.deployed_models]


def test_the_first_deployment_makes_everything(deploys, registry):
    deploys(encryption_key=KEY, service_account=ACCOUNT, labels={"team": "ml"})
    (model,) = registry.models
    assert model.artifact_uri == "gs://models/flights/1"
    assert model.display_name == "flights"
    assert model.labels["team"] == "ml"
    endpoint = the_endpoint(registry)
    assert endpoint.display_name == "flights"
    assert endpoint.labels["team"] == "ml"
    assert {model.encryption_spec.kms_key_name, endpoint.encryption_spec.kms_key_name} == {KEY}
    (deployed,) = endpoint.deployed_models
    assert (deployed.model, deployed.model_version_id) == (model.name, "1")
    assert deployed.service_account == ACCOUNT
    assert deployed.dedicated_resources.machine_spec.machine_type == "e2-standard-4"
    assert dict(endpoint.traffic_split) == {deployed.id: 100}


@pytest.mark.parametrize(
    ("name", "bundle", "gpu", "image", "engine"),
    [
        ("auto", True, False, "serving:0.1.0", "auto"),  # LiteRT, by the rule by which the image was chosen
        ("auto", False, False, "tensorflow:0.1.0", "auto"),
        ("auto", True, True, "tensorflow:0.1.0-gpu", "tensorflow"),
        ("kfp-hybrid", True, False, "serving:0.1.0", "litert"),
        ("kfp-hybrid-tensorflow", True, False, "tensorflow:0.1.0", "tensorflow"),
    ],
)
def test_the_model_server_that_suits_the_model_is_a_container_with_a_command(
    deploys, registry, models, name, bundle, gpu, image, engine
):
    if bundle:
        models.put("models", "flights/1/edge/model.tflite", b"a bundle", {}, None)
    resources = {"serving": Resources(accelerator="L4")} if gpu else {}
    deploys(server=name, registry="eu.example/ml", resources=resources)
    (model,) = registry.models
    assert model.container_spec.image_uri == f"eu.example/ml/{image.replace('0.1.0', __version__)}"
    assert list(model.container_spec.command) == ["python", "-m", "kfp_hybrid.serving", f"--engine={engine}"]


def test_the_command_is_one_that_the_server_understands_with_the_variables_of_vertex(deploys, registry):
    deploys()
    command = list(registry.models[0].container_spec.command)
    given = {"AIP_STORAGE_URI": "gs://elsewhere/copy", "AIP_HTTP_PORT": "8080", "AIP_PREDICT_ROUTE": "/v1/e/7:predict"}
    options = read(command[3:], given)
    assert (options.model, options.port, options.predict_route) == ("gs://elsewhere/copy", 8080, "/v1/e/7:predict")


def test_a_server_of_google_takes_no_command(deploys, registry):
    deploys(server="prebuilt", serving_image="eu.example/serving:2")
    (model,) = registry.models
    assert model.container_spec.image_uri == "eu.example/serving:2"
    assert not model.container_spec.command


def test_a_model_moves_from_the_server_of_google_to_ours_by_a_canary_and_back(play, registry, models):
    """Both containers stand behind one endpoint, so that each answers until the other has everything."""
    models.put("models", "flights/1/MANIFEST.json", b'{"digest": "4f4f"}', {}, None)
    arguments = {"model_uri": "gs://models/flights/1", "service": "flights"}
    play(deploy.deploy, {"server": "prebuilt"}, {}, **arguments, canary_percent=100)
    play(deploy.deploy, {}, {}, **arguments, canary_percent=10)
    old, new = registry.models
    assert (old.container_spec.image_uri, list(old.container_spec.command)) == (PREBUILT, [])
    assert new.container_spec.command
    assert shares(registry) == [90, 10]
    play(shift_traffic.shift_traffic, {}, {}, service="flights", action="rollback")
    assert shares(registry) == [100, 0]
    play(shift_traffic.shift_traffic, {}, {}, service="flights", action="promote")
    assert shares(registry) == [0, 100]
    play(deploy.deploy, {}, {}, **arguments, canary_percent=100)
    assert len(registry.models) == 2


def test_the_next_one_is_a_version_and_a_canary(deploys, registry):
    deploys()
    deploys("gs://models/flights/2", canary_percent=10)
    first, second = registry.models
    assert (second.name, second.version_id, second.artifact_uri) == (first.name, "2", "gs://models/flights/2")
    assert shares(registry) == [90, 10]
    deploys("gs://models/flights/3", canary_percent=50)
    assert shares(registry) == [45, 5, 50]


def test_the_machines_are_those_of_the_resources_serving(deploys, registry):
    deploys(resources={"serving": Resources(cpu=6, memory="20Gi", accelerator="L4", nodes=3)})
    machines = the_endpoint(registry).deployed_models[0].dedicated_resources
    assert machines.machine_spec.machine_type == "g2-standard-8"
    assert machines.machine_spec.accelerator_type.name == "NVIDIA_L4"
    assert (machines.machine_spec.accelerator_count, machines.max_replica_count) == (1, 3)


def test_the_same_content_is_deployed_once(play, registry, capfd):
    for _ in range(2):
        run = play(push_and_deploy, {}, {}, version=1, digest="sha256-a")
    assert [model.version_id for model in registry.models] == ["1"]
    assert len(the_endpoint(registry).deployed_models) == 1
    assert run.started == ["pushed", "plan-vertex-deployment"]
    assert "on the endpoint flights already and gets 100 % of the requests" in capfd.readouterr().err


def test_an_imported_content_is_deployed_once_too(deploys, registry, models):
    models.put("models", "flights/1/MANIFEST.json", b'{"digest": "4f4f"}', {}, None)
    deploys()
    assert "plan-vertex-deployment" in deploys().started
    assert len(registry.models) == len(the_endpoint(registry).deployed_models) == 1


def test_a_content_that_the_registry_has_is_deployed_from_there(play, registry):
    play(push_and_deploy, {}, {}, version=1, digest="sha256-a")
    play(push_and_deploy, {}, {}, version=2, digest="sha256-b")
    endpoint = the_endpoint(registry)
    endpoint.deployed_models = endpoint.deployed_models[1:]
    endpoint.traffic_split = {endpoint.deployed_models[0].id: 100}
    play(push_and_deploy, {}, {}, version=1, digest="sha256-a")
    assert len(registry.models) == 2
    assert [each.model_version_id for each in the_endpoint(registry).deployed_models] == ["2", "1"]


def test_a_model_of_the_registry_is_deployed_without_an_upload(play, registry):
    registry.model("")
    play(deploy_registered, {"service_account": ACCOUNT}, {})
    (deployed,) = the_endpoint(registry).deployed_models
    assert (deployed.model, deployed.model_version_id) == (registry.models[0].name, "1")
    assert deployed.service_account == ""


def test_traffic_is_shifted_by_a_pipeline_too(deploys, play, registry):
    deploys()
    deploys("gs://models/flights/2", canary_percent=10)
    first, second = the_endpoint(registry).deployed_models
    play(shift_traffic.shift_traffic, {}, {}, service="flights", action="promote")
    assert dict(the_endpoint(registry).traffic_split) == {second.id: 100}
    play(shift_traffic.shift_traffic, {}, {}, service="flights", action="rollback")
    assert dict(the_endpoint(registry).traffic_split) == {first.id: 100}


@dsl.component(base_image="ghcr.io/elsewhere/tools:1", install_kfp_package=False)
def pushed(version: int, digest: str, model: dsl.Output[dsl.Model]):
    """What push_model puts out."""
    model.metadata.update(destination="gs://models/flights", version=version, digest=digest, outcome="published")


def push_and_deploy(target):
    @dsl.pipeline(name="push-and-deploy")
    def pipeline(version: int, digest: str):
        target.deploy(model=pushed(version=version, digest=digest).outputs["model"], service="flights")

    return pipeline


def deploy_registered(target):
    from google_cloud_pipeline_components.types.artifact_types import VertexModel

    name = "projects/ml-production/locations/europe-west4/models/55@1"

    @dsl.pipeline(name="deploy-registered")
    def pipeline():
        model = dsl.importer(
            artifact_uri=f"https://{HOST}/v1/{name}", artifact_class=VertexModel, metadata={"resourceName": name}
        )
        target.deploy(model=model.output, service="flights")

    return pipeline
