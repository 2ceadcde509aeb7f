"""Chunks handed on from where they arrive: no task between, and still bounded, ended and failed as before."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.engine import FakeEngine, Fault, Script
from tests.unit.gateway.asking import ask
from tradewind.gateway.http1 import ConnectionLimits
from tradewind.gateway.upstream import StreamBroken, StreamTimeout, Upstream


async def at_once() -> None:
    """Nobody is slow here."""


async def test_no_task_wakes_up_for_a_chunk(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(tokens=20, interval_s=0.002)
    response = await ask(upstream, engine, stream=True)
    callers: set[object] = set()
    taken: list[bytes] = []

    def sink(chunk: bytes) -> bool:
        if taken:  # the first was here before anybody asked
            callers.add(asyncio.current_task())
        taken.append(chunk)
        return False

    await response.deliver(sink, at_once)
    assert b"".join(taken).endswith(b"data: [DONE]\n\n")
    assert len(taken) >= 10
    assert callers == {None}, "the event loop itself"
    assert await response.read_chunk() == b""


async def test_an_engine_is_not_read_while_the_sink_wants_no_more(
    upstream: Upstream, engine: FakeEngine
) -> None:
    engine.script = Script(tokens=20_000, pad_bytes=4_096)
    response = await ask(upstream, engine, stream=True)
    (connection,) = upstream._open
    size = waits = 0

    def sink(chunk: bytes) -> bool:
        nonlocal size
        size += len(chunk)
        return size > 1_000_000 and not waits

    async def drained() -> None:
        nonlocal waits
        await engine.until(lambda: engine.pauses > 0)
        before = size
        await asyncio.sleep(0.05)
        assert connection.paused
        assert size == before
        waits += 1

    await response.deliver(sink, drained)
    assert waits == 1
    assert size > 20_000 * 4_096


async def test_a_consumer_that_takes_its_time_is_no_silence_of_the_engine(engine: FakeEngine) -> None:
    upstream = Upstream(sweep_interval_s=0.01, limits=ConnectionLimits(stall_timeout_s=0.1))
    engine.script = Script(tokens=5_000, pad_bytes=4_096)
    response = await ask(upstream, engine, stream=True)
    waits = 0

    async def drained() -> None:
        nonlocal waits
        waits += 1
        await asyncio.sleep(0.3)

    await response.deliver(lambda _: not waits, drained)
    assert waits == 1
    await upstream.close()


@pytest.mark.parametrize("fault", [Fault.RESET_MID_STREAM, Fault.CLOSE_MID_STREAM, Fault.STALL])
async def test_what_came_is_handed_on_before_the_failure(
    upstream: Upstream, engine: FakeEngine, fault: Fault
) -> None:
    engine.script = Script(fault=fault, fault_after=3)
    response = await ask(upstream, engine, stream=True, total=0.3)
    taken: list[bytes] = []
    expected = StreamTimeout if fault is Fault.STALL else StreamBroken
    with pytest.raises(expected):
        await response.deliver(lambda chunk: bool(taken.append(chunk)), at_once)
    assert b"".join(taken).count(b" word") == 3


async def test_a_sink_that_fails_ends_the_reading(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(tokens=1_000, interval_s=0.001)
    response = await ask(upstream, engine, stream=True)
    count = 0

    def sink(_: bytes) -> bool:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyError("third")
        return False

    with pytest.raises(KeyError, match="third"):
        await response.deliver(sink, at_once)
    response.abort()
    await engine.until(lambda: engine.gone == 1)
    assert count == 3


async def test_cancelling_closes_the_connection(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(tokens=1_000, interval_s=0.001)
    response = await ask(upstream, engine, stream=True)
    task = asyncio.create_task(response.deliver(lambda _: False, at_once))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await engine.until(lambda: engine.gone == 1)
