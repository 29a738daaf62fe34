"""What deploy_model makes of its inputs: where the model is, what KServe and Kubernetes are asked for."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kfp_hybrid import engines, images
from kfp_hybrid.components.deployment.deploy_model import inference_service, plain_objects
from kfp_hybrid.components.deployment.deploy_model.deploy import _settled, run_action
from kfp_hybrid.components.deployment.deploy_model.location import ModelLocation, locate
from kfp_hybrid.components.deployment.deploy_model.names import REVISION
from kfp_hybrid.components.deployment.deploy_model.request import Request
from kfp_hybrid.components.deployment.deploy_model.runtime import serving_runtime
from kfp_hybrid.components.deployment.deploy_model.servers import SERVERS
from kfp_hybrid.components.deployment.model_contents import choose_server
from kfp_hybrid.engines import Contents
from kfp_hybrid.serving.options import read
from kfp_hybrid.step import StepError

ROOT = Path(__file__).resolve().parents[3]


class Artifact:
    def __init__(self, uri, path=None, **metadata):
        self.uri = uri
        self.path = path
        self.metadata = metadata


def pushed(destination, version, outcome="published", digest="sha256:1", contents=None):
    facts = {"destination": destination, "version": version, "digest": digest, "outcome": outcome}
    facts |= contents._asdict() if contents else {}
    return Artifact("minio://mlpipeline/v2/artifacts/7/pushed", **facts, pushed=version > 0)


# Where the model is

PART = st.from_regex(r"[a-z][a-z0-9._-]{0,8}", fullmatch=True)
FOLDER = st.builds("/".join, st.lists(PART, min_size=2, max_size=4))
VERSION = st.integers(1, 10**9)
SCHEME = st.sampled_from(["s3", "minio", "gs", "pvc"])


@given(SCHEME, FOLDER, VERSION, st.sampled_from(["", "/", "//"]))
def test_a_uri_that_ends_in_a_number_is_a_version(scheme, folder, version, slashes):
    location = locate(None, f"{scheme}://{folder}/{version}{slashes}")
    assert location == ModelLocation(f"{scheme}://{folder}", version)
    assert location.uri == f"{scheme}://{folder}/{version}"


@given(SCHEME, FOLDER, st.sampled_from(["", "/"]))
def test_any_other_uri_is_a_folder_of_versions(scheme, folder, slash):
    location = locate(None, f"{scheme}://{folder}{slash}")
    assert location == ModelLocation(f"{scheme}://{folder}", holds_versions=True)


@given(SCHEME, FOLDER, VERSION, st.sampled_from(["", "/"]), st.sampled_from(["", "?endpoint=store:9000"]))
def test_a_pushed_model_is_at_its_destination_and_the_same_as_its_uri_says(scheme, folder, version, slash, options):
    artifact = locate(pushed(f"{scheme}://{folder}{slash}{options}", version), "")
    by_uri = locate(None, f"{scheme}://{folder}/{version}{options}")
    assert (artifact.folder, artifact.version, artifact.options) == (by_uri.folder, by_uri.version, by_uri.options)
    assert artifact.uri == by_uri.uri == f"{scheme}://{folder}/{version}{options}"
    assert artifact.digest == "sha256:1"


@given(FOLDER, VERSION)
def test_kserve_gets_every_s3_store_as_s3(folder, version):
    location = locate(None, f"minio://{folder}/{version}?endpoint=store:9000").in_kserve_terms()
    assert location.uri == f"s3://{folder}/{version}"
    assert location == location.in_kserve_terms()


def test_an_imported_model_is_where_its_uri_says():
    assert locate(Artifact("gs://models/flights/7"), "") == ModelLocation("gs://models/flights", 7)
    assert locate(Artifact("gs://run/train/model"), "") == ModelLocation("gs://run/train/model")


def test_a_uri_comes_before_an_artifact():
    assert locate(pushed("s3://models/flights", 7), "s3://other/flights/3").uri == "s3://other/flights/3"


def test_a_rollback_of_push_model_can_be_deployed():
    assert locate(pushed("s3://models/flights", 3, outcome="rolled back"), "").version == 3


def test_a_refused_model_is_not_deployed():
    with pytest.raises(StepError, match="push_model refused this model, so there is nothing to deploy"):
        locate(pushed("s3://models/flights", 0, outcome="refused"), "")


@pytest.mark.parametrize("uri", ["/models/flights/7", "models/flights", "file:///models/flights/7", ""])
def test_a_path_of_one_machine_is_refused_with_what_to_do(uri):
    for model, storage_uri in ((pushed(uri, 7), ""), (None, uri)):
        with pytest.raises(StepError, match=r"publish to an object store|there is nothing to deploy"):
            locate(model, storage_uri)


@pytest.mark.parametrize("uri", ["ftp://models/7", "s3://", "s3:///7", "hf://a/b"])
def test_a_uri_that_nothing_reads_is_refused(uri):
    with pytest.raises(StepError, match="is nothing that can be served; give s3, minio, gs"):
        locate(None, uri)


# What is refused before anything is asked of the cluster


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"service": "Flights"}, "service is 'Flights'; give lower-case letters"),
        ({"service": "a" * 46}, "at most 45 of them"),
        ({"service": "flights-"}, "the last no dash"),
        ({"action": "undo"}, "action is 'undo'; it takes deploy, promote or rollback"),
        ({"serving": "seldon"}, "serving is 'seldon'; it takes kserve or deployment"),
        ({"canary_percent": 0}, "canary_percent is 0; it takes 1 to 100; to take all requests from a model, use rollb"),
        ({"canary_percent": 101}, "canary_percent is 101; it takes 1 to 100"),
        ({"min_replicas": 5, "max_replicas": 2}, "max_replicas is 2, less than min_replicas 5"),
        ({"resources": {"cpu": "1"}}, "resources has cpu; it takes requests and limits"),
        ({"storage_secret": "a", "service_account": "b"}, "give either storage_secret or service_account"),
        ({"timeout_seconds": 0}, "timeout_seconds is 0; it takes 1 to"),
        ({"server": "triton"}, "server is 'triton'; it takes auto, kfp-hybrid, kfp-hybrid-tensorflow or tensorflow-"),
        ({"server_images": {"triton": "r/t:1"}}, "server_images has triton; it takes kfp-hybrid,"),
    ],
)
def test_inputs_that_cannot_be_meant_are_refused(inputs, message):
    with pytest.raises(StepError) as caught:
        run_action(Request(**{"service": "flights", "storage_uri": "s3://models/7", **inputs}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_cluster_the_step_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(
        StepError,
        match=r"there is no Kubernetes cluster to work on: .*; run this step on a Kubeflow target, or set KUBECONFIG",
    ):
        run_action(Request(service="flights", server="kfp-hybrid", storage_uri="s3://models/flights/7"))


# Which server suits the model


def settled(model=None, storage_uri="", **inputs):
    """The server that is chosen before anything is asked of a cluster."""
    request = Request(service="flights", storage_uri=storage_uri, **inputs)
    return _settled(request, model, locate(model, storage_uri).uri).server


BOTH, ONLY_SAVED, ONLY_EDGE = Contents(True, True), Contents(True, False), Contents(False, True)


@pytest.mark.parametrize("contents", [BOTH, ONLY_SAVED, ONLY_EDGE])
def test_the_server_runs_the_engine_that_validate_serving_tries(contents):
    chosen = settled(pushed("s3://models/flights", 7, contents=contents))
    assert SERVERS[chosen].engine == engines.choose("auto", contents)


def test_a_model_with_an_edge_bundle_runs_on_litert_and_one_without_on_tensorflow():
    assert settled(pushed("s3://models/flights", 7, contents=BOTH)) == "kfp-hybrid"
    assert settled(pushed("s3://models/flights", 7, contents=ONLY_SAVED)) == "kfp-hybrid-tensorflow"


@pytest.mark.parametrize(
    ("server", "contents", "lacks"),
    [("kfp-hybrid", ONLY_SAVED, "edge bundle"), ("kfp-hybrid-tensorflow", ONLY_EDGE, "SavedModel")],
)
def test_a_model_without_what_the_server_needs_is_refused_before_anything_is_made(server, contents, lacks):
    model = pushed("s3://models/flights", 7, contents=contents)
    with pytest.raises(StepError, match=rf"s3://models/flights/7 has no {lacks}, which server={server} needs; publish"):
        run_action(Request(service="flights", server=server), model)


@pytest.mark.parametrize(
    ("names", "server"),
    [
        (["saved_model.pb"], "kfp-hybrid-tensorflow"),
        (["saved_model.pb", "edge/model.tflite"], "kfp-hybrid"),
        (["model.tflite"], "kfp-hybrid"),
    ],
)
@pytest.mark.parametrize("way", ["an artifact", "a store"])
def test_what_nobody_has_noted_is_looked_up_where_the_model_is(tmp_path, names, server, way):
    folder = tmp_path / "7"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    if way == "an artifact":
        assert settled(Artifact("s3://models/flights/7", str(folder))) == server
    else:
        assert choose_server("auto", None, f"file://{folder}") == server


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    with pytest.raises(StepError, match="holds neither a SavedModel nor an edge bundle; give the"):
        choose_server("auto", None, f"file://{tmp_path}")


@pytest.mark.parametrize("uri", ["pvc://claim/flights/7", "https://example.com/flights.tar.gz"])
def test_where_nobody_can_look_the_server_has_to_be_named(uri):
    with pytest.raises(StepError, match=r"cannot see whether .* set server to kfp-hybrid if it has, else to kfp-hybr"):
        settled(storage_uri=uri)
    assert settled(storage_uri=uri, server="kfp-hybrid") == "kfp-hybrid"


@pytest.mark.parametrize("inputs", [{"server": "tensorflow-serving"}, {"model_format": "onnx"}])
def test_the_servers_of_others_take_whatever_there_is(inputs):
    assert settled(storage_uri="pvc://claim/flights/7", **inputs) == inputs.get("server", "auto")


# What KServe loads


def kserve_record(uri, **inputs):
    inputs = {"server": "tensorflow-serving", **inputs}
    return inference_service.make_record(Request(service="flights", **inputs), locate(None, uri))


def test_tensorflow_serving_gets_the_folder_of_versions_and_is_told_the_one():
    request = Request(service="flights", server="tensorflow-serving")
    location = locate(None, "minio://models/flights/7")
    predictor = inference_service.make_record(request, location).predictor
    assert predictor["model"]["storageUri"] == "s3://models/flights/"
    assert predictor["model"]["args"] == ["--model_config_file=/etc/kfp-hybrid/models.config"]
    pin = inference_service.pin(request, location)
    assert pin["metadata"]["name"] == predictor["volumes"][0]["configMap"]["name"] == "flights-version-7"
    text = " ".join(pin["data"]["models.config"].split())
    assert text == (
        'model_config_list { config { name: "flights" base_path: "/mnt/models" model_platform: "tensorflow" '
        "model_version_policy { specific { versions: 7 } } } }"
    )


def test_a_folder_of_versions_leaves_the_choice_to_tensorflow_serving():
    predictor = kserve_record("gs://models/flights").predictor
    assert predictor["model"]["storageUri"] == "gs://models/flights/"
    assert "args" not in predictor["model"]


@pytest.mark.parametrize("inputs", [{"runtime": "kfp-hybrid-serving"}, {"model_format": "onnx"}])
def test_other_servers_get_the_model_itself(inputs):
    predictor = kserve_record("s3://models/flights/7", **inputs).predictor
    assert predictor["model"]["storageUri"] == "s3://models/flights/7/"
    assert "volumes" not in predictor


@given(FOLDER, VERSION, VERSION)
def test_no_other_version_begins_like_the_uri_of_one(folder, one, other):
    """KServe downloads every S3 object whose key begins with the URI's path."""
    uri, another = (kserve_record(f"s3://{folder}/{v}", runtime="any").predictor["model"]["storageUri"]
                    for v in (one, other))  # fmt: skip
    assert another.startswith(uri) == (one == other)


