"""plan_vertex_deployment and shift_endpoint_traffic against a server that holds models and endpoints."""

import json
import math
import re
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from google.cloud.aiplatform_v1 import types
from google.oauth2.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))

from gcs_server import Buckets, serve_gcs
from vertex_registry import PARENT, START, FakeRegistry, ids

from kfp_hybrid.components.deployment.plan_vertex_deployment.plan import _Server, _traffic_split, plan
from kfp_hybrid.components.deployment.shift_endpoint_traffic.shift import shift
from kfp_hybrid.components.deployment.vertex_endpoints import DeployedModel
from kfp_hybrid.google_api import GoogleApi
from kfp_hybrid.step import StepError, Stopped

DIGEST = "sha256-" + "4f" * 32


class Artifact:
    def __init__(self, uri="gs://models/flights/3", path=None, **metadata):
        self.uri = uri
        self.path = path
        self.metadata = metadata


def pushed(version=3, digest=DIGEST, destination="gs://models/flights"):
    return Artifact("gs://root/pushed", destination=destination, version=version, digest=digest, outcome="published")


@pytest.fixture(autouse=True)
def bucket(monkeypatch):
    """Cloud Storage with the bucket `models`, and in it a model that push_model did not make."""
    buckets = Buckets()
    buckets.blobs["models"] = {}
    buckets.put("models", "flights/3/saved_model.pb", b"a model", {}, None)
    with serve_gcs(buckets) as port:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        yield buckets


@pytest.fixture
def vertex():
    return FakeRegistry()


@pytest.fixture
def server(vertex, serve, no_pauses):
    return serve(vertex)


@pytest.fixture
def api(server):
    return GoogleApi(server.url, Credentials("a-token"), patience=60.0, poll_seconds=0)


IMAGES = {"kfp-hybrid": "r/serving:1", "kfp-hybrid-tensorflow": "r/tensorflow:1", "prebuilt": "eu.example/tf:2"}
TENSORFLOW = _Server("r/tensorflow:1", "tensorflow")  # what serves a SavedModel


def planned(api, model=None, service="flights", canary_percent=10, server="auto", **labels):
    return plan(api, PARENT, model or pushed(), service, canary_percent, labels, server, IMAGES)


# ---------------------------------------------------------------------------------------------------- the plan


def test_the_first_deployment_uploads_a_model_makes_an_endpoint_and_gets_all_requests(api):
    made = planned(api, team="ml")
    assert (made.deploy, made.upload, made.endpoint_exists) == (True, "model", False)
    assert (made.source_uri, made.model_name, made.endpoint_name) == ("gs://models/flights/3", "", "")
    assert made.traffic_split == {"0": "100"}
    labels = {"team": "ml", "kfp_hybrid_digest": DIGEST[:63], "kfp_hybrid_server": TENSORFLOW.label}
    assert made.labels == labels


def test_the_next_one_is_a_version_of_the_model_and_a_canary_on_the_endpoint(api, vertex):
    vertex.endpoint(shares=(0, 100))
    vertex.model("sha256-other")
    made = planned(api)
    assert (made.deploy, made.upload, made.endpoint_exists) == (True, "version", True)
    assert made.model_name == f"{PARENT}/models/55"
    assert made.model_uri == f"https://europe-west4-aiplatform.googleapis.com/v1/{PARENT}/models/55"
    assert made.endpoint_name == f"{PARENT}/endpoints/7"
    assert made.endpoint_uri == f"https://europe-west4-aiplatform.googleapis.com/v1/{PARENT}/endpoints/7"
    assert made.traffic_split == {"0": "10", "12": "90"}


def test_a_content_that_the_registry_has_is_not_uploaded_again(api, vertex):
    vertex.endpoint(shares=(100,))
    vertex.model("sha256-other", DIGEST, "", server=TENSORFLOW.label)
    made = planned(api)
    assert (made.deploy, made.upload, made.model_name) == (True, "nothing", f"{PARENT}/models/55@2")


def test_a_content_that_is_on_the_endpoint_is_not_deployed_again(api, vertex):
    vertex.endpoint(shares=(90, 10))
    vertex.model("sha256-other", DIGEST, server=TENSORFLOW.label)
    made = planned(api)
    assert not made.deploy
    assert "on the endpoint flights already and gets 10 % of the requests" in made.summary


