"""validate_serving: how scores are compared, what bad servers are caught at, and that no server outlives the step."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kfp_hybrid.components.inference.validate_serving import hostile_requests as hostile
from kfp_hybrid.components.inference.validate_serving.checks import FAILED, PASSED, REPORTED, explain, judge
from kfp_hybrid.components.inference.validate_serving.client import Client, RefusedError, Reply, read_scores
from kfp_hybrid.components.inference.validate_serving.comparison import Comparison
from kfp_hybrid.components.inference.validate_serving.hostile_requests import hostile_requests, try_requests
from kfp_hybrid.components.inference.validate_serving.latency import measure_latency
from kfp_hybrid.components.inference.validate_serving.open_inference import compare_protocols
from kfp_hybrid.components.inference.validate_serving.server_process import Server, ServingFailure
from kfp_hybrid.scoring.answer import Answer

BINARY = Answer("binary", "late", (0, 1))
SCORES = arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(1)), elements=st.floats(0, 1))
ROW = {"carrier": "UA", "distance": 1400.0}

# ---------------------------------------------------------------------------------------------------- comparisons


@given(SCORES)
def test_equal_scores_have_no_difference_no_change_and_no_shift(scores):
    found = Comparison(scores, scores.copy(), BINARY)
    assert (found.max_difference, found.mean_difference, found.changed_fraction, found.shift) == (0, 0, 0, 0)


@given(SCORES, st.randoms(use_true_random=False))
def test_the_shift_does_not_depend_on_which_row_has_which_score(scores, random):
    order = list(range(len(scores)))
    random.shuffle(order)
    assert Comparison(scores[order], scores, BINARY).shift == 0


@given(SCORES)
def test_changed_decisions_are_counted_each_way(scores):
    found = Comparison(1 - scores, scores, BINARY)
    up = int(np.sum((scores < 0.5) & (1 - scores >= 0.5)))
    down = int(np.sum((scores >= 0.5) & (1 - scores < 0.5)))
    assert (found.changes["0", "1"], found.changes["1", "0"]) == (up, down)
    assert found.changed_fraction == (up + down) / len(scores)


def test_the_worst_row_is_the_one_with_the_largest_difference_relative_to_large_scores():
    found = Comparison(np.array([[1000.1], [995.2], [5.0]]), np.array([[1000.0], [995.0], [5.0]]), None)
    assert found.worst_row == 1
    assert found.max_difference == pytest.approx(0.2 / 995)


def test_a_score_on_one_side_only_differs_by_infinity_and_none_on_both_by_nothing():
    nan = float("nan")
    found = Comparison(np.array([[nan], [nan], [0.5]]), np.array([[nan], [0.5], [nan]]), None)
    assert found.differences.tolist() == [0, np.inf, np.inf]


def test_the_mean_difference_of_a_regression_needs_no_unit():
    reference = np.array([[-40.0], [0.0], [40.0]])
    minutes, seconds = (
        Comparison(unit * (reference + 3), unit * reference, Answer("regression", "delay", ())) for unit in (1, 60)
    )
    assert minutes.mean_difference == pytest.approx(seconds.mean_difference)
    assert minutes.mean_difference == pytest.approx(3 / np.std(reference))


def test_a_limit_of_0_reports_and_any_other_judges():
    assert judge("p99", 5.0, 0.0, " ms").outcome == REPORTED
    assert judge("p99", 5.0, 5.0, " ms").outcome == PASSED
    failed = judge("p99", 5.0, 4.0, " ms")
    assert (failed.outcome, explain([failed], "")) == (
        FAILED,
        "not servable: the p99 is 5 ms, at most 4 ms is allowed",
    )


# ---------------------------------------------------------------------------------------------------- bad servers

BAD_SERVER = """
import http.server, json, os, sys
mode, nulls = sys.argv[1], 0
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if not mode.startswith("V2"):
            return self.answer(405, {"error": "only POST"})
        self.answer(200, {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]})
    def do_POST(self):
        global nulls
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/v2"):
            scores = [0.75 if mode == "V2 differs" else 0.5] * json.loads(body)["inputs"][0]["shape"][0]
            return self.answer(200, {"outputs": [{"name": "scores", "shape": [len(scores), 1], "data": scores}]})
        try:
            rows = json.loads(body)["instances"]
            null = any(value is None for row in rows for value in row.values())
        except Exception:
            return self.answer(200 if mode == "credulous" else 400, {"predictions": [0.5]})
        if not self.path.endswith("candidate:predict"):
            return self.answer(404, {"error": "no such model"})
        nulls += null
        if null and mode == "crash":
            os._exit(3)
        if null and mode == "error":
            return self.answer(500, {"error": "it failed"})
        if null and mode == "drop":
            self.close_connection = True
            return
        if null and mode == "no scores":
            return self.answer(200, {"answers": []})
        self.answer(200, {"predictions": [0.5 + (mode == "drift" and nulls > 0) * 0.1] * len(rows)})
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture
def bad_server(tmp_path):
    """bad_server(mode): a server that does one thing wrongly."""
    started = []

    def start(mode):
        log = tmp_path / "log"
        log.touch()
        process = subprocess.Popen([sys.executable, "-c", BAD_SERVER, mode], stdout=subprocess.PIPE)
        started.append(process)
        client = Client("127.0.0.1", int(process.stdout.readline()), "candidate", 120.0)
        return Server(process, client, 0, 0.0, log)

    yield start
    for process in started:
        process.kill()
        process.wait()