def test_a_volume_is_named_without_a_slash_at_its_end():
    assert kserve_record("pvc://claim/flights/7").predictor["model"]["storageUri"] == "pvc://claim/flights"


def test_a_trained_model_that_was_not_published_is_refused_for_tensorflow_serving():
    location = locate(Artifact("s3://run/train/model"), "")
    with pytest.raises(StepError, match=r"has no version number as its last part.*publish it with push_model"):
        inference_service.make_record(Request(service="flights", server="tensorflow-serving"), location)
    assert inference_service.make_record(Request(service="flights", server="kfp-hybrid"), location)


# What a revision is

SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "min_replicas": st.integers(0, 5),
        "resources": st.sampled_from([{}, {"limits": {"cpu": "1"}}, {"limits": {"cpu": "2"}}]),
        "node_selector": st.sampled_from([{}, {"a": "b"}]),
        "annotations": st.sampled_from([{}, {"c": "d"}]),
        "runtime": st.sampled_from(["", "ours"]),
    },
)
ASPECTS = st.tuples(SETTINGS, st.sampled_from(["s3://m/f/1", "s3://m/f/2"]), st.sampled_from(["", "x", "y"]))


@given(ASPECTS, ASPECTS, st.sampled_from(["", "run-1"]), st.integers(1, 100))
def test_revisions_are_equal_just_when_model_and_settings_are(one, other, run, percent):
    def revision(aspects, **inputs):
        settings, uri, digest = aspects
        request = Request(service="flights", server="tensorflow-serving", **settings, **inputs)
        model = pushed(uri.rpartition("/")[0], int(uri[-1]), digest=digest)
        return inference_service.make_record(request, locate(model, "")).revision

    def meant(aspects):
        settings, uri, digest = aspects
        defaults = {"min_replicas": 1, "resources": {}, "node_selector": {}, "annotations": {}, "runtime": ""}
        return {**defaults, **settings}, uri, digest

    assert (revision(one) == revision(other, run=run, canary_percent=percent)) == (meant(one) == meant(other))


