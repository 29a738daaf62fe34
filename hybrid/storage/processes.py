"""Copies of many small objects in several processes, for each prepares and reads one request at a time.

Run as `python -m kfp_hybrid.storage.processes` this is one of them: it reads where from and where to, then batches of
objects, and answers each batch when it is copied. It ends when its input does, so that none is left when the process
that started it is killed. These are no processes of `multiprocessing`, which would import the caller's main module.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import IO, Any

from kfp_hybrid.storage.copying import copy_object
from kfp_hybrid.storage.errors import StorageError
from kfp_hybrid.storage.interface import Entry, Store
from kfp_hybrid.storage.opening import open_location

BATCH = 256
THREADS = 8  # in each

Task = tuple[Entry, str]  # an object, and its name at the target


def copy_in_processes(
    source: Store, target: Store, tasks: list[Task], processes: int, finished: Callable[[Task], None]
) -> None:
    """Copy small objects from one store to another.

    Args:
        source: where they are.
        target: where they go.
        tasks: what to copy; see `Task`.
        processes: how many to start.
        finished: told of each object that is there, from several threads.

    Raises:
        StorageError: the first error of any process; what is under way then is brought to its end.
    """
    batches = deque(tasks[start : start + BATCH] for start in range(0, len(tasks), BATCH))

    def feed() -> None:
        with _start() as process:
            _send(process.stdin, (source.location, target.location))
            while batch := _next(batches):
                _send(process.stdin, batch)
                if error := _answer(process):
                    raise error
                for task in batch:
                    finished(task)

    with ThreadPoolExecutor(processes, "process") as executor:
        try:
            for fed in as_completed(executor.submit(feed) for _ in range(processes)):
                fed.result()
        except BaseException:
            batches.clear()
            raise


def _next(batches: deque[list[Task]]) -> list[Task] | None:
    try:
        return batches.popleft()
    except IndexError:
        return None


def _start() -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # wherever this package is
    command = [sys.executable, "-m", __name__]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _send(pipe: IO[bytes] | None, message: Any) -> None:
    assert pipe is not None
    try:
        pickle.dump(message, pipe)
        pipe.flush()
    except BrokenPipeError:  # the other side has ended; that it does not answer says more
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def _answer(process: "subprocess.Popen[bytes]") -> Exception | None:
    assert process.stdout is not None
    try:
        answer: Exception | None = pickle.load(process.stdout)  # noqa: S301 - of this very code
    except EOFError:
        return StorageError(f"a process that copied objects ended with status {process.wait()}; run it again")
    return answer


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    source, target = (open_location(location) for location in pickle.load(requests))  # noqa: S301 - see above

    def copy(task: Task) -> None:
        copy_object(source, task[0], target, task[1])

    with ThreadPoolExecutor(THREADS, "storage") as executor:
        while True:
            error: Exception | None = None
            try:
                batch: list[Task] = pickle.load(requests)  # noqa: S301
            except EOFError:
                return
            try:
                for _ in executor.map(copy, batch):
                    pass
            except Exception as raised:
                error = raised
            _send(answers, error)


def main() -> None:
    """Copy what is asked for on the standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the one that started this, too, which then decides
    _serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
