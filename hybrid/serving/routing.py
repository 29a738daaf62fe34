"""Which version of a model answers a request, and who is told when it was answered.

One version is primary. Beside it there may be a candidate that gets a share of the requests (canary), and a shadow that
gets copies of requests and never answers. A choice is made on the event loop and reads one reference, so that a switch
of versions falls between two requests and never into one.
"""

import hashlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from kfp_hybrid.errors import UserError

if TYPE_CHECKING:
    from kfp_hybrid.serving.batching import Batcher
    from kfp_hybrid.serving.rows import Rows
    from kfp_hybrid.serving.servable import Array, Servable

POSITIONS = 1 << 53  # as many as a float tells apart

log = logging.getLogger(__name__)


class Served(NamedTuple):
    """A request that was answered.

    Attributes:
        servable: the version that answered.
        rows: its rows.
        scores: float32 [N, outputs].
        seconds: from when the request was there to when its answer was.
        protocol: "v1", "v2", "grpc" or "vertex".
        key: the routing key of the request, "" without one.
    """

    servable: "Servable"
    rows: "Rows"
    scores: "Array"
    seconds: float
    protocol: str
    key: str


Observer = Callable[[Served], None]


@dataclass(frozen=True, eq=False)
class Deployed:
    """A version that is loaded, warm and ready to answer.

    Attributes:
        servable: the model.
        batcher: where requests for it wait for each other.
    """

    servable: "Servable"
    batcher: "Batcher"

    @property
    def version(self) -> str:
        """The version of the model."""
        return self.servable.version


@dataclass(frozen=True)
class Routes:
    """Where requests go.

    Attributes:
        primary: answers what nothing else answers.
        candidate: answers its share.
        percent: the share of the candidate, 0 to 100.
        shadow: gets copies, never answers.
        shadow_percent: the share of requests that are copied, 0 to 100.
        previous: what was primary before, for a rollback; it stays loaded.
    """

    primary: Deployed
    candidate: Deployed | None = None
    percent: float = 0.0
    shadow: Deployed | None = None
    shadow_percent: float = 0.0
    previous: Deployed | None = None

    def loaded(self) -> list[Deployed]:
        """Each version that is in use or kept, once."""
        return list(dict.fromkeys(deployed for _, deployed in self.roles()))

    def answering(self) -> list[Deployed]:
        """The versions that answer requests: primary, candidate."""
        return [deployed for deployed in (self.primary, self.candidate) if deployed is not None]

    def roles(self) -> list[tuple[str, Deployed]]:
        """What each version is used for."""
        roles = (("primary", self.primary), ("candidate", self.candidate), ("shadow", self.shadow))
        return [(role, d) for role, d in (*roles, ("previous", self.previous)) if d is not None]


def position(key: str, salt: str) -> float:
    """Where a key lies in [0, 100): it is the candidate's if that is less than the candidate's percentage.

    The position depends on the key and the salt alone. Raising the percentage therefore only moves keys to the
    candidate, lowering it only moves keys back, and all servers agree. The salt is the candidate's version, so that it
    is not the same people who get every candidate first.
    """
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=salt.encode()[:64], digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / POSITIONS * 100


class Router:
    """Chooses the version for each request. For the event loop alone, except where a method says otherwise.

    Attributes:
        observers: called after each answered request.
    """

    def __init__(self, primary: Deployed) -> None:
        self._routes = Routes(primary)
        self.observers: list[Observer] = []

    @property
    def routes(self) -> Routes:
        """Where requests go now; may be read from any thread."""
        return self._routes

    def choose(self, key: str | None = None) -> Deployed:
        """The version that answers a request. Submit to its batcher before anything is awaited.

        Args:
            key: what makes the choice sticky, as the header X-Request-Key; without one the choice is random.
        """
        routes = self._routes
        if routes.candidate is None:
            return routes.primary
        place = position(key, routes.candidate.version) if key else random.random() * 100  # noqa: S311 - no secret
        return routes.candidate if place < routes.percent else routes.primary

    def version(self, version: str) -> Deployed | None:
        """The version that a request names, if it is primary or candidate; None otherwise."""
        return next((deployed for deployed in self._routes.answering() if deployed.version == version), None)

    def notify(self, served: Served) -> None:
        """Tell the observers of an answered request; what one of them raises is logged and goes no further."""
        for observer in self.observers:
            try:
                observer(served)
            except Exception:
                log.exception("an observer of answered requests failed; the answer was given")

    def switch(self, primary: Deployed) -> None:
        """Make another version primary and keep the one before for a rollback. A canary of that version ends."""
        routes = self._routes
        if primary is routes.primary:
            return
        routes = replace(routes, primary=primary, previous=routes.primary)
        self._routes = replace(routes, candidate=None, percent=0.0) if routes.candidate is primary else routes

    def rollback(self) -> Deployed:
        """Make the version before primary again, and end a canary.

        Returns:
            The version that was primary until now.

        Raises:
            UserError: there is no version before.
        """
        routes = self._routes
        if routes.previous is None:
            raise UserError("there is no version to go back to; this server has only had one since its start")
        self._routes = replace(
            routes, primary=routes.previous, previous=routes.primary, candidate=None, percent=0.0
        )  # fmt: skip
        return routes.primary

    def canary(self, candidate: Deployed | None, percent: float) -> None:
        """Give a candidate its share of the requests; None or 0 percent ends the canary."""
        require_percent(percent)
        on = candidate is not None and percent > 0 and candidate is not self._routes.primary
        self._routes = replace(self._routes, candidate=candidate if on else None, percent=percent if on else 0.0)

    def mirror(self, shadow: Deployed | None, percent: float) -> None:
        """Give a version copies of a share of the requests; None or 0 percent ends it."""
        require_percent(percent)
        on = shadow is not None and percent > 0
        self._routes = replace(self._routes, shadow=shadow if on else None, shadow_percent=percent if on else 0.0)


def require_percent(percent: float) -> None:
    """Check a share of requests.

    Raises:
        UserError: it is not between 0 and 100.
    """
    if not 0 <= percent <= 100:
        raise UserError(f"percent is {percent:g}; give a share of the requests between 0 and 100")
