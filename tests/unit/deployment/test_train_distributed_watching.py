"""What the launching step says about pods, and how it bears an API server that fails; the client is the real one."""

import datetime
import http.server
import json
import threading

import pytest
import yaml
from kubernetes import client

from kfp_hybrid.components.training.train_distributed.cluster import log_of, open_cluster
from kfp_hybrid.components.training.train_distributed.pods import cause, ending_of, first_failed, state_of
from kfp_hybrid.components.training.train_distributed.request import NODE_LOST
from kfp_hybrid.components.training.train_distributed.train_job import TRAIN_JOBS
from kfp_hybrid.components.training.train_distributed.watching import Watch
from kfp_hybrid.step import StepError

NOON = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.timezone.utc)
AS_SENT = client.ApiClient().sanitize_for_serialization
JOB = {"metadata": {"name": "train-1", "uid": "1", "creationTimestamp": "2026-11-21T12:00:00Z"}}


def pod(index=0, phase="Running", conditions=None, **state):
    """A pod whose container is in a state: running, waiting or terminated."""
    status = client.V1ContainerStatus(
        name="node", image="", image_id="", ready=False, restart_count=0, state=client.V1ContainerState(**state)
    )
    made = client.V1Pod(
        metadata=client.V1ObjectMeta(
            name=f"pod-{index}", annotations={"batch.kubernetes.io/job-completion-index": str(index)}
        ),
        status=client.V1PodStatus(phase=phase, conditions=conditions, container_statuses=[status] if state else None),
    )
    return AS_SENT(made)


def ended(index, code, second, reason="Error"):
    finished = NOON + datetime.timedelta(seconds=second)
    return pod(index, terminated=client.V1ContainerStateTerminated(exit_code=code, reason=reason, finished_at=finished))


def evicted(index):
    found = pod(index, phase="Failed")
    found["status"] |= {"reason": "Evicted", "message": "the node was low on memory"}
    return found


def blamed(pods):
    found, _ = first_failed(pods)
    return found["metadata"]["name"]


def unscheduled(message):
    return pod(
        phase="Pending", conditions=[client.V1PodCondition(type="PodScheduled", status="False", message=message)]
    )


def waiting(reason, message=None):
    return pod(phase="Pending", waiting=client.V1ContainerStateWaiting(reason=reason, message=message))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (pod(phase="Pending"), "pending"),
        (unscheduled("0/3 nodes have a GPU"), "waits for a machine: 0/3 nodes have a GPU"),
        (waiting("ContainerCreating"), "pending"),
        (waiting("ImagePullBackOff", "no such image"), "waits: ImagePullBackOff no such image"),
        (pod(running=client.V1ContainerStateRunning()), "running"),
        (ended(0, 137, 0, "OOMKilled"), "ended: OOMKilled, exit status 137"),
        (evicted(0), "ended: Evicted the node was low on memory"),
    ],
)
def test_the_state_of_a_pod_is_what_it_waits_for(found, said):
    assert state_of(found) == said


def test_the_node_that_failed_first_is_to_blame():
    pods = [ended(0, 1, 9), ended(1, 1, 5), ended(2, 0, 1), pod(3)]
    assert blamed(pods) == "pod-1"


def test_a_node_that_only_missed_another_is_not_to_blame():
    assert blamed([ended(0, NODE_LOST, 1), ended(1, 137, 5)]) == "pod-1"
    assert blamed([ended(0, NODE_LOST, 1), evicted(1)]) == "pod-1"
    assert blamed([ended(0, NODE_LOST, 1), pod(1)]) == "pod-0"


def test_nobody_is_to_blame_when_no_pod_has_failed():
    assert first_failed([pod(0), ended(1, 0, 1)]) is None
    assert first_failed([]) is None


