"""Runs a function over items in several processes, in order, with bounded memory."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from kfp_hybrid.step import StepError

Item = TypeVar("Item")
Result = TypeVar("Result")

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], processes: int) -> Iterator[Result]:
    """Like `map`, in worker processes that are forked from this one when the first result is asked for.

    Forking costs milliseconds and shares the memory of the modules that are imported already; TFDV alone would cost
    each new interpreter seconds and 600 MB. At most two items per process are under way at a time.

    Args:
        function: importable by name.
        items: taken one by one, as results are consumed.
        processes: how many; with 1 everything happens in this process.

    Yields:
        function(item) for every item, in the order of the items.

    Raises:
        StepError: a worker process died.
    """
    if processes == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=(os.getpid(),))
    try:
        # Forks all workers now: `items` may start threads when it is iterated, and forking does not go with threads.
        pool.submit(os.getpid).result()
        yield from _results(pool, function, items, window=2 * processes)
    except BrokenProcessPool as error:
        raise StepError(
            f"one of {processes} worker processes was killed, probably for want of memory; give the step more memory "
            "or set its parameter processes to 1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _results(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], window: int
) -> Iterator[Result]:
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) == window:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _start_worker(parent: int) -> None:
    """A worker dies when it is told to, and never outlives the step."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the step decides
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
