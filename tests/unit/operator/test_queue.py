"""The work queue: coalescing, one at a time per key, bounded, and a failed key comes back later and later."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.unit.operator.fake_clock import FakeClock, settle
from tradewind_operator.queue import Pace, WorkQueue

PACE = Pace(first=0.05, between=0.2, backoff=1.0, backoff_max=8.0)


class Work:
    """Notes every run with its time; runs that are held go on when let go."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.runs: list[tuple[str, float]] = []
        self.failing: set[str] = set()
        self.again: dict[str, float] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.under_way = 0
        self.most = 0

    async def __call__(self, key: str) -> float | None:
        self.runs.append((key, round(self.clock.time - 1_000.0, 2)))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if key in self.held:
                await self.held[key].wait()
        finally:
            self.under_way -= 1
        if key in self.failing:
            raise RuntimeError(key)
        return self.again.pop(key, None)

    def times(self, key: str) -> list[float]:
        return [at for run, at in self.runs if run == key]


@asynccontextmanager
async def running(
    clock: FakeClock, work: Callable[[str], Awaitable[float | None]], workers: int = 2
) -> AsyncIterator[WorkQueue[str]]:
    queue = WorkQueue[str](
        work, workers=workers, pace=PACE, clock=clock, sleep=clock.sleep, rng=random.Random(1)
    )
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_single_change_is_worked_on_after_the_first_delay() -> None:
    clock = FakeClock()
    work = Work(clock)
    async with running(clock, work) as queue:
        queue.add("a")
        await clock.advance(1.0, step=0.01)
    assert work.times("a") == [0.05]


async def test_a_thousand_changes_at_once_are_one_run() -> None:
    clock = FakeClock()
    work = Work(clock)
    async with running(clock, work) as queue:
        for _ in range(1_000):
            queue.add("a")
        assert len(queue) == 1
        await clock.advance(1.0, step=0.01)
    assert len(work.runs) == 1


async def test_a_stream_of_changes_is_bounded_by_the_pace_between_runs() -> None:
    clock = FakeClock()
    work = Work(clock)
    async with running(clock, work) as queue:
        for _ in range(100):
            queue.add("a")
            await clock.advance(0.01, step=0.01)
        await clock.advance(1.0, step=0.01)
    times = work.times("a")
    assert len(times) <= 7
    assert all(later - earlier >= 0.19 for earlier, later in itertools.pairwise(times))


async def test_a_change_during_a_run_leads_to_another_and_never_to_two_at_once() -> None:
    clock = FakeClock()
    work = Work(clock)
    work.held["a"] = asyncio.Event()
    async with running(clock, work) as queue:
        queue.add("a")
        await clock.advance(0.1)
        assert queue.running == {"a"}
        queue.add("a")
        await clock.advance(2.0)
        assert work.most == 1
        assert len(work.runs) == 1
        work.held["a"].set()
        await clock.advance(0.5)
    assert len(work.runs) == 2


async def test_no_more_keys_at_once_than_workers() -> None:
    clock = FakeClock()
    work = Work(clock)
    keys = "abcde"
    work.held = {key: asyncio.Event() for key in keys}
    async with running(clock, work, workers=2) as queue:
        for key in keys:
            queue.add(key)
        await clock.advance(1.0)
        assert work.under_way == 2
        assert queue.depth() == 3
        for event in work.held.values():
            event.set()
        await clock.advance(0.5)
    assert sorted(key for key, _ in work.runs) == list(keys)
    assert work.most == 2


async def test_a_failing_key_comes_back_later_and_later_and_others_go_on() -> None:
    clock = FakeClock()
    work = Work(clock)
    work.failing.add("bad")
    async with running(clock, work) as queue:
        queue.add("bad")
        queue.add("good")
        await clock.advance(40.0, step=0.05)
        queue.add("good")
        await clock.advance(1.0, step=0.05)
    gaps = [later - earlier for earlier, later in itertools.pairwise(work.times("bad"))]
    assert 1.0 <= gaps[0] <= 1.6
    assert 2.0 <= gaps[1] <= 3.1
    assert 4.0 <= gaps[2] <= 6.1
    assert gaps[-1] <= 8.1
    assert len(work.times("good")) == 2


async def test_a_change_ends_the_delay_of_a_failed_key_and_success_resets_it() -> None:
    clock = FakeClock()
    work = Work(clock)
    work.failing.add("a")
    async with running(clock, work) as queue:
        queue.add("a")
        await clock.advance(10.0, step=0.05)
        before = len(work.runs)
        work.failing.clear()
        queue.add("a")
        await clock.advance(0.3, step=0.05)
        assert len(work.runs) == before + 1
        work.failing.add("a")
        queue.add("a")
        await clock.advance(2.0, step=0.05)
    assert len(work.runs) == before + 3


async def test_work_says_when_its_key_is_due_again() -> None:
    clock = FakeClock()
    work = Work(clock)
    work.again["a"] = 30.0
    async with running(clock, work) as queue:
        queue.add("a")
        await clock.advance(29.0)
        assert len(work.runs) == 1
        await clock.advance(2.0)
        assert len(work.runs) == 2
        queue.add("b", after=5.0)
        queue.forget("b")
        await clock.advance(6.0)
    assert work.times("b") == []


async def test_the_end_of_the_queue_ends_what_is_under_way() -> None:
    clock = FakeClock()
    work = Work(clock)
    work.held["a"] = asyncio.Event()
    async with running(clock, work) as queue:
        queue.add("a")
        await clock.advance(0.2)
        assert work.under_way == 1
    await settle()
    assert work.under_way == 0
