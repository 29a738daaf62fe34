"""Shadow mode: a candidate predicts what was answered already, so that the differences are known before it answers."""

import random
from collections.abc import Sequence

import numpy as np

from kfp_hybrid.serving.batching import Batcher, Full
from kfp_hybrid.serving.routing import Deployed, Router, Served, position
from kfp_hybrid.serving.rows import Rows
from kfp_hybrid.serving.servable import Array, Servable

BUSY_ROWS = 256  # that wait for the version that answers; beyond that nothing is mirrored
QUEUE_ROWS = 1024  # that may wait for the shadow
DELAY_SECONDS = 0.02  # for which rows wait for others: nobody waits for them, and large batches are cheap
TOLERANCE = 1e-3  # a larger difference of a score is counted


class Shadow:
    """Gives copies of answered requests to the shadow and compares; an observer of answered requests.

    Args:
        router: which version is the shadow, and of which share of the requests it gets copies.

    Attributes:
        rows: rows that were compared.
        different: those with a score that differs by more than `TOLERANCE`.
        flips: those for which another class is decided.
        largest: the largest difference of a score.
        shed: rows that were not mirrored or not computed, because the server was busy.
        failed: rows that the shadow could not predict.
    """

    def __init__(self, router: Router) -> None:
        self.rows = self.different = self.flips = self.shed = self.failed = 0
        self.largest = 0.0
        self._router = router

    def counts(self) -> tuple[int, ...]:
        """Rows that were compared, different, flipped, shed, failed."""
        return self.rows, self.different, self.flips, self.shed, self.failed

    def observe(self, served: Served) -> None:
        """Mirror an answered request, if it is one of the share."""
        routes = self._router.routes
        shadow = routes.shadow
        if (
            shadow is None
            or served.servable is shadow.servable
            or not _chosen(served.key, shadow.version, routes.shadow_percent)
        ):
            return
        if routes.primary.batcher.queued_rows > BUSY_ROWS:
            self.shed += served.rows.count
            return
        rows = _for_shadow(served.rows, [feature.name for feature in shadow.servable.features])
        if rows is None:
            self.failed += served.rows.count
            return

        def answered(scores: Array | None, error: Exception | None) -> None:
            if scores is None or scores.shape != served.scores.shape or not np.isfinite(scores).all():
                self.failed += served.rows.count
            else:
                self._compare(served, shadow, scores)

        try:
            shadow.batcher.enqueue(rows, answered)
        except Full:
            self.shed += served.rows.count

    def _compare(self, served: Served, shadow: Deployed, scores: Array) -> None:
        differences = np.abs(scores - served.scores).max(axis=1)
        self.rows += len(scores)
        self.different += int(np.count_nonzero(differences > TOLERANCE))
        self.largest = max(self.largest, float(differences.max()))
        ours, theirs = served.servable.decide(served.scores), shadow.servable.decide(scores)
        if ours is not None and theirs is not None:
            self.flips += sum(one != other for one, other in zip(ours, theirs, strict=True))


def deploy_shadow(servable: Servable) -> Deployed:
    """A version with what the requests for a shadow wait in."""
    return Deployed(servable, Batcher(servable, max_delay=DELAY_SECONDS, queue_rows=QUEUE_ROWS))


def _chosen(key: str, version: str, percent: float) -> bool:
    # Not the position of the canary: it would mirror only what the canary answers.
    place = position(key, f"shadow {version}") if key else random.random() * 100  # noqa: S311 - no secret
    return place < percent


def _for_shadow(rows: Rows, names: Sequence[str]) -> Rows | None:
    """The rows with the features of the shadow in its order; None when it wants one that they have not."""
    columns = rows.columns
    if list(columns) == list(names):
        return rows
    if any(name not in columns for name in names):
        return None
    return Rows(names, columns={name: columns[name] for name in names})
