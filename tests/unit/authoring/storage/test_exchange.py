"""Requests and answers over a connection: what stores send is read, and what is cut or garbled is an error."""

import socket
import threading

import pytest
from urllib3.exceptions import ProtocolError

from kfp_hybrid.storage.exchange import Connection


@pytest.fixture
def ends():
    """A connection and the server's end of it."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.settimeout(60)
    connection = Connection(ours)
    yield connection, theirs
    connection.close()
    theirs.close()


OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "of a known length": (OK + b"Content-Length: 7\r\n\r\ncontent", "GET", 200, b"content", True),
    "in chunks": (OK + b"transfer-encoding: Chunked\r\n\r\n4;a=b\r\ncont\r\n003\r\nent\r\n0\r\nTrailer: t\r\n\r\n",
                  "GET", 200, b"content", True),
    "after a provisional one": (b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na",
                                "PUT", 200, b"a", True),
    "to HEAD": (OK + b"Content-Length: 7\r\n\r\n", "HEAD", 200, b"", True),
    "without content": (b"HTTP/1.1 204 No Content\r\n\r\n", "DELETE", 204, b"", True),
    "without a reason": (b"HTTP/1.1 404\r\nContent-Length: 2\r\n\r\nno", "GET", 404, b"no", True),
    "that ends with the connection": (OK + b"\r\ncontent", "GET", 200, b"content", False),
    "that is the last one": (OK + b"Connection: Close\r\nContent-Length: 1\r\n\r\na", "GET", 200, b"a", False),
    "of an old server": (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", "GET", 200, b"a", False),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer(ends, name):
    connection, server = ends
    sent, method, status, data, stays_open = ANSWERS[name]
    server.sendall(sent)
    server.shutdown(socket.SHUT_WR)
    answer = connection.receive(method)
    assert (answer.status, answer.data, connection.is_open) == (status, data, stays_open)


def test_answers_follow_each_other_and_the_case_of_headers_does_not_matter(ends):
    connection, server = ends
    server.sendall(b"".join(OK + b'ETag:  "%d" \r\ncontent-length: 1\r\n\r\n%d' % (n, n) for n in range(3)))
    for number in range(3):
        answer = connection.receive("GET")
        assert answer.data == b"%d" % number
        assert answer.headers.get("etag") == answer.headers["ETAG"] == f'"{number}"'


BROKEN = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-server\r\n",
    "half a status": b"HTTP/1.1 20",
    "no status": b"HTTP/1.1 abc OK\r\n\r\n",
    "half the headers": OK + b"Content-Length: 7\r\n",
    "no header": OK + b"Content-Length 7\r\n\r\ncontent",
    "too long a header": OK + b"A: " + b"a" * (1 << 16) + b"\r\n\r\n",
    "too many headers": OK + b"A: b\r\n" * 101 + b"\r\n",
    "half a body": OK + b"Content-Length: 7\r\n\r\ncont",
    "no length": OK + b"Content-Length: many\r\n\r\ncontent",
    "a negative length": OK + b"Content-Length: -1\r\n\r\ncontent",
    "half a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n7\r\ncont",
    "no last chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n7\r\ncontent\r\n",
    "no chunk": OK + b"Transfer-Encoding: chunked\r\n\r\ncontent\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_answer_that_is_none(ends, name):
    connection, server = ends
    server.sendall(BROKEN[name])
    server.shutdown(socket.SHUT_WR)
    with pytest.raises(ProtocolError):
        connection.receive("GET")


@pytest.mark.parametrize("size", [0, 7, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, (3 << 20) + 5])
def test_a_request_arrives_as_it_was_sent(ends, size):
    connection, server = ends
    body = bytes(index % 251 for index in range(size))
    head = f"PUT /b/a%20b?c=d HTTP/1.1\r\nHost: store\r\nContent-Length: {size}\r\n\r\n".encode()
    received = bytearray()

    def receive() -> None:
        while len(received) < len(head) + size:
            received.extend(server.recv(1 << 16))

    thread = threading.Thread(target=receive)
    thread.start()
    connection.send("PUT", "/b/a%20b?c=d", body, {"Host": "store"})
    thread.join()
    assert received == head + body


def test_a_header_cannot_become_two(ends):
    connection, server = ends
    for name, value in (("A", "b\r\nHost: other"), ("A", "b\n"), ("A\r\nB", "c")):
        with pytest.raises(ValueError, match="line break"):
            connection.send("GET", "/", None, {name: value})
    connection.close()
    assert server.recv(1) == b""