@given(SETTINGS, st.integers(0, 100) | st.none())
def test_a_record_gives_the_same_object_after_it_was_read_back(settings, share):
    record = kserve_record("s3://models/flights/7", **settings)
    item = inference_service.inference_service("flights", record, None, share)
    read = inference_service.read_record(item, "kfp-hybrid/applied")
    assert read == record
    assert inference_service.inference_service("flights", read, None, share) == item


# Plain Deployments


@given(st.integers(0, 500), st.integers(1, 99))
def test_pods_are_split_as_near_to_the_share_as_can_be_and_each_model_keeps_one(total, percent):
    canary, stable = plain_objects.split(total, percent)
    pods = max(total, 2)
    assert canary >= 1
    assert stable >= 1
    assert canary + stable == pods
    best = min(abs(each / pods - percent / 100) for each in range(1, pods))
    assert abs(canary / pods - percent / 100) == pytest.approx(best)


@given(st.integers(1, 300), st.integers(1, 98))
def test_a_greater_share_never_gets_fewer_pods(total, percent):
    assert plain_objects.split(total, percent)[0] <= plain_objects.split(total, percent + 1)[0]


def plain(uri, **inputs):
    location = locate(inputs.pop("model", None), uri)
    inputs = {"server": "tensorflow-serving", **inputs}
    return plain_objects.make_record(Request(service="flights", serving="deployment", **inputs), location)


