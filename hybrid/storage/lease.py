"""A lock in a store: one process at a time changes what is below a location.

Whoever wants it writes a ticket and then looks at all tickets. Alone, it has the lock; otherwise it takes its ticket
back and tries again a little later. As each looks after it wrote, no two can both be alone: stores show what was
written to whoever lists afterwards. Tickets are renewed; one that was not for a while belongs to a dead process and is
removed. This needs no conditional writes, which not every store has.
"""

import contextlib
import logging
import random
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

from kfp_hybrid.storage.errors import Changed, StorageError
from kfp_hybrid.storage.interface import Store

FOLDER = ".lock"
LEASE_SECONDS = 120.0
RENEWALS = 6  # in that time

log = logging.getLogger(__name__)


class Lease:
    """The lock while it is held; see `hold`."""

    def __init__(self, store: Store, seconds: float) -> None:
        self._store = store
        self._seconds = seconds
        self._ticket = f"{FOLDER}/{secrets.token_hex(8)}"
        self._written = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def check(self) -> None:
        """Make sure that the lock is still held, right before a change that others can see.

        Raises:
            Changed: it is not; this process was stopped or cut off for too long.
        """
        if time.monotonic() - self._written > self._seconds or self._store.stat(self._ticket) is None:
            raise Changed(f"the lock on {self._store.uri_of('')} was lost, this process was held up; run it again")

    def try_to_take(self) -> bool:
        """Take the lock if nobody has it."""
        self._write()
        tickets = list(self._store.entries(f"{FOLDER}/"))
        mine = next((ticket for ticket in tickets if ticket.key == self._ticket), None)
        if mine is None or mine.modified is None:
            raise StorageError(f"{self._store.uri_of('')} does not list what was just written, so it cannot be locked")
        oldest = mine.modified - timedelta(seconds=self._seconds)  # by the store's clock, not this machine's
        dead = [ticket.key for ticket in tickets if ticket.modified and ticket.modified < oldest]
        if dead:
            log.info("removing the lock of a dead process on %s", self._store.uri_of(""))
            self._store.delete(dead)
        if len(tickets) - len(dead) > 1:
            self._store.delete([self._ticket])
            return False
        self._thread.start()
        return True

    def give_back(self) -> None:
        """Let others have the lock."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._store.delete([self._ticket])

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / RENEWALS):
            try:
                if self._store.stat(self._ticket) is None:
                    return  # taken for dead; `check` will say so
                self._write()
            except StorageError as error:
                log.warning("cannot renew the lock: %s", error)

    def _write(self) -> None:
        started = time.monotonic()
        self._store.write_bytes(self._ticket, b"held\n")
        self._written = started


@contextlib.contextmanager
def hold(store: Store, timeout: float, seconds: float | None = None) -> Iterator[Lease]:
    """Hold the lock on what is below the store's location.

    Args:
        store: the store.
        timeout: how long to wait for another process, in seconds.
        seconds: after how long without a sign of life the lock of a dead process is free; two minutes if None.

    Raises:
        StorageError: another process has it for too long.
    """
    deadline = time.monotonic() + timeout
    lease = Lease(store, LEASE_SECONDS if seconds is None else seconds)
    waited = False
    while not lease.try_to_take():
        if time.monotonic() > deadline:
            raise StorageError(
                f"another process has been changing {store.uri_of('')} for {timeout:g} seconds; "
                "wait for it or stop it, then run this again"
            )
        if not waited:
            log.info("waiting for another process that changes %s", store.uri_of(""))
            waited = True
        time.sleep(min(random.uniform(0.1, 2.0), timeout))  # noqa: S311 - spreads those who wait
    try:
        yield lease
    finally:
        lease.give_back()
