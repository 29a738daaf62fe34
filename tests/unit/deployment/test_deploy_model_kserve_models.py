"""Every InferenceService that deploy_model can make is one to the models of the `kserve` package.

They come from its wheel alone, below .cache/test-tools-kserve (`scripts/test.sh` puts it there): the package itself
would bring servers and drivers along.
"""

import importlib
import re
import sys
import types
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes import client

from kfp_hybrid.components.deployment.deploy_model import inference_service, runtime
from kfp_hybrid.components.deployment.deploy_model.location import ModelLocation
from kfp_hybrid.components.deployment.deploy_model.request import Request
from kfp_hybrid.components.deployment.deploy_model.runtime import serving_runtime
from kfp_hybrid.components.deployment.deploy_model.servers import SERVERS

ROOT = Path(__file__).resolve().parents[3]
OURS = [name for name, server in SERVERS.items() if server.engine]
WHEEL = ROOT / ".cache/test-tools-kserve"
QUANTITIES = st.dictionaries(st.sampled_from(["cpu", "memory", "nvidia.com/gpu"]), st.sampled_from(["1", "2Gi"]))
TEXT = st.text("abcdefghij", min_size=1, max_size=8)
REQUESTS = st.builds(
    Request,
    service=st.just("flights"),
    storage_secret=st.sampled_from(["", "store"]),
    server=st.sampled_from(list(SERVERS)),
    model_format=st.sampled_from(["", "onnx"]),
    runtime=st.sampled_from(["", "kserve-tensorflow-serving", "ours"]),
    min_replicas=st.integers(0, 3),
    max_replicas=st.sampled_from([0, 5]),
    resources=st.dictionaries(st.sampled_from(["requests", "limits"]), QUANTITIES),
    node_selector=st.dictionaries(TEXT, TEXT, max_size=2),
    tolerations=st.lists(st.fixed_dictionaries({"key": TEXT, "operator": st.just("Exists")}), max_size=2),
    annotations=st.dictionaries(TEXT, TEXT, max_size=2),
    pull_secrets=st.lists(TEXT, max_size=2),
    run=TEXT,
)
LOCATIONS = st.builds(
    ModelLocation,
    folder=st.sampled_from(["s3://models/flights", "minio://m/f", "gs://m/f", "pvc://claim/f", "https://h/f.tgz"]),
    version=st.sampled_from([0, 7]),
    digest=TEXT,
    holds_versions=st.just(True),
)


@pytest.fixture(scope="module")
def model_named():
    """Finds a model class of kserve or kubernetes by its name, without importing all of kserve."""
    assert (WHEEL / "kserve/models").is_dir(), f"{WHEEL} is missing; scripts/test.sh makes it"
    package = types.ModuleType("kserve")
    package.__path__ = [str(WHEEL / "kserve")]
    sys.modules["kserve"] = package
    models = importlib.import_module("kserve.models")
    yield lambda name: getattr(models, name, None) or getattr(client, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "kserve"]:
        del sys.modules[name]


def check(value, kind, model_named, where="InferenceService"):
    """Refuse what is not of the type `kind`: unknown fields, and values of other types."""
    if match := re.fullmatch(r"(list|dict)[\[(](?:str, )?(.+)[\])]", kind):
        assert isinstance(value, {"list": list, "dict": dict}[match[1]]), f"{where} is no {kind}"
        for key, each in value.items() if match[1] == "dict" else enumerate(value):
            check(each, match[2], model_named, f"{where}.{key}")
    elif kind in ("str", "int", "bool", "float", "object"):
        expected = {"str": str, "int": int, "bool": bool, "float": float, "object": object}[kind]
        assert isinstance(value, expected), f"{where} is no {kind}"
    else:
        model = model_named(kind)
        names = {wire: name for name, wire in model.attribute_map.items()}
        assert not set(value) - set(names), f"{where} has unknown fields {set(value) - set(names)}"
        for wire, each in value.items():
            check(each, model.openapi_types[names[wire]], model_named, f"{where}.{wire}")
        model(**{names[wire]: each for wire, each in value.items()})  # it checks what is required


@settings(max_examples=200, deadline=None)
@given(REQUESTS, LOCATIONS, st.none() | st.integers(0, 100))
def test_kserve_knows_every_field_that_it_is_given(model_named, request_, location, share):
    record = inference_service.make_record(request_, location)
    item = inference_service.inference_service("flights", record, record, share)
    body = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", **item}
    check(body, "V1beta1InferenceService", model_named)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda predictor: predictor.update(canaryPercent=10), "unknown fields {'canaryPercent'}"),
        (lambda predictor: predictor.update(canaryTrafficPercent="10"), "predictor.canaryTrafficPercent is no int"),
        (lambda predictor: predictor["model"].pop("modelFormat"), "model_format"),
    ],
)
def test_this_check_finds_mistakes(model_named, spoil, message):
    location = ModelLocation("s3://models/flights", 7)
    record = inference_service.make_record(Request(service="flights", server="kfp-hybrid"), location)
    item = inference_service.inference_service("flights", record, None, 10)
    spoil(item["spec"]["predictor"])
    with pytest.raises((AssertionError, ValueError), match=re.escape(message)):
        check(item, "V1beta1InferenceService", model_named)


@pytest.mark.parametrize(
    ("make", "kind"), [(inference_service.pin, "V1ConfigMap"), (inference_service.storage_account, "V1ServiceAccount")]
)
def test_kubernetes_knows_every_field_of_what_goes_with_it(model_named, make, kind):
    request = Request(service="flights", server="tensorflow-serving", storage_secret="store")
    item = make(request, ModelLocation("s3://m/f", 7)) if make is inference_service.pin else make(request)
    owner = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "f", "uid": "u"},
    }
    check(inference_service.owned_by(item, owner), kind, model_named)


def runtimes():
    return list(yaml.safe_load_all((ROOT / "manifests/serving/cluster-serving-runtime.yaml").read_text()))


@pytest.mark.parametrize("item", runtimes(), ids=lambda item: item["metadata"]["name"])
def test_kserve_knows_every_field_of_the_runtimes(model_named, item):
    check(item, "V1alpha1ClusterServingRuntime", model_named, "ClusterServingRuntime")


@pytest.mark.parametrize("server", OURS)
def test_kserve_knows_every_field_of_the_runtime_that_comes_with_a_model(model_named, server):
    item = serving_runtime(Request(service="flights", server=server))
    check({"apiVersion": "serving.kserve.io/v1alpha1", **item}, "V1alpha1ServingRuntime", model_named, "ServingRuntime")


def test_the_runtimes_of_the_cluster_are_those_that_come_with_a_model_for_kserve_to_choose():
    found = {item["metadata"]["name"]: item["spec"] for item in runtimes()}
    assert list(found) == OURS
    for name, specification in found.items():
        (supported,) = specification["supportedModelFormats"]
        assert (supported.pop("autoSelect"), supported.pop("priority")) == (True, 1)
        assert specification == runtime.runtime(SERVERS[name], SERVERS[name].image)
