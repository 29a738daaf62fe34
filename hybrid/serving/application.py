"""What the model server answers at which path, and how a request gets to the model and back."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from kfp_hybrid import __version__
from kfp_hybrid.errors import UserError
from kfp_hybrid.serving import v1, v2
from kfp_hybrid.serving.batching import Batcher, Expired, Full, Job
from kfp_hybrid.serving.http import Exchange, Handler, HttpServer
from kfp_hybrid.serving.options import Options
from kfp_hybrid.serving.routing import Deployed, Router, Served
from kfp_hybrid.serving.rows import InvalidRows, Rows
from kfp_hybrid.serving.servable import Array, Servable

KEY_HEADER = b"x-request-key"
JSON_BYTES_HEADER = b"inference-header-content-length"
REMEMBERED_TARGETS = 256
SOON = (("retry-after", "1"),)

log = logging.getLogger(__name__)

Headers = tuple[tuple[str, str], ...]
Encode = Callable[[Array], tuple[bytes, str, Headers]]
Predict = Callable[[Exchange, str], None]


class Refused(Exception):
    """A request that is answered with an error.

    Attributes:
        status: the HTTP status.
        message: what is wrong, one line.
        headers: more headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


@dataclass(frozen=True)
class Target:
    """What a path leads to.

    Attributes:
        handler: answers.
        version: the version of the model that the path names; "" for any.
    """

    handler: Predict
    version: str = ""


def error_body(message: str) -> bytes:
    """The body of an answer that says what is wrong: the same for all protocols."""
    return orjson.dumps({"error": message})