@pytest.mark.parametrize(
    ("names", "server_name", "image"),
    [
        (["edge/model.tflite"], "auto", "r/serving:1"),
        ([], "auto", "r/tensorflow:1"),
        (["edge/model.tflite"], "kfp-hybrid-tensorflow", "r/tensorflow:1"),
        (["edge/model.tflite"], "prebuilt", "eu.example/tf:2"),
    ],
)
def test_the_server_is_the_one_that_suits_the_model(api, bucket, names, server_name, image):
    for name in names:
        bucket.put("models", f"flights/3/{name}", b"a bundle", {}, None)
    assert planned(api, server=server_name).server_image == image


def test_what_push_model_says_of_a_model_is_not_looked_up(api):
    made = planned(api, Artifact(**pushed(destination="gs://elsewhere/m").metadata, saved_model=True, edge_bundle=True))
    assert made.server_image == "r/serving:1"


def test_a_model_without_what_the_server_needs_is_refused(api):
    model = Artifact(**pushed().metadata, saved_model=True, edge_bundle=False)
    with pytest.raises(StepError, match="gs://models/flights/3 has no edge bundle, which server=kfp-hybrid needs; pub"):
        planned(api, model, server="kfp-hybrid")


def test_a_server_without_an_image_is_refused(api):
    with pytest.raises(StepError, match="server_images has no image of triton; it has kfp-hybrid, kfp-hybrid-tensorfl"):
        planned(api, server="triton")


def test_a_content_that_another_server_has_is_uploaded_again_so_that_the_one_that_was_tried_serves_it(api, vertex):
    vertex.endpoint(shares=(100,))
    vertex.model(DIGEST, server="")  # as long as there was but one server, models did not say which
    made = planned(api)
    assert (made.deploy, made.upload, made.traffic_split) == (True, "version", {"0": "10", "11": "90"})


def test_a_model_of_the_registry_needs_no_upload(api, vertex):
    vertex.endpoint(shares=(100,))
    made = planned(api, Artifact("https://elsewhere", resourceName=f"{PARENT}/models/99@1"))
    assert (made.deploy, made.upload, made.source_uri) == (True, "nothing", "")
    assert not planned(api, Artifact("https://elsewhere", resourceName=f"{PARENT}/models/55@1")).deploy
    assert planned(api, Artifact("https://elsewhere", resourceName=f"{PARENT}/models/55@2")).deploy


def test_an_imported_model_is_known_by_the_manifest_beside_its_files(api, vertex, bucket):
    vertex.endpoint(shares=(100,))
    vertex.model(DIGEST, server=TENSORFLOW.label)
    assert planned(api, Artifact("gs://models/flights/3")).upload == "version"
    bucket.put("models", "flights/3/MANIFEST.json", json.dumps({"digest": DIGEST}).encode(), {}, None)
    assert not planned(api, Artifact("gs://models/flights/3")).deploy


@pytest.mark.parametrize("manifest", [b"{", b"[]", b"{}"])
def test_a_manifest_that_says_nothing_makes_it_a_new_model(api, vertex, bucket, manifest):
    bucket.put("models", "flights/3/MANIFEST.json", manifest, {}, None)
    made = planned(api, Artifact("gs://models/flights/3"))
    assert (made.upload, made.labels) == ("model", {})


def test_an_imported_model_that_is_not_there_is_refused(api):
    with pytest.raises(StepError, match="there is nothing at gs://models/flights/4; give the folder of a version"):
        planned(api, Artifact("gs://models/flights/4"))


def test_projects_may_be_named_by_their_number(api, vertex):
    endpoint = vertex.endpoint(shares=(100,))
    endpoint.deployed_models[0].model = "projects/123/locations/europe-west4/models/55"
    vertex.model(DIGEST, server=TENSORFLOW.label)
    assert not planned(api).deploy


@pytest.mark.parametrize(
    ("model", "uri"),
    [
        (Artifact("gs://models/flights/3"), "gs://models/flights/3"),
        (pushed(destination="gs://models/flights/"), "gs://models/flights/3"),
        (pushed(destination="/gcs/models/flights/"), "gs://models/flights/3"),
    ],
)
def test_the_model_is_taken_from_where_it_was_published(api, model, uri):
    assert planned(api, model).source_uri == uri


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (pushed(destination="/models"), {}, "the model is at /models/3, where Vertex AI cannot read it"),
        (pushed(destination="s3://models"), {}, "the model is at s3://models/3, where Vertex AI cannot read it"),
        (pushed(version=0), {}, "push_model refused this model"),
        (pushed(), {"service": 'fl"ights'}, "service is 'fl\"ights'; give a name"),
        (pushed(), {"service": "f" * 64}, "give a name of up to 63"),
        (pushed(), {"canary_percent": 101}, "canary_percent is 101; give a share of requests between 0 and 100"),
    ],
)
def test_what_cannot_be_deployed_is_refused(api, server, model, settings, message):
    with pytest.raises(StepError, match=re.escape(message)):
        planned(api, model, **settings)
    assert not server.requests


