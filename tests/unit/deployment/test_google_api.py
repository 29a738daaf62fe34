"""What the image has to have for steps that talk to Google Cloud; what they say is tested in tests/contract."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from google.oauth2.credentials import Credentials

from kfp_hybrid import secret_manager
from kfp_hybrid.components.deployment.shift_endpoint_traffic.shift import shift
from kfp_hybrid.google_api import GoogleApi

PARENT = "projects/ml-production/locations/europe-west4"
ENDPOINT = {
    "name": f"{PARENT}/endpoints/7",
    "deployedModels": [
        {"id": "1", "model": f"{PARENT}/models/5", "createTime": "2026-11-21T12:00:00Z"},
        {"id": "2", "model": f"{PARENT}/models/5", "createTime": "2026-11-21T12:00:00.5Z"},
    ],
    "trafficSplit": {"1": 90, "2": 10},
}


@pytest.fixture
def api():
    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            answer = {"endpoints": [ENDPOINT]} if "endpoints?" in self.path else {"payload": {"data": "dmFsdWU="}}
            data = json.dumps(body or answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PATCH = answer

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield GoogleApi(f"http://127.0.0.1:{server.server_address[1]}", Credentials("a-token"))
    server.shutdown()
    thread.join()
    server.server_close()


def test_traffic_is_shifted_from_this_image(api):
    assert shift(api, PARENT, "flights", "promote").traffic_split == {"2": 100}


def test_secrets_are_read_in_this_image(api):
    environment = {"KEY": "secretmanager://projects/ml-production/secrets/s3/versions/3"}
    secret_manager.resolve(environment, api)
    assert environment == {"KEY": "value"}
