"""Who is let in, in which company, and who is turned away; the work is told to wait by the test."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from pipelines.serve.admission import Admission, Full, Late


class Work:
    """Answers a number with its double, when it is let; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        assert self.may_go.wait(10)
        if -1 in items:
            raise RuntimeError("all of them")
        return [ValueError(f"{item} is odd") if item % 2 else 2 * item for item in items]


def admission(work: Work, **how: int) -> Admission[int, int]:
    return Admission(work, **{"waiting": 4, "batch": 3, "weight": 100, **how})


def soon(seconds: float) -> float:
    return time.monotonic() + seconds


def asked(desk: Admission[int, int], item: int, *, weight: int = 1, begin: float = 10.0, end: float = 10.0):
    """Its result; seconds until its turn, and until its end."""
    return desk.result(item, weight=weight, begin_by=soon(begin), end_by=soon(end))


async def held(work: Work, desk: Admission[int, int], item: int = 100) -> asyncio.Task[int]:
    """One that is being worked on, so that all others wait."""
    work.may_go.clear()
    task = asyncio.create_task(asked(desk, item))
    while not work.batches:
        await asyncio.sleep(0.001)
    return task


def test_what_waits_is_taken_together_oldest_first_and_an_error_is_its_own():
    async def run() -> None:
        work = Work()
        desk = admission(work)
        first = await held(work, desk)
        others = [asyncio.create_task(asked(desk, item)) for item in (2, 3, 4, 6)]
        await asyncio.sleep(0)
        assert desk.waiting == 4 and desk.is_full
        work.may_go.set()
        assert await asyncio.gather(first, *others, return_exceptions=True) == [200, 4, others[1].exception(), 8, 12]
        assert work.batches == [[100], [2, 3, 4], [6]]
        with pytest.raises(ValueError, match="3 is odd"):
            others[1].result()
        desk.close()

    asyncio.run(run())


def test_a_batch_is_bounded_by_weight_and_a_heavy_one_goes_alone():
    async def run() -> None:
        work = Work()
        desk = admission(work, batch=8)
        first = await held(work, desk)
        weights = {2: 60, 4: 40, 6: 1, 8: 1000}
        others = [asyncio.create_task(asked(desk, item, weight=weight)) for item, weight in weights.items()]
        await asyncio.sleep(0)
        work.may_go.set()
        await asyncio.gather(first, *others)
        assert work.batches == [[100], [2, 4], [6], [8]]
        desk.close()

    asyncio.run(run())


def test_one_too_many_is_turned_away_and_a_place_is_free_when_its_asker_goes():
    async def run() -> None:
        work = Work()
        desk = admission(work, waiting=2)
        first = await held(work, desk)
        others = [asyncio.create_task(asked(desk, item)) for item in (2, 4)]
        await asyncio.sleep(0)
        with pytest.raises(Full):
            await asked(desk, 6)
        others[0].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not desk.is_full
        last = asyncio.create_task(asked(desk, 8))
        await asyncio.sleep(0)
        work.may_go.set()
        assert await asyncio.gather(first, others[1], last) == [200, 8, 16]
        assert work.batches == [[100], [4, 8]]  # nobody worked for who had gone
        desk.close()

    asyncio.run(run())


def test_what_became_too_old_is_never_worked_on_and_is_told_in_time():
    async def run() -> None:
        work = Work()
        desk = admission(work)
        first = await held(work, desk)
        began = time.monotonic()
        with pytest.raises(Late) as late:
            await asked(desk, 2, begin=0.05)
        assert not late.value.begun and time.monotonic() - began < 5 and desk.waiting == 0
        work.may_go.set()
        assert await first == 200 and work.batches == [[100]]
        with pytest.raises(Late):
            await asked(desk, 2, begin=-1.0)
        assert work.batches == [[100]]
        desk.close()

    asyncio.run(run())


def test_work_that_takes_too_long_is_told_as_such_and_the_next_goes_on():
    async def run() -> None:
        work = Work()
        desk = admission(work)
        work.may_go.clear()
        with pytest.raises(Late) as late:
            await asked(desk, 2, end=0.05)
        assert late.value.begun
        work.may_go.set()
        assert await asked(desk, 4) == 8
        desk.close()

    asyncio.run(run())


def test_an_error_of_the_work_itself_is_everybodys_and_the_next_goes_on():
    async def run() -> None:
        work = Work()
        desk = admission(work)
        with pytest.raises(RuntimeError, match="all of them"):
            await asked(desk, -1)
        assert await asked(desk, 4) == 8
        desk.close()

    asyncio.run(run())
