"""Deadlines, caps and the end of a listener, by a clock that the tests move."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.unit.gateway.front.talking import HOST, Echo, hear, listening, talk, until
from tradewind.gateway.front.limits import FrontLimits

GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
LIMITS = FrontLimits(head_s=15, idle_s=90, refused_s=2)


@pytest.mark.parametrize(
    ("sent", "answered"),
    [(b"", False), (b"GET /a HTTP/1.1\r\nhost:", True), (GET + b"GET /b HTT", True)],
    ids=["nothing", "half a head", "half a second head"],
)
async def test_a_head_that_does_not_come_ends_the_connection(sent: bytes, answered: bool) -> None:
    clock = [0.0]
    async with listening(Echo(), LIMITS, clock) as (listener, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await until(lambda: listener.open == 1)
        await asyncio.sleep(0.05)
        clock[0] = 14.9
        listener.sweep()
        assert listener.open == 1
        clock[0] = 15.1
        listener.sweep()
        answer, closed = await hear(reader)
        writer.close()
    assert (b"408 Request Timeout" in answer) is answered
    assert closed


async def test_an_idle_connection_is_closed_and_a_used_one_is_not() -> None:
    clock = [0.0]
    async with listening(Echo(), LIMITS, clock) as (listener, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for at in (0.0, 80.0, 160.0):
            clock[0] = at
            listener.sweep()
            writer.write(GET)
            answer, closed = await hear(reader)
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert not closed
        clock[0] = 251.0
        listener.sweep()
        assert await hear(reader) == (b"", True)
        writer.close()


async def test_whoever_is_refused_is_gone_after_two_seconds_whatever_it_does() -> None:
    clock = [0.0]
    async with listening(Echo(), LIMITS, clock) as (listener, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"blah\r\n\r\n")
        assert (await hear(reader))[1]
        writer.write(b"a" * 100)
        await asyncio.sleep(0.05)
        assert listener.open == 1
        clock[0] = 2.1
        listener.sweep()
        await until(lambda: listener.open == 0)
        writer.close()


async def test_a_refused_caller_that_goes_on_sending_is_cut() -> None:
    async with listening(Echo(), LIMITS) as (listener, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"blah\r\n\r\n" + b"a" * 5_000_000)
        await until(lambda: listener.open == 0)
        writer.close()


async def test_a_caller_who_does_not_read_is_cut_and_one_who_does_slowly_is_not() -> None:
    class Long(Echo):
        async def handle(self, context: object) -> None:
            assert hasattr(context, "begin")
            context.begin(200, [])
            for _ in range(1_000):
                context.write(b"a" * 65_536)
                await context.drained()
            context.end()

    clock = [0.0]
    async with listening(Long(), FrontLimits(write_stall_s=30), clock) as (listener, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
        writer.write(GET)
        await asyncio.sleep(0.1)
        for at in range(0, 200, 20):
            clock[0] = at
            for _ in range(40):
                await reader.read(65_536)
            await asyncio.sleep(0)
            listener.sweep()
        assert listener.open == 1
        await asyncio.sleep(0.05)
        listener.sweep()
        clock[0] += 31
        listener.sweep()
        await until(lambda: listener.open == 0)
        assert listener.refused["stalled"] == 1
        writer.close()


async def test_one_address_cannot_take_all_places() -> None:
    async with listening(Echo(), FrontLimits(connections_per_address=3)) as (listener, port):
        writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(3)]
        await until(lambda: listener.open == 3)
        assert await talk(port, GET) == (b"", True)
        assert listener.refused["address"] == 1
        writers.pop().close()
        await until(lambda: listener.open == 2)
        assert (await talk(port, GET))[0].startswith(b"HTTP/1.1 200")
        for writer in writers:
            writer.close()


async def test_a_full_listener_gives_the_place_of_the_one_that_was_idle_longest() -> None:
    async with listening(Echo(), FrontLimits(connections=2)) as (_, port):
        first, _ = pair = await asyncio.open_connection("127.0.0.1", port)
        second, other = await asyncio.open_connection("127.0.0.1", port)
        for reader, writer in (pair, (second, other)):
            writer.write(GET)
            await hear(reader)
        assert (await talk(port, GET))[0].startswith(b"HTTP/1.1 200")
        assert (await hear(first))[1]
        other.write(GET)
        assert (await hear(second))[0].startswith(b"HTTP/1.1 200")
        other.close()
        pair[1].close()


async def test_a_full_listener_without_an_idle_connection_takes_nobody() -> None:
    async with listening(Echo(), FrontLimits(connections=1)) as (listener, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: listener.open == 1)
        assert await talk(port, GET) == (b"", True)
        assert listener.refused["full"] == 1
        writer.close()


async def test_a_drain_ends_idle_connections_lets_answers_end_and_takes_no_more() -> None:
    hold = asyncio.Event()
    async with listening(Echo(hold=hold)) as (listener, port):
        busy, writer = await asyncio.open_connection("127.0.0.1", port)
        idle, spare = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /p HTTP/1.1\r\n" + HOST + b"content-length: 3\r\n\r\nabc")
        await until(lambda: listener.held == 3)
        drain = asyncio.create_task(listener.drain(5))
        assert (await hear(idle))[1]
        spare.close()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        assert not drain.done()
        hold.set()
        answer, closed = await hear(busy)
        assert answer.endswith(b"POST /p abc")
        assert b"connection: close" in answer
        assert closed
        writer.close()
        await drain


async def test_a_drain_has_an_end() -> None:
    async with listening(echo := Echo(hold=asyncio.Event())) as (listener, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await asyncio.sleep(0.05)
        await listener.drain(0.05)
        await until(lambda: listener.open == 0)
        assert echo.cancelled == 1
        writer.close()


async def test_who_waits_in_the_kernels_queue_when_a_listener_stops_is_answered() -> None:
    async with listening(Echo()) as (listener, port):
        callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        for caller in callers:
            caller.sendall(GET)
        assert listener.open == 0, "the loop had no turn yet"
        await listener.stop(5)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        for caller in callers:
            caller.settimeout(5)
            said = await asyncio.to_thread(caller.recv, 65_536)
            assert said.startswith(b"HTTP/1.1 200 OK")
            assert b"connection: close" in said
            caller.close()
