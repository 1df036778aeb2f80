"""Who may wait, and whose turn it is: a bounded queue in front of one thread, which takes what waits in batches.

Plain asyncio: nothing here knows of ranking, HTTP or Ray. All of it runs on one event loop, except for the work itself.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Full(Exception):
    """As many wait as may; come back later."""


class Late(Exception):
    """The time for an answer is over.

    Attributes:
        begun: whether the work had begun; otherwise the turn never came.
    """

    def __init__(self, *, begun: bool) -> None:
        super().__init__("the work had begun" if begun else "the turn did not come")
        self.begun = begun


@dataclass(eq=False)
class _Job(Generic[Item, Result]):
    """An item on its way; a timer runs until its turn, and another until its end."""

    item: Item
    weight: int
    begin_by: float
    end_by: float
    done: asyncio.Future[Result]
    begun: bool = False
    timer: asyncio.TimerHandle | None = None

    def expire(self) -> None:
        if not self.done.done():
            self.done.set_exception(Late(begun=self.begun))

    def set_timer(self) -> None:
        self.drop_timer()
        until = self.end_by if self.begun else self.begin_by
        self.timer = self.done.get_loop().call_later(max(0.0, until - time.monotonic()), self.expire)

    def drop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class Admission(Generic[Item, Result]):
    """Items wait here, oldest first, until the thread is free; it then takes as many of them as fit a batch.

    Nobody waits for company: an item that finds the thread free is worked on at once. What became too old in the queue,
    or whose asker has gone, is never worked on.

    Args:
        work: called on the thread with a batch, gives a result or an error for each item; an error that it raises is
            everybody's.
        waiting: items that may wait.
        batch: items that are worked on at once.
        weight: of all items of a batch together; an item that is heavier is worked on alone.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Result | Exception]], *, waiting: int, batch: int, weight: int
    ) -> None:
        self._work, self._most_waiting, self._batch, self._weight = work, waiting, batch, weight
        self._waiting: deque[_Job[Item, Result]] = deque()
        self._running: asyncio.Future[Sequence[Result | Exception]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="work")

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= self._most_waiting

    @property
    def waiting(self) -> int:
        """Items whose turn has not come."""
        return len(self._waiting)

    async def result(self, item: Item, *, weight: int, begin_by: float, end_by: float) -> Result:
        """The item's result.

        Args:
            weight: of the item.
            begin_by: when its turn must have come, by `time.monotonic`.
            end_by: when nobody wants the result any more.

        Raises:
            Full: no place to wait.
            Late: one of the two moments came first.
            Exception: what the work gave for this item.
        """
        if self.is_full:
            raise Full
        loop = asyncio.get_running_loop()
        job = _Job(item, weight, min(begin_by, end_by), end_by, loop.create_future())
        job.set_timer()
        self._waiting.append(job)
        self._start()
        try:
            return await job.done
        finally:
            job.drop_timer()
            if not job.begun:  # late, or its asker has gone: its place is free for another
                with suppress(ValueError):
                    self._waiting.remove(job)

    def close(self) -> None:
        """Ends the thread after what it works on; call it when nobody asks any more."""
        self._thread.shutdown(wait=False)

    def _start(self) -> None:
        if self._running is not None:
            return
        jobs = self._next()
        if jobs:
            loop = asyncio.get_running_loop()
            self._running = loop.run_in_executor(self._thread, self._work, [job.item for job in jobs])
            self._running.add_done_callback(lambda work: self._finish(jobs, work))

    def _next(self) -> list[_Job[Item, Result]]:
        jobs: list[_Job[Item, Result]] = []
        weight, now = 0, time.monotonic()
        while self._waiting and len(jobs) < self._batch:
            job = self._waiting[0]
            if jobs and weight + job.weight > self._weight:
                break
            self._waiting.popleft()
            if job.begin_by <= now:
                job.expire()
            if not job.done.done():  # otherwise late, or nobody wants it any more
                job.begun = True
                job.set_timer()
                jobs.append(job)
                weight += job.weight
        return jobs

    def _finish(self, jobs: Sequence[_Job[Item, Result]], work: asyncio.Future[Sequence[Result | Exception]]) -> None:
        self._running = None
        self._start()  # before anything else, so that the thread does not wait for the answers to be sent
        error = work.exception()
        results = [error] * len(jobs) if error is not None else work.result()
        for job, result in zip(jobs, results, strict=True):
            if job.done.done():
                continue
            if isinstance(result, BaseException):
                job.done.set_exception(result)
            else:
                job.done.set_result(result)
