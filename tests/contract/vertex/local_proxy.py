"""A proxy through which the real clients reach a server on this machine under Google's own names.

Clients are told of it by HTTPS_PROXY and REQUESTS_CA_BUNDLE, as of a company's proxy, so that nothing in them has to be
changed: they ask for https://storage.googleapis.com, and get a connection to the test's server, whose `Host` header
says whom they mean.
"""

import contextlib
import socket
import socketserver
import ssl
import threading

import trustme


class LocalProxy:
    """Ends TLS for the hosts in `hosts` and passes what it reads to the port of a server without TLS."""

    def __init__(self, authority: trustme.CA, hosts: set[str], port: int) -> None:
        self.hosts = hosts
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._authority = authority
        self._port = port
        self._lock = threading.Lock()
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _context(self, host: str) -> ssl.SSLContext:
        with self._lock:
            if host not in self._contexts:
                self._contexts[host] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._authority.issue_cert(host).configure_cert(self._contexts[host])
            return self._contexts[host]

    def _handler(self) -> type[socketserver.BaseRequestHandler]:
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    byte = self.request.recv(1)
                    if not byte:
                        return
                    head += byte
                host = head.split()[1].decode().partition(":")[0]
                if head.split()[0] != b"CONNECT" or host not in proxy.hosts:
                    self.request.sendall(b"HTTP/1.1 502 Unknown Host\r\n\r\n")
                    return
                self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                    client = stack.enter_context(proxy._context(host).wrap_socket(self.request, server_side=True))
                    server = stack.enter_context(socket.create_connection(("127.0.0.1", proxy._port)))
                    back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                    back.start()
                    _copy(client, server)
                    back.join()

        return Handler


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
