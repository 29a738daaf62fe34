"""The server as a process: how it starts, what it says of itself, and how it ends."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests

ROW = {"a": 1, "b": 10, "c": "x"}  # sum: 16


def run(*arguments, environment=None):
    command = [sys.executable, "-m", "kfp_hybrid.serving", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


def last_line(process):
    return process.stderr.strip().splitlines()[-1]


def test_it_ends_with_status_0_when_it_is_told_to(start, bundles):
    server = start(bundles / "sum")
    server.terminate()
    assert server.end() == 0


def test_no_accepted_request_is_lost_when_it_ends(start, bundles):
    server = start(bundles / "sum", "--drain-delay", "15")
    answered, wrong = [0] * 16, []
    going = threading.Barrier(17)

    def ask(client):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        try:
            closing = False
            while not closing:  # the server says with its answer when it ends the connection
                number = client * 10000 + answered[client]
                connection.request(
                    "POST", "/v1/models/model:predict", json.dumps({"instances": [{**ROW, "a": number}]})
                )
                answer = connection.getresponse()
                closing = answer.will_close
                assert json.loads(answer.read())["predictions"] == [4.0 * number + 12]
                answered[client] += 1
                if answered[client] == 10:
                    going.wait(60)
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(16)]
    for thread in threads:
        thread.start()
    going.wait(60)
    server.terminate()
    for thread in threads:
        thread.join(60)
    assert server.end() == 0
    assert not wrong
    assert min(answered) > 10


def test_it_says_that_it_is_ending(start, bundles):
    server = start(bundles / "sum", "--drain-delay", "300")
    kept = requests.Session()
    assert kept.get(f"{server.url}/v2/health/ready", timeout=60).status_code == 200
    server.terminate()
    end = time.monotonic() + 120
    while requests.get(f"{server.url}/v2/health/ready", timeout=60).status_code != 503:
        assert time.monotonic() < end
    answer = server.post("/v1/models/model:predict", {"instances": [ROW]})
    assert (answer.json(), answer.headers["connection"]) == ({"predictions": [16.0]}, "close")


def test_two_servers_on_one_port(start, bundles):
    server = start(bundles / "sum")
    second = run(bundles / "sum", "--host", "127.0.0.1", "--port", server.port)
    assert second.returncode == 1
    assert last_line(second).startswith(f"error: cannot listen at 127.0.0.1:{server.port}: ")
    assert server.predict([ROW]) == [16.0]


def test_it_lives_but_is_not_ready_until_the_model_is(start, bundles, tmp_path):
    pipe = tmp_path / "model"
    shutil.copytree(bundles / "sum", pipe)
    content = (pipe / "samples.json").read_bytes()
    (pipe / "samples.json").unlink()
    os.mkfifo(pipe / "samples.json")  # reading it waits until somebody writes
    server = start(pipe, ready=False)
    assert requests.get(f"{server.url}/v2/health/live", timeout=60).status_code == 200
    for path in ("/v2/health/ready", "/v2/models/model/ready", "/v1/models/model"):
        answer = requests.get(server.url + path, timeout=60)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    answer = server.post("/v1/models/model:predict", {"instances": [ROW]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    (tmp_path / "samples.json").write_bytes(content)
    with (pipe / "samples.json").open("wb") as writing:  # waits until somebody reads
        (tmp_path / "samples.json").replace(pipe / "samples.json")  # for whoever reads it again
        writing.write(content)
    assert server.ready().predict([ROW]) == [16.0]


@pytest.mark.parametrize("file", ["model.tflite", "preprocessing.json", "manifest.json", "samples.json"])
def test_a_damaged_model_is_not_served(bundles, tmp_path, file):
    model = tmp_path / "model"
    shutil.copytree(bundles / "sum", model)
    content = bytearray((model / file).read_bytes())
    content[len(content) // 2] ^= 1
    (model / file).write_bytes(content)
    done = run(model, "--host", "127.0.0.1", "--port", 0)
    assert done.returncode == 1
    assert "is damaged" in last_line(done)


def test_a_model_that_does_not_give_the_scores_it_once_gave_is_not_served(bundles, tmp_path):
    from kfp_hybrid.edge.bundle import Bundle, write_bundle

    bundle = Bundle.open(bundles / "sum")
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest["files"]}
    files["samples.json"] = files["samples.json"].replace(b"16.0", b"16.5")
    write_bundle(tmp_path / "model", files, quantization="float32")
    done = run(tmp_path / "model", "--host", "127.0.0.1", "--port", 0)
    assert done.returncode == 1
    assert "does not give the scores that came with it: they differ by 0.03," in last_line(done)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: there is no model to serve; give its folder or URI, or set AIP_STORAGE_URI"),
        (["/nowhere"], "error: there is no model at /nowhere"),
        (["{empty}"], "is neither a SavedModel nor an edge bundle"),
        (["{sum}", "--engine", "tensorflow"], "is an edge bundle without a SavedModel"),
        (["{sum}", "--version", "../x"], "error: the version is '../x'"),
        (["{sum}", "--name", "a/b"], "error: the name is 'a/b'"),
        (["{sum}", "--max-batch-rows", "0"], "error: --max-batch-rows is 0; it must be greater than 0"),
        (["{sum}", "--port", "70000"], "error: the port is 70000"),
        (["ftp://x/y"], "error: "),
    ],
)
def test_mistakes_are_one_line(bundles, tmp_path, arguments, message):
    given = [argument.format(sum=bundles / "sum", empty=tmp_path) for argument in arguments]
    done = run(*given, *([] if "--port" in given else ["--port", "0"]))
    assert done.returncode == 1
    assert message in last_line(done)
    assert "Traceback" not in done.stderr


def test_a_published_version(start, bundles, tmp_path):
    for version in (2, 10):
        shutil.copytree(bundles / "sum", tmp_path / "models" / str(version) / "edge")
    (tmp_path / "models" / "LATEST").write_text("2\n")
    server = start(tmp_path / "models", "--name", "late")
    assert server.post("/v1/models/late:predict", {"instances": [ROW]}).json() == {"predictions": [16.0]}


def test_the_contract_of_vertex_ai(start, bundles):
    environment = {
        "AIP_STORAGE_URI": str(bundles / "sum"),
        "AIP_HTTP_PORT": "1",  # the command line says otherwise
        "AIP_PREDICT_ROUTE": "/ask/here",
        "AIP_HEALTH_ROUTE": "/well",
    }
    server = start(None, environment=environment)
    assert requests.get(f"{server.url}/well", timeout=60).status_code == 200
    answer = server.post("/ask/here", {"instances": [ROW], "parameters": {}})
    assert answer.json() == {"predictions": [16.0]}


def test_vertex_ai_chooses_the_port(bundles):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = {"AIP_STORAGE_URI": str(bundles / "sum"), "AIP_HTTP_PORT": str(port)}
        done = run("--host", "127.0.0.1", environment={**os.environ, **environment})
    assert f"cannot listen at 127.0.0.1:{port}" in last_line(done)


def test_the_log_can_be_json(start, bundles):
    server = start(bundles / "sum", "--log-format", "json")
    server.terminate()
    server.end()
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert [line["severity"] for line in lines] == ["INFO"] * len(lines)
    assert any(line["message"].startswith("ready: model model") for line in lines)


def test_nothing_that_a_server_of_an_edge_bundle_does_not_need_is_imported():
    heavy = ["tensorflow", "kfp", "pyarrow", "minio", "google", "grpc", "prometheus_client", "kubernetes"]
    code = f"import sys, kfp_hybrid.serving.command; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
