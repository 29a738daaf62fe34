"""Dynamic batching: the rows of all requests that are queued when the event loop turns go through the model at once.

While nothing is under way, a request waits for no other: the batch is what came in while the event loop was busy, so
that batches grow with the load and an idle server answers at once. A small batch is computed on the event loop itself,
because handing it to a thread takes longer than it does; a large one in a thread, so that the loop goes on.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kfp_hybrid.serving.rows import Reader, Rows
from kfp_hybrid.serving.servable import Array, Servable

INLINE_SECONDS = 0.002  # a batch that is expected to take longer is computed in a thread
ALONE_ROWS = 256  # a request with so many rows gains nothing from others beside it

log = logging.getLogger(__name__)

Answered = Callable[[Array | None, Exception | None], None]


class Full(Exception):
    """So many rows are queued that no more are taken; the caller should come back later."""


class Expired(Exception):
    """The rows waited longer than they may; they were not computed."""


class Job:
    """The rows of one request.

    Attributes:
        rows: the rows.
        answered: told the scores, float32 [N, outputs], or an error. None when nobody waits any more.
        deadline: when they are of no use any more, in seconds of `time.monotonic`.
    """

    __slots__ = ("answered", "deadline", "rows")

    def __init__(self, rows: Rows, answered: Answered, deadline: float) -> None:
        self.rows = rows
        self.answered: Answered | None = answered
        self.deadline = deadline

    def cancel(self) -> None:
        """Nobody waits for the scores any more; rows that are still queued are not computed."""
        self.answered = None

    def answer(self, scores: Array | None, error: Exception | None) -> None:
        """Tell whoever waits."""
        answered, self.answered = self.answered, None
        if answered is not None:
            try:
                answered(scores, error)
            except Exception:  # must not keep the others in the batch from their answers
                log.exception("an answer could not be given")


class Batcher:
    """Where requests for one version of a model wait for each other. For the event loop alone.

    Args:
        servable: the model.
        max_rows: rows of a batch; a request that has more is a batch of its own.
        max_delay: seconds that a request waits for others; 0 for no longer than the event loop takes to turn.
        queue_rows: rows that may wait or be under way; beyond that `Full` is raised.
        timeout: seconds after which waiting rows are given up.
        workers: batches that are computed at the same time in threads.
        ignore_unknown: whether features that the model does not know are dropped; otherwise they are an error.

    Attributes:
        reader: reads and checks rows for the model.
        queued_rows: rows that wait or are under way.
        batches: batches that were computed.
        batch_rows: rows that were computed.
        observers: told the rows and the seconds of each batch.
    """

    def __init__(
        self,
        servable: Servable,
        max_rows: int = 1024,
        max_delay: float = 0.0,
        queue_rows: int = 65536,
        timeout: float = 30.0,
        workers: int = 1,
        ignore_unknown: bool = False,
    ) -> None:
        self.servable = servable
        self.reader = Reader(servable.features, ignore_unknown)
        self.queued_rows = 0
        self.batches = 0
        self.batch_rows = 0
        self.observers: list[Callable[[int, float], None]] = []
        self._max_rows = max_rows
        self._max_delay = max_delay
        self._queue_rows = queue_rows
        self._timeout = timeout
        self._workers = workers
        self._queue: deque[Job] = deque()
        self._large: deque[Job] = deque()  # each a batch of its own
        self._waiting_rows = 0  # in the first of the two
        self._turn: asyncio.Handle | None = None
        self._under_way = 0  # batches in threads
        self._seconds: dict[int, float] = {}  # of a batch, by the number of binary digits of its rows
        self._threads = ThreadPoolExecutor(workers, "predict")

    def enqueue(self, rows: Rows, answered: Answered) -> Job:
        """Queue the rows of a request.

        Args:
            rows: N >= 1 rows.
            answered: called on the event loop with their scores, or with an error; never before this returns.

        Raises:
            Full: too many rows wait.
        """
        if self.queued_rows and self.queued_rows + rows.count > self._queue_rows:
            raise Full
        job = Job(rows, answered, time.monotonic() + self._timeout)
        self.queued_rows += rows.count
        if rows.count >= ALONE_ROWS:
            self._large.append(job)
        else:
            self._queue.append(job)
            self._waiting_rows += rows.count
        if self._turn is None:
            self._schedule()
        elif self._max_delay and self._waiting_rows >= self._max_rows:
            self._turn.cancel()
            self._turn = asyncio.get_running_loop().call_soon(self._drain)
        return job

    def submit(self, rows: Rows) -> "asyncio.Future[Array]":
        """Queue the rows of a request; the future gets their scores, float32 [N, outputs].

        Raises:
            Full: too many rows wait.
        """
        future: asyncio.Future[Array] = asyncio.get_running_loop().create_future()

        def answered(scores: Array | None, error: Exception | None) -> None:
            if not future.done():
                if scores is None:
                    future.set_exception(error or RuntimeError("no scores"))
                else:
                    future.set_result(scores)

        job = self.enqueue(rows, answered)
        future.add_done_callback(lambda _: job.cancel())
        return future

    async def drain(self) -> None:
        """Wait until all rows are answered."""
        while self.queued_rows:
            await asyncio.sleep(0.005)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False)

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        if self._max_delay and self._waiting_rows < self._max_rows:
            self._turn = loop.call_later(self._max_delay, self._drain)
        else:
            self._turn = loop.call_soon(self._drain)

    def _drain(self) -> None:
        """Compute what is queued; what does not fit into one batch waits for the next turn, or for a thread."""
        self._turn = None
        while self._large and self._under_way < self._workers:
            if jobs := self._live([self._large.popleft()]):
                self._hand_over(jobs, jobs[0].rows)
        count = min(self._waiting_rows, self._max_rows)
        inline = self._seconds.get(count.bit_length(), 0.0) <= INLINE_SECONDS
        if not self._queue or not (inline or self._under_way < self._workers):
            return  # the end of a batch calls this again
        if jobs := self._live(self._next_jobs()):
            rows = Rows.together([job.rows for job in jobs])
            if inline:
                self._answer(jobs, rows, *self._compute(rows))
            else:
                self._hand_over(jobs, rows)
        self._turn_again()

    def _turn_again(self) -> None:
        if (self._queue or self._large) and self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._drain)

    def _next_jobs(self) -> list[Job]:
        jobs: list[Job] = []
        count = 0
        while self._queue and (not jobs or count + self._queue[0].rows.count <= self._max_rows):
            jobs.append(self._queue.popleft())
            count += jobs[-1].rows.count
        self._waiting_rows -= count
        return jobs

    def _live(self, jobs: list[Job]) -> list[Job]:
        """Those of the jobs that somebody still waits for."""
        now = time.monotonic()
        live = [job for job in jobs if job.answered is not None and job.deadline >= now]
        if len(live) < len(jobs):
            for job in set(jobs).difference(live):
                self.queued_rows -= job.rows.count
                job.answer(None, Expired())
        return live

    def _compute(self, rows: Rows) -> tuple[Array | None, Exception | None, float]:
        started = time.perf_counter()
        try:
            scores = self.servable.predict(rows.columns)
            if len(scores) != rows.count:
                raise RuntimeError(f"the model gave {len(scores)} scores for {rows.count} rows")
        except Exception as error:  # it is the answer to these requests, not the end of the server
            return None, error, time.perf_counter() - started
        return scores, None, time.perf_counter() - started

    def _hand_over(self, jobs: list[Job], rows: Rows) -> None:
        loop = asyncio.get_running_loop()
        self._under_way += 1

        def back() -> None:
            self._under_way -= 1
            self._answer(jobs, rows, *future.result())
            self._turn_again()

        future = self._threads.submit(self._compute, rows)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(back))

    def _answer(
        self, jobs: list[Job], rows: Rows, scores: Array | None, error: Exception | None, seconds: float
    ) -> None:
        self.queued_rows -= rows.count
        self.batches += 1
        self.batch_rows += rows.count
        digits = rows.count.bit_length()
        # The least of the last batches: whatever else runs on the machine only adds to the time that one takes.
        self._seconds[digits] = min(seconds, 1.1 * self._seconds.get(digits, seconds))
        for observer in self.observers:
            observer(rows.count, seconds)
        if scores is None:
            self._answer_one_by_one(jobs, error)
            return
        start = 0
        for job in jobs:
            end = start + job.rows.count
            job.answer(scores[start:end], None)
            start = end

    def _answer_one_by_one(self, jobs: list[Job], error: Exception | None) -> None:
        """A batch failed: the rows of one request must not spoil the others, so each is computed by itself."""
        if len(jobs) == 1:
            jobs[0].answer(None, error)
            return
        for job in jobs:
            scores, own_error, _ = self._compute(job.rows)
            job.answer(scores, own_error)
