"""Waiting for the requests that are there, and for no later ones."""

from __future__ import annotations

import asyncio

from tradewind.engine.in_flight import InFlight

LONG = 60.0


async def test_nothing_is_waited_for_where_nothing_is() -> None:
    assert await InFlight().over(LONG)


async def test_those_that_came_later_are_not_waited_for() -> None:
    flight = InFlight()
    first, second = flight.enter(), flight.enter()
    waiting = asyncio.create_task(flight.over(LONG))
    await asyncio.sleep(0)
    later = flight.enter()
    flight.leave(second)
    await asyncio.sleep(0)
    assert not waiting.done()
    flight.leave(first)
    assert await waiting
    flight.leave(later)


async def test_a_request_without_an_end_is_waited_for_within_bounds() -> None:
    flight = InFlight()
    number = flight.enter()
    assert not await flight.over(0.01)
    flight.leave(number)
    assert await flight.over(LONG)
