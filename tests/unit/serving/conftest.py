"""Real servers on this machine, each a process with a port of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

BUNDLES = Path(__file__).parent / "bundles"


class Server:
    """A model server in a process of its own."""

    def __init__(self, folder, model, *options, environment=None):
        self.log = folder / "log"
        port_file = folder / "port"
        command = [sys.executable, "-m", "kfp_hybrid.serving", *([str(model)] if model else []), "--host", "127.0.0.1"]
        command += ["--port", "0", "--port-file", str(port_file), "--drain-delay", "0.1", *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, **(environment or {})})
        self._wait(port_file.is_file)
        self.port = int(port_file.read_text())
        self.url = f"http://127.0.0.1:{self.port}"

    def _wait(self, condition):
        end = time.monotonic() + 120
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)

    def ready(self):
        """Wait until it is ready, and return it."""
        self._wait(self._is_ready)
        return self

    def _is_ready(self):
        try:
            return requests.get(f"{self.url}/v2/health/ready", timeout=60).status_code == 200
        except requests.ConnectionError:  # it has little patience in some tests, and this process may have been slow
            return False

    def post(self, path, json=None, **more):
        return requests.post(self.url + path, json=json, timeout=60, **more)

    def predict(self, instances):
        response = self.post("/v1/models/model:predict", {"instances": instances})
        assert response.status_code == 200, response.text
        return response.json()["predictions"]

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def end(self):
        """The exit status of a server that was told to end."""
        return self.process.wait(timeout=60)


@pytest.fixture(scope="session")
def bundles():
    return BUNDLES


@pytest.fixture
def start(tmp_path):
    """Start servers that are ended after the test."""
    servers = []

    def start_one(model, *options, ready=True, environment=None):
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        server = Server(folder, model, *options, environment=environment)
        servers.append(server)
        return server.ready() if ready else server

    yield start_one
    for server in servers:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Servers that no test changes, by the name of the bundle."""
    servers = {}

    def of(bundle):
        if bundle not in servers:
            servers[bundle] = Server(tmp_path_factory.mktemp(bundle), BUNDLES / bundle).ready()
        return servers[bundle]

    yield of
    for server in servers.values():
        server.process.kill()
        server.process.wait()