@pytest.mark.parametrize(
    ("found", "log", "said"),
    [
        (ended(0, 1, 0), ["t INFO reading", "t error: no label"], "no label"),
        (ended(0, 134, 0), ["t INFO epoch 3"], "Error, exit status 134; INFO epoch 3"),
        (ended(0, 143, 0), [], "Error, exit status 143; no log"),
        (evicted(0), ["t INFO epoch 3"], "Evicted the node was low on memory; INFO epoch 3"),
        (ended(0, 137, 0, "OOMKilled"), ["t INFO epoch 3"], "OOMKilled, exit status 137; give it more memory"),
    ],
)
def test_the_cause_is_what_the_node_said_or_else_how_it_ended(found, log, said):
    assert cause(ending_of(found), log).startswith(said)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Starts an API server of canned answers, `path -> list of (status, body)`; the last one is repeated."""
    servers = []

    def start(answers):
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.partition("?")[0]
                asked.append(path)
                left = answers[path.rpartition("/")[2]]
                status, body = left.pop(0) if len(left) > 1 else left[0]
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_PATCH = do_GET

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        configure(f"http://127.0.0.1:{server.server_port}")
        return asked

    def configure(url):
        names = {"cluster": "c", "user": "u", "namespace": "team"}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "k",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "hidden-token"}}],
            "contexts": [{"name": "k", "context": names}],
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(content))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def failure(status, message):
    return status, {"kind": "Status", "status": "Failure", "message": message, "code": status}


def done():
    return 200, {**JOB, "status": {"conditions": [{"type": "Complete", "status": "True"}]}}


EMPTY = [(200, {"items": []})]


def test_an_api_server_that_is_away_for_a_moment_is_asked_again_and_that_is_said(serve, caplog):
    asked = serve({"train-1": [failure(503, "starting"), failure(500, "etcd"), done()], "pods": EMPTY, "events": EMPTY})
    Watch(open_cluster()[0], "train-1").wait(0)
    assert len([path for path in asked if path.endswith("train-1")]) == 3
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    what = "get trainjobs.trainer.kubeflow.org/train-1 in namespace team"
    assert f"{what} failed (HTTP status 503: starting); attempt 2 follows" in warnings[0]


def test_an_api_server_that_stays_away_ends_the_step_with_one_line(serve, retry_clock):
    asked = serve({"train-1": [failure(503, "down for maintenance")]})
    cluster, _ = open_cluster(retry_seconds=1.0)
    with pytest.raises(StepError, match=r"kept answering with HTTP status 503: down for maintenance; run the step ag"):
        cluster.get(TRAIN_JOBS, "train-1")
    assert len(asked) > 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (failure(401, "Unauthorized"), "does not accept this step's credentials"),
        (failure(403, 'User "runner" cannot get trainjobs'), "runner may not get .* manifests/base/trainer-role.yaml"),
        (failure(403, "admission webhook says: no such runtime"), "refused to get .*/train-1 .*: .*no such runtime"),
    ],
)
def test_what_the_api_server_refuses_is_one_line_without_secrets(serve, answer, said):
    asked = serve({"train-1": [answer]})
    with pytest.raises(StepError, match=said) as caught:
        open_cluster()[0].get(TRAIN_JOBS, "train-1")
    assert len(asked) == 1
    assert "hidden-token" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cluster_without_trainer_is_named(serve):
    serve({"train-1": [(404, "404 page not found")]})
    with pytest.raises(StepError, match=r"has no Kubeflow Trainer; install version 2\.2 or later"):
        open_cluster()[0].get(TRAIN_JOBS, "train-1")


def test_a_log_that_cannot_be_read_is_not_waited_for(serve):
    asked = serve({"log": [failure(502, "the machine of the pod does not answer")]})
    assert log_of(open_cluster()[0], "pod-0") == []
    assert len(asked) == 1


def test_no_cluster_at_all_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(StepError, match="there is no Kubernetes cluster to work on"):
        open_cluster()


def test_a_suspended_training_is_said_to_wait_for_its_turn(serve, caplog):
    caplog.set_level("INFO")
    suspended = 200, {**JOB, "status": {"conditions": [{"type": "Suspended", "status": "True"}]}}
    serve({"train-1": [suspended, suspended, done()], "pods": EMPTY, "events": EMPTY})
    Watch(open_cluster()[0], "train-1", sleep=lambda seconds: None).wait(0)
    assert [record.getMessage() for record in caplog.records].count("TrainJob: is suspended, waits for its turn") == 1
