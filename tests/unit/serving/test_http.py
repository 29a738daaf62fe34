"""HTTP over real sockets: what clients do that is unusual, slow, too much or wrong."""

import json
import socket
import time

import pytest

ROW = {"a": 1, "b": 10, "c": "x"}  # sum: 16


def request(rows, *headers):
    body = json.dumps({"instances": rows}).encode()
    lines = ["POST /v1/models/model:predict HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Peer:
    """A connection that speaks as it likes."""

    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def answer(self):
        """The status, the headers and the body of the next answer."""
        line = self.file.readline()
        assert line, "the connection was ended without an answer"
        headers = {}
        while (header := self.file.readline().strip()) != b"":
            name, _, value = header.decode().partition(": ")
            headers[name] = value
        return int(line.split()[1]), headers, self.file.read(int(headers.get("content-length", 0)))

    def predictions(self):
        status, _, body = self.answer()
        assert status == 200, body
        return json.loads(body)["predictions"]

    def ended(self):
        return self.file.read(1) == b""

    def close(self):
        self.socket.close()
        self.file.close()


@pytest.fixture
def peer(shared):
    made = []

    def connect(server=None):
        made.append(Peer(server or shared("sum")))
        return made[-1]

    yield connect
    for each in made:
        each.socket.close()


def test_requests_in_a_pipeline_are_answered_in_their_order(peer):
    client = peer()
    client.send(b"".join(request([{**ROW, "a": number}]) for number in range(200)))
    assert [client.predictions() for _ in range(200)] == [[4.0 * number + 12] for number in range(200)]


def test_answers_keep_their_order_where_the_second_is_ready_first(peer):
    client = peer()
    many = [{**ROW, "a": number} for number in range(5000)]
    client.send(request(many) + b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n" + request([ROW]))
    assert len(client.predictions()) == 5000
    assert client.answer()[2] == b'{"live":true,"status":"alive"}'
    assert client.predictions() == [16.0]


def test_a_request_that_arrives_byte_by_byte(peer):
    client = peer()
    for byte in request([ROW]):
        client.send(bytes([byte]))
    assert client.predictions() == [16.0]


def test_a_chunked_body(peer):
    client = peer()
    body = json.dumps({"instances": [ROW]}).encode()
    client.send(b"POST /v1/models/model:predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    for start in range(0, len(body), 7):
        part = body[start : start + 7]
        client.send(b"%x\r\n%b\r\n" % (len(part), part))
    client.send(b"0\r\n\r\n")
    assert client.predictions() == [16.0]


def test_a_client_that_waits_to_be_told_to_go_on(peer):
    client = peer()
    whole = request([ROW], "expect: 100-continue")
    head, _, body = whole.partition(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    assert client.file.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert client.file.readline() == b"\r\n"
    client.send(body)
    assert client.predictions() == [16.0]


def test_an_offer_of_another_protocol_is_passed_over(peer):
    client = peer()
    offer = ("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")
    client.send(request([ROW], *offer) + request([ROW]))
    assert [client.predictions(), client.predictions()] == [[16.0], [16.0]]


def test_offers_of_another_protocol_may_stand_in_a_long_pipeline(peer):
    client = peer()
    client.send(request([ROW], "connection: upgrade", "upgrade: x") * 1200)
    assert [client.predictions() for _ in range(1200)] == [[16.0]] * 1200


def test_a_client_that_takes_it_for_a_proxy_is_refused(peer):
    client = peer()
    client.send(b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n")
    status, _, body = client.answer()
    assert (status, json.loads(body)) == (405, {"error": "this is no proxy; it takes GET, HEAD and POST"})
    assert client.ended()


def test_a_client_of_http_1_0_is_not_told_to_go_on_and_its_connection_is_ended(peer):
    client = peer()
    whole = request([ROW], "expect: 100-continue", "connection: keep-alive")
    client.send(whole.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert client.predictions() == [16.0]
    assert client.ended()


@pytest.mark.parametrize("headers", [["connection: close"], []])
def test_the_connection_is_kept_unless_the_client_wants_it_closed(peer, headers):
    client = peer()
    client.send(request([ROW], *headers))
    assert client.predictions() == [16.0]
    if headers:
        assert client.ended()
    else:
        client.send(request([ROW]))
        assert client.predictions() == [16.0]


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(peer, data):
    client = peer()
    client.send(data)
    status, headers, body = client.answer()
    assert (status, headers["connection"]) == (400, "close")
    assert "HTTP/1.1" in json.loads(body)["error"]
    assert client.ended()


def test_a_body_that_is_too_long_is_refused_before_it_is_sent(start, bundles, peer):
    server = start(bundles / "sum", "--max-body-bytes", "1000")
    client = peer(server)
    client.send(b"POST /v1/models/model:predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n")
    status, _, body = client.answer()
    assert (status, json.loads(body)["error"][:39]) == (413, "the body is longer than 1000 bytes; sen")
    client = peer(server)
    client.send(b"POST /v1/models/model:predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    client.send(b"400\r\n" + b" " * 1024)
    assert client.answer()[0] == 413
    assert server.predict([ROW]) == [16.0]


def test_headers_without_end_are_refused(peer):
    client = peer()
    client.send(b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 40000)
    assert client.answer()[0] == 431
    assert client.ended()


def test_too_many_rows_are_refused(start, bundles):
    server = start(bundles / "sum", "--max-request-rows", "10")
    answer = server.post("/v1/models/model:predict", {"instances": [ROW] * 11})
    assert (answer.status_code, answer.json()["error"]) == (413, "11 rows are more than 10; send fewer rows at a time")


def test_a_client_that_is_too_slow_is_told_so(start, bundles, peer):
    server = start(bundles / "sum", "--read-timeout", "1")
    client = peer(server)
    client.send(request([ROW])[:-5])
    status, _, body = client.answer()
    assert (status, json.loads(body)["error"]) == (408, "the request did not arrive within 1 s")
    assert client.ended()


def served(connect, server):
    """A connection that got an answer, where the server may have ended others before they could ask."""
    end = time.monotonic() + 60
    while True:
        client = connect(server)
        try:
            client.send(request([ROW]))
            assert client.predictions() == [16.0]
            return client
        except (AssertionError, ConnectionError):
            assert time.monotonic() < end
            client.close()


def test_an_idle_connection_is_ended(start, bundles, peer):
    assert served(peer, start(bundles / "sum", "--idle-timeout", "1")).ended()


def test_connections_beyond_the_limit_are_told_to_come_back(start, bundles, peer):
    server = start(bundles / "sum", "--max-connections", "3")
    clients = [served(peer, server) for _ in range(3)]  # while it may not have seen the end of earlier ones
    status, headers, _ = peer(server).answer()
    assert (status, headers["retry-after"]) == (503, "1")
    clients[0].close()
    assert served(peer, server)


def test_clients_that_go_away_midway_harm_nobody(shared, peer):
    whole = request([{**ROW, "a": number} for number in range(3000)])
    for cut in (1, 100, len(whole) // 2, len(whole)):
        client = peer()
        client.send(whole[:cut])
        client.close()
    assert shared("sum").predict([ROW]) == [16.0]


def test_a_client_that_reads_late_gets_every_answer(peer):
    client = peer()
    rows = [{**ROW, "a": number} for number in range(2000)]
    client.socket.settimeout(60)
    for _ in range(30):
        client.send(request(rows))
    expected = [4.0 * number + 12 for number in range(2000)]
    assert all(client.predictions() == expected for _ in range(30))
