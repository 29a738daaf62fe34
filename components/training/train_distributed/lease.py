"""A sign of life from the launching step, so that no node trains for a step that is gone.

A step that is told to stop deletes its TrainJob. One that is killed, or whose machine is lost, cannot; but then it no
longer renews its lease in the staging folder, and the nodes end by themselves. A new try of the step renews it again.
"""

import logging
import os
import threading
import time

from kfp_hybrid import storage
from kfp_hybrid.storage import StorageError

NAME = "lease"
RENEWAL_SECONDS = 60.0


class Lease:
    """The side of the launching step.

    Args:
        staging: URI of the staging folder.
    """

    def __init__(self, staging: str):
        self._store = storage.open_store(staging)
        self._renewed = float("-inf")

    def renew(self) -> None:
        """Renew the lease when it is time to."""
        now = time.monotonic()
        if now - self._renewed < RENEWAL_SECONDS:
            return
        try:
            self._store.write_bytes(NAME, str(time.time()).encode())
            self._renewed = now
        except StorageError as error:  # the nodes bear it for a while
            logging.warning("cannot tell the nodes that they are waited for: %s", error)


def end_when_abandoned(staging: str, lease_seconds: float) -> None:
    """End this process, from now on, when the lease is not renewed for `lease_seconds`; the side of a node.

    Only this process' own clock is used: what counts is for how long the lease has not changed. A store that does not
    answer tells nothing about the step.
    """
    store = storage.open_store(staging)

    def watch() -> None:
        seen, since = b"", time.monotonic()
        while time.monotonic() - since < lease_seconds:
            time.sleep(min(RENEWAL_SECONDS, lease_seconds / 4))
            try:
                found = store.read(NAME)
            except storage.NotFound:
                found = b""
            except StorageError as error:
                logging.warning("cannot see whether the launching step still waits: %s", error)
                since = time.monotonic()
                continue
            if found != seen:
                seen, since = found, time.monotonic()
        # To stdout, since TensorFlow is imported with stderr turned away.
        print(f"error: the launching step has not been heard of for {lease_seconds:g} s; nobody waits", flush=True)
        os._exit(1)  # from a thread; the main one may be inside TensorFlow

    threading.Thread(target=watch, daemon=True, name="lease").start()
