"""Requests that no client should send, and what the server may do with them: refuse or answer, and go on.

A request that is wrong is to be refused with a status 4xx. Values that a model was not trained on (missing, of another
type, extreme, unknown) may be refused or answered, as the model takes them. Nothing may be answered with a status 5xx,
break the connection or end the server.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfp_hybrid.components.inference.validate_serving.client import RefusedError, Reply, encode_rows, read_scores
from kfp_hybrid.components.inference.validate_serving.server_process import DEATH_SECONDS, Server, ServingFailure

Row = Mapping[str, Any]

REFUSED = "a status 4xx"
SURVIVED = "scores or a status 4xx"
MOST_UNANSWERED = 10  # then it is enough: each may take as long as a request is allowed to
DEPTH = 100_000
LONG_TEXT = 1 << 20  # characters
MANY_FEATURES = 200  # of more, only the first are taken one by one

EXTREME_NUMBERS = (1e308, -1e308, 3.5e38, 1e-310, 2**31, 2**63, -(2**63) - 1, 10**30, -0.0)
EXTREME_TEXTS = ("", " ", "no such value", "\u0000", "🛩 東京 e\u0301", "x" * LONG_TEXT)


@dataclass(frozen=True)
class HostileRequest:
    """A request.

    Attributes:
        group: What kind of request it is.
        what: What is wrong with it.
        body: Its content.
        expected: `REFUSED` or `SURVIVED`.
        path: Where it goes; V1's predict if empty.
        method: Of HTTP.
    """

    group: str
    what: str
    body: bytes
    expected: str = SURVIVED
    path: str = ""
    method: str = "POST"


@dataclass(frozen=True)
class Outcome:
    """What a hostile request came to.

    Attributes:
        request: The request.
        reply: What came back.
        problem: What is wrong with that, "" for nothing.
    """

    request: HostileRequest
    reply: Reply
    problem: str


def hostile_requests(row: Row, texts: Sequence[str]) -> Iterator[HostileRequest]:
    """All requests.

    Args:
        row: A good row.
        texts: The features that are texts.
    """
    yield from _malformed(row)
    features = list(row)[:MANY_FEATURES]
    for name in features:
        yield _row("missing feature", f"no {name}", {key: value for key, value in row.items() if key != name})
        yield _row("null", f"{name} is null", {**row, name: None})
        wrong: tuple[Any, ...] = ([], {}, True, [row[name], row[name]], 1.5 if name in texts else "a text")
        for value in wrong:
            yield _row("wrong type", f"{name} is {json.dumps(value, ensure_ascii=False)}", {**row, name: value})
        extreme: tuple[Any, ...] = EXTREME_TEXTS if name in texts else EXTREME_NUMBERS
        for value in extreme:
            yield _row("extreme value", f"{name} is {_short(value)}", {**row, name: value})
    yield _row("null", "all features are null", dict.fromkeys(row))
    yield _row("missing feature", "a row without features", {})
    yield _row("unknown feature", "a feature that the model does not have", {**row, "no such feature": 1})


def try_requests(server: Server, requests: Iterator[HostileRequest], good: Row) -> list[Outcome]:
    """Send requests one by one; the server has to live on, and to answer a good row as before.

    Args:
        server: The server.
        requests: What to send.
        good: The row that has to get the same score before and after.

    Raises:
        ServingFailure: it died, or does not answer the good row as before, or many requests at all.
    """
    expected, outcomes, last = _score(server, good), [], ""
    for request in requests:
        if last and request.group != last:
            _require_same(server, good, expected, last)
        reply = server.client.send(request.method, request.path or server.client.predict_path, request.body)
        try:
            server.require_alive(0.0 if reply.status else DEATH_SECONDS)
        except ServingFailure as failure:
            raise ServingFailure(f"{failure}, after this request: {request.group}, {request.what}") from None
        outcomes.append(Outcome(request, reply, _problem(request, reply)))
        last = request.group
        if sum(not outcome.reply.status for outcome in outcomes) >= MOST_UNANSWERED:
            raise ServingFailure(
                f"{MOST_UNANSWERED} hostile requests got no answer, the last one ({last}: {request.what}): "
                f"{reply.describe()}"
            )
    _require_same(server, good, expected, last)
    return outcomes


def _require_same(server: Server, good: Row, expected: list[float], after: str) -> None:
    try:
        score = _score(server, good)
    except ServingFailure as failure:
        raise ServingFailure(f"after requests of the kind “{after}”, {failure}") from None
    if score != expected:
        raise ServingFailure(f"after requests of the kind “{after}”, a good row got another score than before")


def _score(server: Server, row: Row) -> list[float]:
    try:
        return server.client.predict([row])[0].tolist()
    except RefusedError as error:
        server.require_alive(DEATH_SECONDS)
        raise ServingFailure(f"a good row got {error}") from None


def _malformed(row: Row) -> Iterator[HostileRequest]:
    good = encode_rows([row])
    bodies = {
        "an empty body": b"",
        "half of a JSON text": good[: len(good) // 2],
        "bytes that are no text": b"\xff\xfe\x00",
        "a byte that is no UTF-8": good[:-1] + b"\xc3",
        "NaN, which JSON does not have": b'{"instances": [NaN]}',
        "an object without instances": b"{}",
        "a list": b"[1, 2]",
        "a number of instances": b'{"instances": 7}',
        "null for instances": b'{"instances": null}',
        "a text for instances": b'{"instances": "row"}',
        "a good row and then a number": good[:-2] + b", 7]}",
        f"{DEPTH:,} brackets": b"[" * DEPTH,
        f"{DEPTH:,} brackets in a row": b'{"instances": [' + b"[" * DEPTH + b"]" * DEPTH + b"]}",
    }
    for what, body in bodies.items():
        yield HostileRequest("malformed request", what, body, REFUSED)
    yield HostileRequest("malformed request", "no rows", b'{"instances": []}')
    yield HostileRequest(
        "malformed request", "a null for a row", b'{"instances": [null]}'
    )  # a value of a single feature
    yield HostileRequest("malformed request", "half of a surrogate pair", b'{"instances": [{"\\ud800": "\\ud800"}]}')
    yield HostileRequest(
        "wrong address", "a model that is not there", good, REFUSED, "/v1/models/no-such-model:predict"
    )
    yield HostileRequest("wrong address", "a version that is not there", good, REFUSED,
                         "/v1/models/no-such-model/versions/99999:predict")  # fmt: skip
    yield HostileRequest("wrong address", "a path that is not there", good, REFUSED, "/no/such/path")
    yield HostileRequest("wrong address", "GET instead of POST", b"", REFUSED, method="GET")


def _row(group: str, what: str, row: Row) -> HostileRequest:
    return HostileRequest(group, what, encode_rows([row]))


def _problem(request: HostileRequest, reply: Reply) -> str:
    if 400 <= reply.status < 500:
        return ""
    if reply.status != 200 or request.expected == REFUSED:
        return f"got {reply.describe()}, instead of {request.expected}"
    if request.what == "no rows":
        return ""
    try:
        read_scores(reply, 1)
    except RefusedError as error:
        return f"got {error}"
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 40 else f"{text[:20]}… ({len(text):,} characters)"