def test_a_plain_pod_downloads_one_version_to_where_its_server_looks():
    pod = plain("minio://models/flights/7?endpoint=store:9000", storage_secret="store", download_image="r/dep:1").pod
    (download,), (server,) = pod["initContainers"], pod["containers"]
    target = "/models/flights/7"
    command = ["python", "-m", "kfp_hybrid.storage", "download"]
    assert download["command"] == [*command, "minio://models/flights/7?endpoint=store:9000", target]
    assert download["image"] == "r/dep:1"
    assert download["envFrom"] == [{"secretRef": {"name": "store"}}]
    assert {each["name"]: each["value"] for each in server["env"]} == {
        "MODEL_NAME": "flights",
        "MODEL_BASE_PATH": "/models",
        "MODEL_URI": target,
    }
    assert "envFrom" not in server  # the server has no business with the store


def test_a_model_of_no_known_version_gets_a_number_for_tensorflow_serving():
    pod = plain("", model=Artifact("s3://run/train/model")).pod
    assert pod["initContainers"][0]["command"][-2:] == ["s3://run/train/model", "/models/flights/1"]


def test_a_plain_pod_mounts_just_the_version_of_a_volume():
    pod = plain("pvc://claim/models/flights/7").pod
    assert pod["initContainers"] == []
    mount = pod["containers"][0]["volumeMounts"][0]
    assert mount == {"name": "model", "mountPath": "/models/flights/7", "subPath": "models/flights/7", "readOnly": True}


def test_plain_kubernetes_cannot_serve_an_archive_of_the_web():
    with pytest.raises(StepError, match="can be served by KServe only"):
        plain("https://example.com/models/flights.tar.gz")


# Our own server


@pytest.mark.parametrize(
    ("server", "image", "engine"),
    [("kfp-hybrid", images.SERVING, "litert"), ("kfp-hybrid-tensorflow", images.TENSORFLOW, "tensorflow")],
)
def test_our_server_is_given_the_model_its_name_and_the_ports_that_the_pod_declares(server, image, engine):
    record = plain("s3://models/flights/7", server=server)
    (container,) = record.pod["containers"]
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    command = container["command"]
    assert container["image"] == image
    assert command[:4] == ["python", "-m", "kfp_hybrid.serving", "/models/flights/7"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert (options["--name"], options["--port"], options["--grpc-port"]) == ("flights", ports["http"], ports["grpc"])
    assert options["--engine"] == engine  # a published version has both, of which the profile chooses one
    assert record.pod["securityContext"]["runAsUser"] == images.USER


def test_our_server_gets_requests_when_it_is_ready_and_is_started_again_only_when_it_is_dead():
    (container,) = plain("s3://models/flights/7", server="kfp-hybrid").pod["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/v2/health/live", "port": "http"}
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]


def test_prometheus_finds_the_metrics_of_our_server_on_its_pods():
    record = plain("s3://models/flights/7", server="kfp-hybrid")
    item = plain_objects.deployment("flights", "stable", record, 1, total=1)
    on_pods = item["spec"]["template"]["metadata"]["annotations"]
    port = next(each["containerPort"] for each in record.pod["containers"][0]["ports"] if each["name"] == "http")
    assert (on_pods["prometheus.io/path"], on_pods["prometheus.io/port"]) == ("/metrics", str(port))
    other = plain("s3://models/flights/7", server="kfp-hybrid", annotations={"prometheus.io/scrape": "false"})
    assert other.annotations["prometheus.io/scrape"] == "false"


def test_our_server_takes_another_image_and_resources_too():
    limits = {"limits": {"memory": "9Gi"}}
    (container,) = plain("s3://m/f/7", server="kfp-hybrid", image="r/serving:2", resources=limits).pod["containers"]
    assert (container["image"], container["resources"]) == ("r/serving:2", limits)