def test_several_endpoints_of_one_name_are_refused_by_their_ids(api, vertex):
    vertex.endpoint(name="7")
    vertex.endpoint(name="8")
    with pytest.raises(StepError, match=r"several endpoints with the display name flights \(7, 8\)"):
        planned(api)


@given(st.lists(st.integers(0, 100), max_size=6), st.integers(0, 100))
def test_shares_add_up_to_100_and_keep_their_proportions(shares, canary):
    deployed = tuple(DeployedModel(f"1{n}", "55", str(n), share, False) for n, share in enumerate(shares))
    split = {name: int(share) for name, share in _traffic_split(deployed, canary).items()}
    assert sum(split.values()) == 100
    assert all(share > 0 for share in split.values())
    if not sum(shares):
        assert split == {"0": 100}
    else:
        assert split.get("0", 0) == canary
        for model in deployed:
            assert abs(split.get(model.id, 0) - (100 - canary) * model.share / sum(shares)) < 1


# ------------------------------------------------------------------------------------------------- shifting traffic


def test_promote_gives_the_newest_model_all_requests(api, vertex):
    endpoint = vertex.endpoint(shares=(0, 90, 10))
    done = shift(api, PARENT, "flights", "promote")
    assert endpoint.traffic_split == {"13": 100}
    assert (done.traffic_split, done.changed) == ({"13": 100}, True)
    assert done.summary == "model 55@3 gets all requests of flights"


def test_rollback_gives_them_to_the_model_that_answers_most_of_the_others(api, vertex):
    endpoint = vertex.endpoint(shares=(75, 15, 10))
    shift(api, PARENT, "flights", "rollback")
    assert endpoint.traffic_split == {"11": 100}


def test_after_a_promotion_rollback_goes_to_the_model_before(api, vertex):
    endpoint = vertex.endpoint(shares=(0, 0, 100))
    shift(api, PARENT, "flights", "rollback")
    assert endpoint.traffic_split == {"12": 100}


def test_a_model_that_was_rolled_back_is_not_gone_back_to(api, vertex):
    endpoint = vertex.endpoint(shares=(90, 10), labels={"team": "ml"})
    shift(api, PARENT, "flights", "rollback")
    endpoint.deployed_models.append(types.DeployedModel(
        id="13", model=f"{PARENT}/models/55", create_time=START + timedelta(hours=1)
    ))  # fmt: skip
    shift(api, PARENT, "flights", "promote")
    assert endpoint.traffic_split == {"13": 100}
    shift(api, PARENT, "flights", "rollback")
    assert endpoint.traffic_split == {"11": 100}
    assert endpoint.labels["team"] == "ml"


def test_a_model_that_was_rolled_back_can_be_promoted_after_all(api, vertex):
    endpoint = vertex.endpoint(shares=(90, 10))
    shift(api, PARENT, "flights", "rollback")
    shift(api, PARENT, "flights", "promote")
    assert endpoint.traffic_split == {"12": 100}
    assert "kfp_hybrid_rolled_back" not in endpoint.labels


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_asking_again_changes_nothing(api, vertex, server, action):
    vertex.endpoint(shares=(90, 10))
    shift(api, PARENT, "flights", action)
    again = shift(api, PARENT, "flights", action)
    assert not again.changed
    assert "already got all requests" in again.summary
    assert len(server.sent("PATCH *")) == 1


def test_models_without_requests_are_undeployed_when_that_is_asked_for(api, vertex):
    endpoint = vertex.endpoint(shares=(0, 90, 10))
    done = shift(api, PARENT, "flights", "promote", undeploy=True)
    assert ids(endpoint) == {"13"}
    assert "undeployed 2 without requests" in done.summary
    assert not shift(api, PARENT, "flights", "promote", undeploy=True).changed


@pytest.mark.parametrize(
    ("shares", "service", "action", "message"),
    [
        ((90, 10), "flights", "shift", "action is shift; give promote or rollback"),
        ((90, 10), "trains", "promote", f"there is no endpoint trains in {PARENT}; deploy a model first"),
        ((), "flights", "promote", f"there is no model on the endpoint flights in {PARENT}; deploy a model first"),
        ((100,), "flights", "rollback", "the endpoint flights has no model before 55 to go back to"),
    ],
)
def test_what_cannot_be_shifted_is_refused(api, vertex, shares, service, action, message):
    endpoint = vertex.endpoint(shares=shares)
    with pytest.raises(StepError, match=re.escape(message)):
        shift(api, PARENT, service, action)
    assert endpoint.etag == "e1"


