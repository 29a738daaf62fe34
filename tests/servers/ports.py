"""Ports for servers that have to be told theirs."""

import itertools
import secrets
import socket

_CANDIDATES = itertools.count(20_000 + secrets.randbelow(5_000))


def unused_port() -> int:
    """A port of 127.0.0.1 that nothing uses, and that nothing gets by chance until it is used.

    It is below those that the system gives away (from 32768 on, for port 0 and for each connection that is opened): one
    of these could be another's by the time that a server has started.
    """
    for port in _CANDIDATES:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError
