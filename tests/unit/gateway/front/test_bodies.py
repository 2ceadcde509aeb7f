"""How long the bytes of a request's body are held."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.fakes.engine import Fault, Script
from tests.unit.gateway.asgi import CHAT, KEY, Stage, stage, user
from tests.unit.gateway.front.talking import heard, until
from tradewind.gateway.front.limits import FrontLimits
from tradewind.gateway.front.listener import Listener

STREAMS = 8
BODY = 8 * 1024 * 1024
SLOW = Script(tokens=100_000, interval_s=0.05)


def ask(size: int) -> bytes:
    """A whole request for a stream, with a body of about `size` bytes."""
    body = json.dumps({"model": "chat", "stream": True, "messages": [user("x" * size)]}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json"
    return f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def callers(port: int, count: int, size: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """`count` of them who have sent their requests."""
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    try:
        for _, writer in pairs:
            writer.write(ask(size))
        yield [reader for reader, _ in pairs]
    finally:
        for _, writer in pairs:
            writer.close()


@asynccontextmanager
async def front(
    script: Script, limits: FrontLimits | None = None
) -> AsyncIterator[tuple[Stage, Listener, int]]:
    async with stage(script=script) as s, heard(s.gateway, limits) as (listener, port):
        yield s, listener, port


def held_by_the_gateway() -> int:
    """Bytes that its modules have allocated and that live."""
    ours = tracemalloc.Filter(inclusive=True, filename_pattern="*/tradewind/gateway/*")
    found = tracemalloc.take_snapshot().filter_traces([ours]).statistics("filename")
    return sum(each.size for each in found)


async def test_a_stream_holds_no_body_once_it_has_begun() -> None:
    tracemalloc.start()
    try:
        async with front(SLOW) as (_, listener, port), callers(port, STREAMS, BODY) as readers:
            before = held_by_the_gateway()
            for reader in readers:
                await reader.readuntil(b"data: ")
            await until(lambda: not listener.held)
            assert listener.open == STREAMS
            assert held_by_the_gateway() - before < BODY / 2
    finally:
        tracemalloc.stop()


async def test_a_request_that_may_be_sent_again_holds_its_body() -> None:
    async with front(Script(fault=Fault.NO_HEAD)) as (s, listener, port), callers(port, 1, 1_000_000):
        await s.engine.until(lambda: len(s.engine.seen) == 1)
        assert listener.held > 1_000_000


@pytest.mark.parametrize("fits", [True, False])
async def test_the_room_for_bodies_counts_bytes_not_requests(fits: bool) -> None:
    room = FrontLimits(bodies=1_000_000 if fits else 1_000)
    async with front(Script(fault=Fault.NO_HEAD), room) as (s, _, port), callers(port, 5, 300) as readers:
        if fits:
            await s.engine.until(lambda: len(s.engine.seen) == 5)
            return
        done, _ = await asyncio.wait(
            [asyncio.create_task(reader.read()) for reader in readers], return_when="FIRST_COMPLETED"
        )
        assert b" 503 " in done.pop().result()
        assert len(s.engine.seen) < 5