def attack(server):
    return try_requests(server, hostile_requests(ROW, ["carrier"]), ROW)


def test_a_server_that_refuses_or_answers_everything_has_no_problems(bad_server):
    outcomes = attack(bad_server("good"))
    assert [outcome.problem for outcome in outcomes if outcome.problem] == []
    assert {outcome.request.group for outcome in outcomes} == {
        "malformed request", "wrong address", "missing feature", "null", "wrong type", "extreme value",
        "unknown feature",
    }  # fmt: skip


@given(st.floats(0, 1, width=32))
def test_a_score_is_read_as_the_float32_that_was_computed(score):
    text = np.format_float_positional(np.float32(score), unique=True, trim="0")
    reply = Reply(200, f'{{"predictions": [{text}]}}'.encode())
    assert read_scores(reply, 1).tolist() == [[score]]


@pytest.mark.parametrize(
    ("mode", "group", "problem"),
    [("error", "null", "got status 500: it failed, instead of"),
     ("drop", "null", "got no answer (RemoteDisconnected"),
     ("no scores", "null", "got an answer without scores"),
     ("credulous", "malformed request", "got status 200")],
)  # fmt: skip
def test_what_a_server_handles_wrongly_is_told_with_the_request(bad_server, mode, group, problem):
    wrong = [outcome for outcome in attack(bad_server(mode)) if outcome.problem]
    assert wrong and {outcome.request.group for outcome in wrong} == {group}
    assert all(outcome.problem.startswith(problem) for outcome in wrong)


def test_a_server_that_dies_of_a_request_is_told_with_that_request(bad_server):
    with pytest.raises(ServingFailure, match=r"ended with status 3.*, after this request: null, carrier is null"):
        attack(bad_server("crash"))


def test_a_server_that_answers_no_more_is_not_asked_forever(bad_server, monkeypatch):
    monkeypatch.setattr(hostile, "MOST_UNANSWERED", 2)
    with pytest.raises(ServingFailure, match=r"2 hostile requests got no answer, the last one \(null: "):
        attack(bad_server("drop"))


def test_a_server_that_answers_otherwise_after_bad_requests_is_found(bad_server):
    with pytest.raises(ServingFailure, match="a good row got another score than before"):
        attack(bad_server("drift"))


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("", "V2 over REST answers rows that V1 answers with status 405: only POST"),
        (
            "V2 differs",
            "V2 over REST gives other scores than V1 for the first 2 rows: they differ by 0.25",
        ),
        ("V2 without gRPC", "V2 over gRPC answers rows that V1 answers with UNAVAILABLE"),
    ],
)
def test_a_protocol_that_answers_otherwise_is_told(bad_server, mode, message):
    with pytest.raises(ServingFailure, match=message):
        compare_protocols(bad_server(mode), [{"x": 1.5}, {"x": None}], 0.1)


def test_a_request_that_fails_under_load_is_told(bad_server):
    body = b'{"instances": [{"carrier": null}]}'
    for mode, told in (("error", "answered with status 500"), ("crash", "a connection broke under load")):
        with pytest.raises(ServingFailure, match=told):
            measure_latency(bad_server(mode).client, [body], 10, 2)


def test_latency_counts_every_request(bad_server):
    latency = measure_latency(bad_server("good").client, [b'{"instances": [{"carrier": "UA"}]}'], 50, 4)
    assert len(latency.milliseconds) == 50
    assert 0 < latency.p50 <= latency.p99 <= latency.milliseconds[-1]
    assert latency.per_second == pytest.approx(50 / latency.seconds)


def test_a_refused_row_says_what_the_server_said(bad_server):
    with pytest.raises(RefusedError, match="status 500: it failed"):
        bad_server("error").client.predict([{"carrier": None}])


# -------------------------------------------------------------------------------------------- ending the server

BUNDLES = Path(__file__).parents[2] / "serving/bundles"
HOLD = """
import contextlib, sys, time
from pathlib import Path
from types import SimpleNamespace
from kfp_hybrid.components.inference.validate_serving.candidate import find_candidate
from kfp_hybrid.components.inference.validate_serving.server_process import serve
from kfp_hybrid.step import step
with step(), contextlib.ExitStack() as stack:
    candidate = find_candidate(None, Path(sys.argv[1]), "auto", stack)
    limits = SimpleNamespace(start_seconds=120.0, request_seconds=30.0)
    server = stack.enter_context(serve(SimpleNamespace(limits=limits, server_options=()), candidate))
    print(server.process.pid, flush=True)
    time.sleep(600)
"""


def is_running(process):
    """Whether a process runs; one that has ended may wait for somebody to ask how."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_the_step_however_that_ends(how):
    bundle = next(path.parent for path in sorted(BUNDLES.glob("*/model.tflite")))
    step = subprocess.Popen([sys.executable, "-c", HOLD, str(bundle)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        server = int(step.stdout.readline())
        assert is_running(server)
        step.send_signal(how)
        step.communicate(timeout=120)
        end = time.monotonic() + 60
        while is_running(server):
            assert time.monotonic() < end, "the server outlives the step"
            time.sleep(0.05)
    finally:
        step.kill()
        step.wait()
    assert step.returncode == {signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}.get(how, step.returncode)