# ------------------------------------------------------------------------------------------------------- trouble


def test_an_endpoint_that_somebody_else_changes_is_looked_at_again(api, vertex, caplog):
    endpoint = vertex.endpoint(shares=(90, 10))

    def change():
        endpoint.etag, endpoint.labels["owner"] = "e2", "someone"

    vertex.before_patch = change
    shift(api, PARENT, "flights", "promote")
    assert endpoint.traffic_split == {"12": 100}
    assert endpoint.labels["owner"] == "someone"
    assert "has changed meanwhile" in caplog.text


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "body": '{"error": {"code": 429, "message": "Quota exceeded."}}'},
        {"status": 500, "body": "<html>"},
        {"status": 503},
        {"cut": True},
        {"status": 200, "body": '{"endpoints": [', "cut": True},
        {"status": 200, "body": "[]"},
    ],
)
@pytest.mark.parametrize("pattern", ["GET *", "PATCH *"])
def test_passing_trouble_is_waited_out(api, vertex, server, caplog, pattern, fault):
    endpoint = vertex.endpoint(shares=(90, 10))
    server.fail(pattern, **fault)
    shift(api, PARENT, "flights", "promote")
    assert endpoint.traffic_split == {"12": 100}
    assert "trying again" in caplog.text


def test_a_change_whose_answer_is_lost_is_found_to_be_made(api, vertex, server):
    endpoint = vertex.endpoint(shares=(90, 10))
    server.fail("PATCH *", cut=True, after=True)
    assert shift(api, PARENT, "flights", "promote").traffic_split == {"12": 100}
    assert endpoint.traffic_split == {"12": 100}


def test_an_undeployment_whose_answer_is_lost_is_found_to_be_made(api, vertex, server):
    endpoint = vertex.endpoint(shares=(0, 100))
    server.fail("POST *", cut=True, after=True)
    shift(api, PARENT, "flights", "promote", undeploy=True)
    assert ids(endpoint) == {"12"}


def test_trouble_that_does_not_pass_is_given_up_on(vertex, server):
    server.fail("GET *", status=503, times=math.inf)
    api = GoogleApi(server.url, Credentials("a-token"), patience=0.2)
    with pytest.raises(StepError, match=r"looking for flights among the endpoints of .*: 503 .*; gave up after 0.2 s"):
        shift(api, PARENT, "flights", "promote")


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            403,
            {"error": {"code": 403, "message": "Permission 'x' denied."}},
            "403 Permission 'x' denied; grant this to",
        ),
        (404, "<html>", "404 Not Found"),
        (400, {"error": {"code": 400, "message": "Bad\n filter."}}, "400 Bad filter"),
    ],
)
def test_a_refusal_is_told_in_one_line_and_not_tried_again(api, server, status, body, message):
    server.fail("GET *", status=status, body=body if isinstance(body, str) else json.dumps(body), times=math.inf)
    with pytest.raises(StepError, match=re.escape(message)) as refused:
        shift(api, PARENT, "flights", "promote")
    assert "\n" not in str(refused.value)
    assert len(server.requests) == 1


def test_credentials_that_are_not_accepted_are_told(api, server):
    server.fail("GET *", status=401, body="{}", times=math.inf)
    with pytest.raises(StepError, match="the credentials are not accepted"):
        shift(api, PARENT, "flights", "promote")


def test_a_failed_operation_is_told(api, vertex):
    vertex.endpoint(shares=(0, 100))

    def fail(name, request):
        vertex.operations["o"] = {"name": f"{PARENT}/operations/o", "done": True, "error": {"message": "No capacity."}}
        return vertex.operations["o"]

    vertex._undeploy = fail
    with pytest.raises(StepError, match="undeploying model 55 from flights: No capacity"):
        shift(api, PARENT, "flights", "promote", undeploy=True)


def test_a_step_that_is_stopped_while_it_waits_has_shifted_the_traffic(api, vertex, monkeypatch):
    endpoint = vertex.endpoint(shares=(0, 90, 10))

    def stop(seconds):
        raise Stopped

    vertex._undeploy = lambda name, request: {"name": f"{PARENT}/operations/o"}
    monkeypatch.setattr("time.sleep", stop)
    with pytest.raises(Stopped):
        shift(api, PARENT, "flights", "promote", undeploy=True)
    assert endpoint.traffic_split == {"13": 100}
