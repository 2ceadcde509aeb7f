"""Long work in short steps."""

from __future__ import annotations

import asyncio

import pytest

from tradewind.api.steps import Steps, Superseded, at_once, in_slices


class Clock:
    """Goes on by a step's time at each step."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def work(steps: int, clock: Clock, done: list[int]) -> Steps[str]:
    try:
        for number in range(steps):
            clock.now += 0.4
            done.append(number)
            yield
        return "all"
    finally:
        done.append(-1)


def test_all_of_it_at_once() -> None:
    done: list[int] = []
    assert at_once(work(3, Clock(), done)) == "all"
    assert done == [0, 1, 2, -1]


async def test_others_have_their_turn_after_each_slice() -> None:
    clock, done, seen = Clock(), list[int](), list[int]()

    async def watch() -> None:
        while True:
            seen.append(len(done))
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    assert await in_slices(work(9, clock, done), slice_s=1.0, clock=clock) == "all"
    watcher.cancel()
    assert seen == [3, 6, 9]


async def test_what_is_no_longer_wanted_is_given_up() -> None:
    clock, done = Clock(), list[int]()
    with pytest.raises(Superseded):
        await in_slices(work(9, clock, done), wanted=lambda: len(done) < 4, slice_s=1.0, clock=clock)
    assert done == [0, 1, 2, 3, 4, 5, -1]


async def test_an_error_is_the_callers() -> None:
    def fails() -> Steps[None]:
        yield
        raise LookupError("here")

    with pytest.raises(LookupError, match="here"):
        await in_slices(fails())
