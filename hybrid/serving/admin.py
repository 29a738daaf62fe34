"""What operators may ask of a running server, over HTTP on an address of its own.

    GET  /admin/versions                                    what is in service
    POST /admin/reload    {} or {"version": "7"}            take LATEST, or another version
    POST /admin/canary    {"version": "8", "percent": 5}    give a version a share of the requests; 0 ends it
    POST /admin/promote   {}                                make the candidate of the canary primary
    POST /admin/rollback  {}                                go back to the version before
    POST /admin/shadow    {"version": "8", "percent": 10}   send copies of requests to a version; 0 ends it

Each answers with what is in service then. There is no authentication: whoever reaches the address may do all this,
therefore it is 127.0.0.1 unless told otherwise. A body has to be declared as JSON, which no web page can do for a
server that it was not given access to.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from kfp_hybrid.errors import UserError
from kfp_hybrid.serving.http import JSON, Exchange, HttpServer
from kfp_hybrid.serving.releases import Releases

MAX_BODY_BYTES = 4096
MAX_CONNECTIONS = 16
SECONDS = 10.0  # for a request to arrive
LOAD_SECONDS = 3600.0  # for a version to be fetched and loaded

log = logging.getLogger(__name__)


class WrongRequest(Exception):
    """A request that cannot be understood; the message says why."""


class Admin:
    """Answers the requests of operators.

    Args:
        releases: what changes the versions in service.
    """

    def __init__(self, releases: Releases) -> None:
        self._releases = releases
        self._tasks: set[asyncio.Task[None]] = set()
        self._actions: dict[bytes, Callable[[dict[str, Any]], Awaitable[None]]] = {
            b"/admin/reload": lambda asked: releases.reload(_version(asked, "")),
            b"/admin/canary": lambda asked: releases.canary(*_share(asked)),
            b"/admin/promote": lambda asked: releases.promote(),
            b"/admin/rollback": lambda asked: releases.rollback(),
            b"/admin/shadow": lambda asked: releases.mirror(*_share(asked)),
        }

    def handle(self, exchange: Exchange) -> None:
        """Answer a request, when what it asks for was done."""
        path = exchange.target.partition(b"?")[0]
        action = self._actions.get(path)
        if path == b"/admin/versions" and exchange.method == "GET":
            self._respond(exchange, 200, self._releases.state())
        elif action is None:
            paths = ", ".join(sorted(known.decode() for known in self._actions))
            self._respond(exchange, 404, {"error": f"there is GET /admin/versions, and POST {paths}"})
        elif exchange.method != "POST":
            self._respond(exchange, 405, {"error": f"use POST for {path.decode()}"})
        else:
            task = asyncio.get_running_loop().create_task(self._act(exchange, action))
            self._tasks.add(task)  # the loop itself holds no reference
            task.add_done_callback(self._tasks.discard)

    async def _act(self, exchange: Exchange, action: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        try:
            await action(_asked(exchange))
            self._respond(exchange, 200, self._releases.state())
        except WrongRequest as error:
            self._respond(exchange, 400, {"error": str(error)})
        except UserError as error:
            self._respond(exchange, 409, {"error": str(error)})
        except Exception:
            log.exception("%s failed", exchange.target.decode("ascii", "replace"))
            self._respond(exchange, 500, {"error": "it failed; see the log of the server"})

    @staticmethod
    def _respond(exchange: Exchange, status: int, body: dict[str, Any]) -> None:
        exchange.respond(status, json.dumps(body).encode() + b"\n")


def admin_server(releases: Releases) -> HttpServer:
    """A server for operators, to be told where to listen."""
    return HttpServer(
        Admin(releases).handle,
        lambda message: json.dumps({"error": message}).encode() + b"\n",
        max_body_bytes=MAX_BODY_BYTES,
        max_total_bytes=MAX_CONNECTIONS * MAX_BODY_BYTES,
        max_connections=MAX_CONNECTIONS,
        read_seconds=SECONDS,
        idle_seconds=SECONDS,
        answer_seconds=LOAD_SECONDS,
    )


def _asked(exchange: Exchange) -> dict[str, Any]:
    if exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != JSON.encode():
        raise WrongRequest(f"send the header Content-Type: {JSON}")
    try:
        asked = json.loads(exchange.body or b"{}")
    except ValueError as error:
        raise WrongRequest(f"the body is no JSON: {error}") from None
    if not isinstance(asked, dict):
        raise WrongRequest("the body must be a JSON object")
    return asked


def _version(asked: dict[str, Any], default: str | None = None) -> str:
    version = asked.get("version", default)
    if isinstance(version, int) and not isinstance(version, bool):
        version = str(version)
    if not isinstance(version, str) or (default is None and not version):
        raise WrongRequest('"version" must be a version, such as "7"')
    return version


def _share(asked: dict[str, Any]) -> tuple[str, float]:
    percent = asked.get("percent")
    if not isinstance(percent, int | float) or isinstance(percent, bool):
        raise WrongRequest('"percent" must be a number from 0 to 100')
    return _version(asked, None if percent else ""), float(percent)
