"""The Kubernetes API when things go wrong: the real client against a local server that answers as scripted."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import pytest
from kubernetes import client

from kfp_hybrid.components.deployment.deploy_model.kserve import INFERENCE_SERVICES
from kfp_hybrid.kubernetes_api.cluster import Cluster
from kfp_hybrid.kubernetes_api.errors import Missing
from kfp_hybrid.kubernetes_api.kinds import DEPLOYMENTS, PODS, SERVICES
from kfp_hybrid.step import StepError

TOKEN = "a-secret-token"
USE = {"manager": "kfp-hybrid", "role": "manifests/base/deployer-role.yaml"}
ITEM = {"metadata": {"name": "flights"}, "spec": {"a": 1}}
OK = (200, {"kind": "InferenceService", "metadata": {"name": "flights"}})


def status(code, reason="", message="", **details):
    return code, {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}


class Script:
    """What the server answers, in order, the last one for ever; and what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []

    def next(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def cluster():
    """Starts a server with a script; gives a `Cluster` that talks to it, and the script."""
    servers = []

    def start(*answers, retry_seconds=300.0):
        script = Script(*answers)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                script.requests.append((self.command, self.path, self.headers, body))
                answer = script.next()
                if answer == "cut":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    self.wfile.write(b'{"kind": "Infer')
                    self.close_connection = True
                    return
                if answer == "hang up":
                    self.close_connection = True
                    self.connection.close()
                    return
                code, content, headers = (*answer, {})[:3]
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(code)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PATCH = do_DELETE = answer

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        configuration = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
        configuration.api_key = {"authorization": TOKEN}
        configuration.api_key_prefix = {"authorization": "Bearer"}
        configuration.retries = False
        return Cluster(client.ApiClient(configuration), "ml", **USE, retry_seconds=retry_seconds), script

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


# What is sent


def test_an_apply_is_a_patch_by_our_field_manager(cluster):
    api, script = cluster(OK)
    api.apply(INFERENCE_SERVICES, ITEM)
    method, path, headers, body = script.requests[0]
    url = urlsplit(path)
    assert (method, url.path) == ("PATCH", "/apis/serving.kserve.io/v1beta1/namespaces/ml/inferenceservices/flights")
    assert dict(parse_qsl(url.query)) == {"fieldManager": "kfp-hybrid", "force": "false"}
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert json.loads(body) == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "flights", "namespace": "ml"},
        "spec": {"a": 1},
    }


def test_force_is_asked_for_only_when_wanted(cluster):
    api, script = cluster(OK)
    api.apply(SERVICES, ITEM, force=True)
    assert "force=true" in script.requests[0][1]
    assert script.requests[0][1].startswith("/api/v1/namespaces/ml/services/flights?")


def test_a_log_is_text_whatever_its_bytes(cluster):
    api, script = cluster((200, b"17\xff\nend"))
    assert api.log("pod", "server", previous=True, lines=20) == "17\ufffd\nend"
    query = dict(parse_qsl(urlsplit(script.requests[0][1]).query))
    assert query == {"container": "server", "previous": "true", "tailLines": "20"}


def test_a_log_that_cannot_be_had_is_an_error_that_says_why(cluster):
    api, _ = cluster(status(400, "BadRequest", "container is waiting to start"))
    with pytest.raises(StepError, match="refused to get pods/pod/log in namespace ml: container is waiting to start"):
        api.log("pod", "server", lines=20)


def test_fields_are_merged_into_an_object_that_is_there(cluster):
    api, script = cluster(OK)
    api.merge(INFERENCE_SERVICES, "flights", {"spec": {"a": 2}})
    method, _, headers, body = script.requests[0]
    assert (method, headers["Content-Type"]) == ("PATCH", "application/merge-patch+json")
    assert json.loads(body) == {"spec": {"a": 2}}


def test_an_object_is_deleted_with_what_belongs_to_it(cluster):
    api, script = cluster(OK)
    api.delete(DEPLOYMENTS, "flights", uid="17")
    method, path, _, body = script.requests[0]
    assert (method, urlsplit(path).path) == ("DELETE", "/apis/apps/v1/namespaces/ml/deployments/flights")
    assert json.loads(body) == {"propagationPolicy": "Background", "preconditions": {"uid": "17"}}


def test_an_object_that_was_made_anew_is_not_deleted_in_the_place_of_the_earlier(cluster):
    said = "Operation cannot be fulfilled: Precondition failed: UID in precondition: 17, UID in object meta: 18"
    api, script = cluster(status(409, "Conflict", said))
    api.delete(DEPLOYMENTS, "flights", uid="17")
    assert len(script.requests) == 1


def test_warnings_are_those_of_an_object_or_of_all(cluster):
    api, script = cluster((200, {"items": []}))
    api.warnings(PODS, "flights-0")
    api.warnings()
    asked = [dict(parse_qsl(urlsplit(path).query))["fieldSelector"] for _, path, _, _ in script.requests]
    assert asked == ["type=Warning,involvedObject.kind=Pod,involvedObject.name=flights-0", "type=Warning"]


