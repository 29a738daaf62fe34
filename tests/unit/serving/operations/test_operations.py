"""The server as a process, with all that its options put around the answers."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pyarrow as pa
import pytest
from ports import unused_port
from prometheus_client.parser import text_string_to_metric_families

from kfp_hybrid.data.examples import Examples
from kfp_hybrid.data.prediction_table_writer import TableWriter
from kfp_hybrid.serving import inference_pb2 as messages

COLOURS = {"red": 2, "green": 3}


class Server:
    def __init__(self, process, port, admin):
        self.process, self.port, self.admin = process, port, admin

    def get(self, path, port=None):
        return self.post(path, None, port)

    def post(self, path, body, port=None, **headers):
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        request = urllib.request.Request(f"http://127.0.0.1:{port or self.port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            text = error.read()
        return json.loads(text) if text[:1] in b"{[" else text.decode()

    def predict(self, *instances, **headers):
        return self.post("/v1/models/sums:predict", {"instances": list(instances)}, **headers).get("predictions")

    def metric(self, name, **labels):
        """The one value with these labels, None when there is none."""
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                if sample.name == f"kfp_hybrid_serving_{name}" and labels.items() <= sample.labels.items():
                    return sample.value
        return None

    def await_metric(self, value, name, **labels):
        end = time.monotonic() + 60
        while self.metric(name, **labels) != value:
            assert time.monotonic() < end, f"{name} is {self.metric(name, **labels)}"
            time.sleep(0.02)


@contextlib.contextmanager
def server(tmp_path, *options, model=None, log=subprocess.DEVNULL):
    file, admin = tmp_path / "port", unused_port()
    command = [sys.executable, "-m", "kfp_hybrid.serving", str(model or tmp_path / "versions"), "--name", "sums"]
    command += ["--host", "127.0.0.1", "--port", "0", "--port-file", str(file), "--drain-delay", "0"]
    process = subprocess.Popen([*command, "--admin-port", str(admin), *map(str, options)], stderr=log)
    try:
        found = None
        for _ in range(2400):
            if found is None and file.is_file():
                found = Server(process, int(file.read_text()), admin)
            if found is not None and found.get("/v2/health/ready").get("ready"):
                break
            assert process.poll() is None, "the server ended"
            time.sleep(0.05)
        yield found
    finally:
        process.terminate()
        assert process.wait(60) == 0


@pytest.fixture
def versions(sums, tmp_path):
    for version in (1, 2):
        sums.publish(tmp_path / "versions", version)
    sums.point_latest(tmp_path / "versions", 1)
    return tmp_path / "versions"


def test_latest_is_followed_and_counted(sums, tmp_path, versions):
    with server(tmp_path, "--follow", "0.05") as running:
        assert running.predict({"x": 5, "colour": "red"}) == [1007]
        sums.point_latest(versions, 2)
        running.await_metric(1, "model_info", version="2", role="primary")
        assert running.predict({"x": 5, "colour": "blue"}, {"x": None, "colour": None}) == [2006, 2000]
        assert running.metric("loads_total") == 1
        assert running.metric("rows_total", version="1", protocol="v1") == 1
        assert running.metric("rows_total", version="2", protocol="v1") == 2
        assert running.metric("feature_unknown_total", version="2", feature="colour") == 1
        assert running.metric("errors_total", protocol="v1", code="400") is None
        assert running.predict({"x": "five"}) is None
        assert running.metric("errors_total", protocol="v1", code="400") == 1


def test_a_canary_and_a_shadow_can_be_there_from_the_start(tmp_path, versions):
    options = ("--canary", "50", "--canary-version", "2", "--shadow", "100", "--shadow-version", "2")
    with server(tmp_path, *options) as running:
        keys = list(map(str, range(40)))
        scores = [running.predict({"x": 1, "colour": "red"}, x_request_key=key)[0] for key in keys]
        assert set(scores) == {1003, 2003}
        again = [running.predict({"x": 1, "colour": "red"}, x_request_key=key)[0] for key in keys]
        assert again == scores
        state = running.post("/admin/promote", {}, running.admin)
        assert (state["primary"]["version"], state["previous"]["version"]) == ("2", "1")
        mirrored = 2 * scores.count(1003)  # not what the shadow answered itself, as the candidate
        running.await_metric(mirrored, "shadow_rows_total", result="compared")
        assert running.metric("shadow_rows_total", result="different") == mirrored
        assert running.metric("shadow_largest_difference") == 1000


def test_grpc_is_answered_from_the_same_models_and_counted(tmp_path, versions):
    port = unused_port()
    with server(tmp_path, "--grpc-port", port) as running, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = messages.ModelInferRequest(model_name="sums")
        request.inputs.add(name="x", datatype="FP32", shape=[2]).contents.fp32_contents.extend([1, 2])
        request.inputs.add(name="colour", datatype="BYTES", shape=[2]).contents.bytes_contents.extend([b"red", b""])
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            messages.ModelInferRequest.SerializeToString,
            messages.ModelInferResponse.FromString,
        )
        assert list(infer(request, timeout=120).outputs[0].contents.fp32_contents) == [1003, 1002]
        assert running.metric("rows_total", version="1", protocol="grpc") == 2
        with pytest.raises(grpc.RpcError):
            infer(messages.ModelInferRequest(model_name="other"), timeout=120)
        assert running.metric("errors_total", protocol="grpc", code="NOT_FOUND") == 1


def test_a_free_port_for_grpc_is_told_in_a_file_before_the_server_is_ready(tmp_path, versions):
    with server(tmp_path, "--grpc-port-file", tmp_path / "grpc"):
        port = int((tmp_path / "grpc").read_text())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            live = channel.unary_unary(
                "/inference.GRPCInferenceService/ServerReady",
                messages.ServerReadyRequest.SerializeToString,
                messages.ServerReadyResponse.FromString,
            )
            assert live(messages.ServerReadyRequest(), timeout=120).ready


def write_table(folder, version):
    writer = TableWriter(folder, {"id": "int64"}, 2)
    writer.add(pa.table({"id": [7, 8]}), np.float32([[0.25], [0.5]]), None)
    writer.finish(task="regression", label="y", model_version=version, model_digest="d")


def test_known_keys_are_answered_from_a_table_and_all_else_by_the_model(tmp_path, versions):
    write_table(tmp_path / "table", "1")
    with server(tmp_path, "--table", tmp_path / "table") as running:
        assert running.predict({"id": 7}, {"id": 8, "x": 5, "colour": "red"}) == [0.25, 0.5]
        assert running.predict({"id": 7, "x": 5, "colour": "red"}, {"id": 9, "x": 5, "colour": "green"}) == [1007, 1008]
        assert running.predict({"x": 5, "colour": "red"}) == [1007]
        assert "'x' is missing" in running.post("/v1/models/sums:predict", {"instances": [{"id": 9}]})["error"]
        columns = {"inputs": [{"name": "id", "datatype": "INT64", "shape": [2, 1], "data": [8, 7]}]}
        assert running.post("/v2/models/sums/infer", columns)["outputs"][0]["data"] == [0.5, 0.25]
        assert running.metric("table_rows_total", found="hit") == 4
        assert running.metric("table_rows_total", found="miss") == 3
        running.post("/admin/reload", {"version": "2"}, running.admin)
        assert running.predict({"id": 7, "x": 5, "colour": "red"}) == [2007]  # the table is not of this version


def test_every_metric_is_described(tmp_path, versions):
    page = (Path(__file__).parents[4] / "docs/serving-operations.md").read_text()
    described = set(re.findall(r"`(\w+)`", page[page.index("## Metrics") :]))
    write_table(tmp_path / "table", "1")
    with server(tmp_path, "--table", tmp_path / "table", "--record", tmp_path / "log") as running:
        families = text_string_to_metric_families(running.get("/metrics"))
        own = {family.name: family.type for family in families if family.name.startswith("kfp_hybrid_serving_")}
    names = {name.removeprefix("kfp_hybrid_serving_") + "_total" * (own[name] == "counter") for name in own}
    assert len(names) > 10
    assert names - described == set()


WRONG = {
    ("--follow", "1"): "is no directory of versions, so there is no LATEST; leave --follow out",
    ("--canary", "5"): "error: --canary is 5 and --canary-version is ''; give both or none",
    ("--shadow-version", "5"): "error: --shadow is 0 and --shadow-version is '5'; give both or none",
    ("--canary", "500", "--canary-version", "2"): "percent is 500; give a share of the requests between 0 and 100",
    ("--record", "ftp://logs"): "ftp://",
    ("--table", "nowhere"): "nowhere is not a prediction table: cannot read manifest.json",
    ("--admin-port", "1", "--admin-host", "256.0.0.1"): "cannot listen to operators at 256.0.0.1:1",
}


@pytest.mark.parametrize("options", WRONG)
def test_what_cannot_be_is_told_in_one_line_before_the_server_is_ready(sums, tmp_path, options):
    bundle = sums.make_bundle(tmp_path / "bundle", 1)
    command = [sys.executable, "-m", "kfp_hybrid.serving", bundle, "--port", "0", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert WRONG[options] in result.stderr.splitlines()[-1]


def test_what_was_answered_before_the_end_is_recorded(tmp_path, versions):
    with server(tmp_path, "--record", tmp_path / "log", "--record-seconds", "3600") as running:
        for i in range(20):
            assert running.predict({"x": i, "colour": "red"}, x_request_key=f"user-{i}") == [1002 + i]
        assert running.metric("recorded_rows_total", result="written") == 0
    (folder,) = (tmp_path / "log").iterdir()
    rows = [row for batch in Examples.open(folder).batches("serving") for row in batch.to_pylist()]
    assert [(row["x"], row["request_key"], row["predicted"]) for row in rows] == [
        (i, f"user-{i}", 1002 + i) for i in range(20)
    ]


def test_a_server_that_is_killed_leaves_readable_records(tmp_path, versions):
    options = ("--record", tmp_path / "log", "--record-rows", "1000", "--record-seconds", "0.1")
    with contextlib.suppress(AssertionError), server(tmp_path, *options) as running:
        sent = 0
        while sent < 50 or not running.metric("recorded_rows_total", result="written"):
            running.predict({"x": sent, "colour": "red"})
            sent += 1
        running.process.kill()
        running.process.wait(60)
    (folder,) = (tmp_path / "log").iterdir()
    examples = Examples.open(folder)
    examples.verify()
    found = [row["x"] for batch in examples.batches("serving") for row in batch.to_pylist()]
    assert found
    assert found == list(range(len(found)))


def test_the_log_has_no_data_of_rows_and_each_line_is_an_object(sums, tmp_path, versions):
    with (tmp_path / "log").open("wb") as log, server(tmp_path, "--log-format", "json", log=log) as running:
        running.predict({"x": "secret-of-a-row", "colour": "red"})
        running.post("/admin/reload", {"version": "2"}, running.admin)
        os.kill(running.process.pid, signal.SIGTERM)
        running.process.wait(60)
    lines = [line for line in (tmp_path / "log").read_text().splitlines() if not line.startswith("INFO: Created")]
    assert [json.loads(line)["severity"] for line in lines] == ["INFO"] * len(lines)
    assert any("switched: primary 2" in json.loads(line)["message"] for line in lines)
    assert "secret-of-a-row" not in "".join(lines)