class Application:
    """Answers requests.

    Args:
        options: the server's options.

    Attributes:
        router: chooses the version for each request; None until a model is ready.
        routes: (method, path) -> handler, for what others add; each must answer its exchange, now or later.
        on_error: told the protocol and the status of each prediction that is answered with an error.
        http: the server that hands over requests.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.router: Router | None = None
        self.routes: dict[tuple[str, str], Handler] = {}
        self.on_error: list[Callable[[str, int], None]] = []
        self.http = HttpServer(
            self.handle,
            error_body,
            max_body_bytes=options.max_body_bytes,
            max_total_bytes=max(8 * options.max_body_bytes, 256 << 20),
            max_connections=options.max_connections,
            read_seconds=options.read_timeout,
            idle_seconds=options.idle_timeout,
            answer_seconds=options.timeout,
        )
        self._remembered: dict[tuple[str, bytes], Target] = {}

    def deploy(self, servable: Servable) -> Deployed:
        """A version with what its requests wait in."""
        options = self.options
        return Deployed(
            servable,
            Batcher(
                servable,
                max_rows=options.max_batch_rows,
                max_delay=options.max_delay_ms / 1e3,
                queue_rows=options.queue_rows,
                timeout=options.timeout,
                workers=options.cores,
                ignore_unknown=options.ignore_unknown,
            ),
        )

    @property
    def ready(self) -> bool:
        """Whether requests for predictions should be sent here."""
        return self.router is not None and not self.http.draining

    def handle(self, exchange: Exchange) -> None:
        """Answer a request."""
        try:
            target = self._remembered.get((exchange.method, exchange.target)) or self._find(exchange)
            target.handler(exchange, target.version)
        except Refused as refused:
            exchange.respond(refused.status, error_body(refused.message), headers=refused.headers)
        except UserError as error:
            exchange.respond(400, error_body(str(error)))
        except Exception:  # one request must not end the others
            log.exception("%s %s failed", exchange.method, exchange.target.decode("ascii", "replace")[:200])
            exchange.respond(500, error_body("the server failed; see its log"))

    # Where a path leads.

    def _find(self, exchange: Exchange) -> Target:
        method = "GET" if exchange.method == "HEAD" else exchange.method
        path = unquote(exchange.target.partition(b"?")[0].decode("ascii", "replace"))
        if handler := self.routes.get((method, path)):
            return Target(lambda exchange, version: handler(exchange))
        found = self._targets(path)
        if method not in found:
            if not found:
                raise Refused(404, f"there is nothing at {path[:100]}; predictions are at {self._predict_path}")
            allowed = ", ".join(sorted(found))
            raise Refused(405, f"{path[:100]} takes {allowed}, not {method}", (("allow", allowed),))
        if len(self._remembered) < REMEMBERED_TARGETS:
            self._remembered[exchange.method, exchange.target] = found[method]
        return found[method]

    @property
    def _predict_path(self) -> str:
        return f"/v1/models/{self.options.name}:predict"

    def _targets(self, path: str) -> dict[str, Target]:
        """Method -> what it leads to at a path; {} if there is nothing."""
        simple: dict[str, Predict] = {
            "/": self._live,
            "/v1/models": lambda exchange, _: _json(exchange, {"models": [self.options.name]}),
            "/v2": lambda exchange, _: _json(exchange, SERVER),
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
        }
        if self.options.health_route:
            simple[self.options.health_route] = self._ready
        if path in simple:
            return {"GET": Target(simple[path])}
        if self.options.predict_route and path == self.options.predict_route:
            return {"POST": Target(self._predict_vertex)}
        for start, found in (("/v1/models/", self._v1_targets), ("/v2/models/", self._v2_targets)):
            if path.startswith(start):
                return found(path.removeprefix(start))
        return {}

    def _v1_targets(self, path: str) -> dict[str, Target]:
        path, _, verb = path.partition(":")
        parts = path.split("/")
        if parts[-1] == "metadata" and not verb:
            return {"GET": Target(self._v1_metadata, self._version(parts[:-1]))}
        if verb not in ("", "predict"):
            raise Refused(404, f"this server has no {verb[:40]!r}; predictions are at {self._predict_path}")
        version = self._version(parts)
        return {"POST": Target(self._predict_v1, version)} if verb else {"GET": Target(self._v1_status, version)}

    def _v2_targets(self, path: str) -> dict[str, Target]:
        parts = path.split("/")
        if parts[-1] == "infer":
            return {"POST": Target(self._predict_v2, self._version(parts[:-1]))}
        if parts[-1] == "ready":
            return {"GET": Target(self._ready, self._version(parts[:-1]))}
        return {"GET": Target(self._v2_metadata, self._version(parts))}

    def _version(self, parts: list[str]) -> str:
        """The version that NAME or NAME/versions/VERSION names; "" for any."""
        if parts[0] != self.options.name:
            raise Refused(404, f"there is no model {parts[0][:100]!r}; this server has {self.options.name!r}")
        if len(parts) == 1:
            return ""
        if len(parts) != 3 or parts[1] != "versions":
            raise Refused(404, f"there is nothing at this path; predictions are at {self._predict_path}")
        return parts[2]

    # Health and metadata.

    def _live(self, exchange: Exchange, version: str) -> None:
        _json(exchange, {"live": True, "status": "alive"})  # as V2 says it, and V1 of KServe

    def _ready(self, exchange: Exchange, version: str) -> None:
        if not self.ready:
            raise Refused(503, "the server is ending" if self.router else "the model is being loaded", SOON)
        self._deployed(version)
        _json(exchange, {"name": self.options.name, "ready": True})

    def _v1_status(self, exchange: Exchange, version: str) -> None:
        servable = self._deployed(version).servable
        _json(exchange, {"name": servable.name, "ready": self.ready, **v1.status(servable)})

    def _v1_metadata(self, exchange: Exchange, version: str) -> None:
        _json(exchange, v1.metadata(self._deployed(version).servable))

    def _v2_metadata(self, exchange: Exchange, version: str) -> None:
        document = v2.model_metadata(self._deployed(version).servable)
        assert self.router is not None
        document["versions"] = [deployed.version for deployed in self.router.routes.answering()]
        _json(exchange, document)

    # Predictions.

    def _predict_v1(self, exchange: Exchange, version: str, protocol: str = "v1") -> None:
        deployed = self._chosen(exchange, version)
        try:
            request = v1.parse(_plain_body(exchange), deployed.batcher.reader)
        except InvalidRows as error:
            raise self._invalid(protocol, error) from None
        self._enqueue(
            exchange,
            deployed,
            request.rows,
            protocol,
            lambda scores: (v1.answer(request, scores), "application/json", ()),
        )

    def _predict_vertex(self, exchange: Exchange, version: str) -> None:
        self._predict_v1(exchange, version, "vertex")

    def _predict_v2(self, exchange: Exchange, version: str) -> None:
        deployed = self._chosen(exchange, version)
        header = exchange.headers.get(JSON_BYTES_HEADER)
        try:
            if header is not None and not header.isdigit():
                raise InvalidRows("Inference-Header-Content-Length is no number")
            request = v2.parse(_plain_body(exchange), None if header is None else int(header), deployed.batcher.reader)
            v2.require_outputs(deployed.servable, request.outputs)
        except InvalidRows as error:
            raise self._invalid("v2", error) from None

        def encode(scores: Array) -> tuple[bytes, str, Headers]:
            body, json_bytes = v2.answer(request, deployed.servable, scores)
            if json_bytes is None:
                return body, "application/json", ()
            return body, "application/octet-stream", (("inference-header-content-length", str(json_bytes)),)

        self._enqueue(exchange, deployed, request.rows, "v2", encode)

    def _invalid(self, protocol: str, error: InvalidRows) -> Refused:
        self._count_error(protocol, 400)
        return Refused(400, str(error))

    def _deployed(self, version: str) -> Deployed:
        """The version that a path names, or the primary.

        Raises:
            Refused: there is none yet, or not this one.
        """
        if self.router is None:
            raise Refused(503, "the model is being loaded; come back later", SOON)
        if not version:
            return self.router.routes.primary
        if deployed := self.router.version(version):
            return deployed
        raise Refused(404, f"version {version[:40]!r} is not served here; leave it out, or ask /v2/models/NAME")

    def _chosen(self, exchange: Exchange, version: str) -> Deployed:
        if version or self.router is None:
            return self._deployed(version)
        key = exchange.headers.get(KEY_HEADER)
        return self.router.choose(None if key is None else key.decode("latin-1"))

    def _enqueue(self, exchange: Exchange, deployed: Deployed, rows: Rows, protocol: str, encode: Encode) -> None:
        """Hand rows to the model, and answer with what it says."""
        if rows.count > self.options.max_request_rows:
            self._count_error(protocol, 413)
            raise Refused(
                413, f"{rows.count} rows are more than {self.options.max_request_rows}; send fewer rows at a time"
            )

        def answered(scores: Array | None, error: Exception | None) -> None:
            exchange.cancel = None
            if scores is None:
                self._fail(exchange, protocol, error)
                return
            try:
                exchange.respond(200, *encode(scores))
            except Exception as failure:
                self._fail(exchange, protocol, failure)
                return
            router = self.router
            if router is not None and router.observers:
                key = exchange.headers.get(KEY_HEADER, b"").decode("latin-1")
                seconds = time.monotonic() - exchange.started
                router.notify(Served(deployed.servable, rows, scores, seconds, protocol, key))

        if rows.scores is not None:
            answered(rows.scores, None)
            return
        try:
            job: Job = deployed.batcher.enqueue(rows, answered)
        except Full:
            self._count_error(protocol, 429)
            raise Refused(429, "too many rows wait for the model; come back later", SOON) from None
        exchange.cancel = job.cancel

    def _fail(self, exchange: Exchange, protocol: str, error: Exception | None) -> None:
        """Answer with what kept the model from predicting."""
        if isinstance(error, Expired):
            status, message = 503, f"the model was too busy to predict within {self.options.timeout:g} s"
        elif isinstance(error, UserError):
            status, message = 400, str(error)
        else:
            log.error("the model failed on a request", exc_info=error)
            status, message = 500, "the model failed on these rows; see the log of the server"
        self._count_error(protocol, status)
        exchange.respond(status, error_body(message), headers=SOON if status == 503 else ())

    def _count_error(self, protocol: str, status: int) -> None:
        for observer in self.on_error:
            observer(protocol, status)


SERVER = {"name": "kfp-hybrid", "version": __version__, "extensions": v2.EXTENSIONS}


def _json(exchange: Exchange, document: Any) -> None:
    exchange.respond(200, orjson.dumps(document))


def _plain_body(exchange: Exchange) -> bytes:
    """The body.

    Raises:
        Refused: it is compressed.
    """
    encoding = exchange.headers.get(b"content-encoding", b"identity")
    if encoding.lower() != b"identity":
        raise Refused(415, f"the body is encoded with {encoding.decode('latin-1')[:40]}; send it plain")
    return exchange.body