# What passes by itself


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (status(503, "ServiceUnavailable", "etcd leader changed"), "HTTP status 503: etcd leader changed"),
        (status(500, "InternalError", "a webhook did not answer"), "HTTP status 500: a webhook did not answer"),
        (status(429, "TooManyRequests", "slow down"), "HTTP status 429: slow down"),
        ((502, b"<html>bad gateway</html>"), "HTTP status 502"),
        (status(409, "Conflict", "the object has been modified"), "it changed at the same moment"),
        ("cut", "ProtocolError"),
        ("hang up", "ProtocolError"),
        ((200, b'{"kind": '), "a cut answer"),
    ],
)
def test_what_passes_is_tried_again_and_said(cluster, caplog, fault, word):
    api, script = cluster(fault, fault, OK)
    assert api.apply(INFERENCE_SERVICES, ITEM) == OK[1]
    assert len(script.requests) == 3
    assert f"patch inferenceservices.serving.kserve.io/flights in namespace ml failed ({word}" in caplog.text
    assert "attempt 3 follows" in caplog.text
    assert TOKEN not in caplog.text


def test_the_pause_that_the_server_asks_for_is_kept(cluster, caplog):
    api, _ = cluster((*status(429, "TooManyRequests"), {"Retry-After": "2"}), OK)
    api.get(INFERENCE_SERVICES, "flights")
    assert "attempt 2 follows in 2.0 s" in caplog.text


def test_what_does_not_pass_in_time_ends_the_step_in_one_line(cluster, retry_clock):
    api, script = cluster(status(503, "ServiceUnavailable", "no\nleader"), retry_seconds=1.0)
    with pytest.raises(StepError, match=r"kept answering with HTTP status 503: no leader; run the step again"):
        api.find(PODS)
    assert len(script.requests) > 1


def test_a_server_that_is_away_is_named(cluster):
    api, _ = cluster(OK, retry_seconds=1.0)
    configuration = client.Configuration(host="http://127.0.0.1:1")
    configuration.retries = False
    api = Cluster(client.ApiClient(configuration), "ml", **USE, retry_seconds=1.0)
    with pytest.raises(StepError, match=r"no answer from http://127\.0\.0\.1:1 to get .*; check that it is reachable"):
        api.get(INFERENCE_SERVICES, "flights")


# What the user can put right


def explained(cluster, answer, act=lambda api: api.apply(INFERENCE_SERVICES, ITEM)):
    api, script = cluster(answer)
    with pytest.raises(StepError) as caught:
        act(api)
    assert len(script.requests) == 1, "this does not pass by itself"
    message = str(caught.value)
    assert "\n" not in message
    assert TOKEN not in message
    return message


def test_refused_credentials(cluster):
    assert "does not accept this step's credentials; renew" in explained(cluster, status(401, "Unauthorized"))


def test_a_missing_right_is_named_with_the_role_that_gives_it(cluster):
    said = (
        'inferenceservices.serving.kserve.io "flights" is forbidden: User "system:serviceaccount:ml:runner" cannot '
        'patch resource "inferenceservices" in API group "serving.kserve.io" in the namespace "ml"'
    )
    assert explained(cluster, status(403, "Forbidden", said)) == (
        "system:serviceaccount:ml:runner may not patch inferenceservices.serving.kserve.io in namespace ml; "
        "bind the Role of manifests/base/deployer-role.yaml to it there"
    )


def test_another_reason_to_forbid_is_told_as_it_is(cluster):
    message = explained(cluster, status(403, "Forbidden", "exceeded quota: pods, requested: pods=1"))
    assert "exceeded quota: pods" in message
    assert "Role" not in message


def test_a_cluster_without_kserve(cluster):
    for act in (lambda api: api.apply(INFERENCE_SERVICES, ITEM), lambda api: api.get(INFERENCE_SERVICES, "flights")):
        message = explained(cluster, (404, b"404 page not found\n"), act)
        assert "has no KServe; install it, or use serving=deployment" in message


def test_a_namespace_that_does_not_exist(cluster):
    answer = status(404, "NotFound", 'namespaces "ml" not found', name="ml", kind="namespaces")
    assert explained(cluster, answer) == "there is no namespace ml; create it, or give another"


def test_a_missing_object_is_none_and_deleting_it_no_error(cluster):
    api, _ = cluster(status(404, "NotFound", "", name="flights", kind="inferenceservices"))
    assert api.get(INFERENCE_SERVICES, "flights") is None
    api.delete(DEPLOYMENTS, "flights")
    with pytest.raises(Missing):
        api.apply(INFERENCE_SERVICES, ITEM)


def test_fields_of_another_manager(cluster):
    cause = {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "argocd" using serving.kserve.io/v1beta1',
        "field": ".spec.predictor.minReplicas",
    }
    other = {**cause, "message": 'conflict with "kubectl-edit"', "field": ".spec.predictor.model"}
    assert explained(cluster, status(409, "Conflict", "2 conflicts", causes=[cause, other])) == (
        "argocd and kubectl-edit set spec.predictor.minReplicas, spec.predictor.model of "
        "inferenceservices.serving.kserve.io/flights in namespace ml; undo that there, "
        "or set force=true to take it over"
    )


def test_an_invalid_object_is_reported_by_its_first_fault(cluster):
    causes = [{"field": "spec.predictor.minReplicas", "message": "must be\nan integer"}, {"field": "b", "message": "c"}]
    message = explained(cluster, status(422, "Invalid", "two faults", causes=causes))
    assert "was refused as invalid: spec.predictor.minReplicas: must be an integer; correct that input" in message


def test_the_words_of_an_admission_webhook(cluster):
    said = 'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: no such runtime'
    assert explained(cluster, status(400, "BadRequest", said)).endswith(said)


def test_an_apply_that_does_not_fit_the_schema_is_not_tried_again(cluster):
    said = 'failed to create typed patch object: .spec.ports: element 0: omits key field "protocol"'
    assert said in explained(cluster, status(500, "", said))