def test_the_images_of_another_registry_are_chosen_with_the_server():
    ours = {"kfp-hybrid": "r/serving:2", "kfp-hybrid-tensorflow": "r/tensorflow:2"}
    for server, image in ours.items():
        assert plain("s3://m/f/7", server=server, server_images=ours).pod["containers"][0]["image"] == image
        request = Request(service="flights", server=server, server_images=ours)
        assert serving_runtime(request)["spec"]["containers"][0]["image"] == image


@pytest.mark.parametrize("make", [plain, kserve_record])
def test_images_are_pulled_with_the_secrets_of_the_profile(make):
    record = make("s3://m/f/7", pull_secrets=["registry-credentials"])
    pod = record.pod if make is plain else record.predictor
    assert pod["imagePullSecrets"] == [{"name": "registry-credentials"}]


@pytest.mark.parametrize("server", ["kfp-hybrid", "kfp-hybrid-tensorflow"])
def test_kserve_gives_our_server_the_version_itself_and_a_runtime_that_comes_with_it(server):
    request = Request(service="flights", server=server)
    predictor = inference_service.make_record(request, locate(None, "minio://models/flights/7")).predictor
    runtime = serving_runtime(request)
    assert predictor["model"] == {
        "modelFormat": {"name": server},
        "storageUri": "s3://models/flights/7/",
        "runtime": runtime["metadata"]["name"],
    }
    assert runtime["spec"]["supportedModelFormats"][0]["name"] == server
    assert "autoSelect" not in runtime["spec"]["supportedModelFormats"][0]  # no other model is to find it


def test_another_release_gets_another_runtime_so_that_what_runs_stays_as_it_is():
    old, new = (Request(service="flights", server="kfp-hybrid", image=f"r/serving:{tag}") for tag in (1, 2))
    assert serving_runtime(old)["metadata"]["name"] != serving_runtime(new)["metadata"]["name"]
    assert len(serving_runtime(Request(service="f" * 45, server="kfp-hybrid"))["metadata"]["name"]) < 63


@pytest.mark.parametrize(
    "inputs", [{"model_format": "kfp-hybrid"}, {"runtime": "kfp-hybrid"}, {"server": "tensorflow-serving"}]
)
def test_a_runtime_of_the_cluster_is_taken_where_one_is_asked_for(inputs):
    request = Request(**{"service": "flights", "server": "kfp-hybrid", **inputs})
    assert not request.brings_runtime
    model = inference_service.make_record(request, locate(None, "s3://models/flights/7")).predictor["model"]
    assert model.get("runtime") == inputs.get("runtime")


@pytest.mark.parametrize("server", ["kfp-hybrid", "kfp-hybrid-tensorflow"])
def test_the_server_knows_the_options_that_it_is_given(server):
    """By the server's own command line: in the pods of a Deployment, and in those of KServe's runtimes."""
    (container,) = plain("s3://models/flights/7", server=server).pod["containers"]
    assert read(container["command"][3:], {}).model == "/models/flights/7"
    runtimes = yaml.safe_load_all((ROOT / "manifests/serving/cluster-serving-runtime.yaml").read_text())
    runtime = next(each["spec"] for each in runtimes if each["metadata"]["name"] == server)
    options = read(runtime["containers"][0]["args"], {})
    assert (options.model, options.port) == ("/mnt/models", runtime["containers"][0]["ports"][0]["containerPort"])


def test_the_pods_of_two_models_can_be_told_apart_and_those_of_one_model_not_by_the_run():
    def on_pods(**inputs):
        record = plain("s3://models/flights/7", **inputs)
        item = plain_objects.deployment("flights", "stable", record, 1, total=1)
        return item["spec"]["template"]["metadata"]["annotations"]

    assert on_pods(run="a") == on_pods(run="b")
    assert on_pods()[REVISION] != on_pods(image="other:1")[REVISION]
