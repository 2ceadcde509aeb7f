"""The byte path's client against a fake engine: answers whole, reuse, backpressure, cancel, deadlines."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from tests.fakes.engine import FakeEngine, Fault, Script
from tests.unit.gateway.asking import ask
from tradewind.gateway.http1 import ConnectionLimits
from tradewind.gateway.upstream import StreamBroken, StreamTimeout, Upstream


async def test_whole_answer(upstream: Upstream, engine: FakeEngine) -> None:
    response = await ask(upstream, engine)
    assert response.status == 200
    assert response.content_type == b"application/json"
    assert (b"server", b"fake") in response.headers
    answer = json.loads(await response.read_all(10_000))
    assert answer["choices"][0]["message"]["content"] == " word" * 16
    assert engine.seen[0].headers["x-a"] == "b"
    assert await response.read_chunk() == b""


async def test_stream_arrives_token_by_token_and_ends_cleanly(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(tokens=5, interval_s=0.01)
    response = await ask(upstream, engine, stream=True)
    chunks = [chunk async for chunk in response.chunks()]
    assert len(chunks) >= 5
    assert b"".join(chunks).endswith(b"data: [DONE]\n\n")
    assert b"".join(chunks).count(b" word") == 5


async def test_a_peer_that_loses_its_power_is_noticed_within_seconds(
    upstream: Upstream, engine: FakeEngine
) -> None:
    """The kernel asks it: nothing else ends a connection to a node that is gone."""
    response = await ask(upstream, engine)
    (connection,) = upstream._open
    assert connection._transport is not None
    peer = connection._transport.get_extra_info("socket")
    idle, interval, count = (
        peer.getsockopt(socket.IPPROTO_TCP, option)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert idle + interval * count <= 10
    assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 10_000
    await response.read_all(10_000)


async def test_body_larger_than_the_buffer_comes_whole(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(tokens=600_000)
    response = await ask(upstream, engine)
    assert len(await response.read_all(10_000_000)) > 3_000_000


async def test_large_request_body(upstream: Upstream, engine: FakeEngine) -> None:
    response = await ask(upstream, engine, padding="x" * 5_000_000)
    assert response.status == 200
    await response.read_all(10_000)
    assert len(engine.seen[0].body) > 5_000_000


async def test_connections_are_reused_one_after_the_other(upstream: Upstream, engine: FakeEngine) -> None:
    for index in range(20):
        await (await ask(upstream, engine, stream=bool(index % 2))).read_all(100_000)
    assert engine.connections == upstream.connects == 1


async def test_concurrent_requests_use_a_connection_each_and_then_share(
    upstream: Upstream, engine: FakeEngine
) -> None:
    async def one() -> None:
        await (await ask(upstream, engine, stream=True)).read_all(100_000)

    engine.script = Script(tokens=2, interval_s=0.01)
    await asyncio.gather(*(one() for _ in range(8)))
    await asyncio.gather(*(one() for _ in range(8)))
    assert engine.connections == 8


async def test_idle_connections_over_the_bound_are_closed(engine: FakeEngine) -> None:
    upstream = Upstream(max_idle_per_replica=2)
    engine.script = Script(tokens=2, interval_s=0.01)
    responses = await asyncio.gather(*(ask(upstream, engine, stream=True) for _ in range(5)))
    await asyncio.gather(*(response.read_all(100_000) for response in responses))
    await engine.until(lambda: len(engine.open) == 2)
    await upstream.close()
    await engine.until(lambda: not engine.open)


async def test_unused_connections_are_closed_after_the_idle_timeout(engine: FakeEngine) -> None:
    upstream = Upstream(idle_timeout_s=0.05, sweep_interval_s=0.02)
    await (await ask(upstream, engine)).read_all(10_000)
    assert len(engine.open) == 1
    await engine.until(lambda: not engine.open, 1.0)
    await upstream.close()


async def test_forget_closes_idle_connections_only(upstream: Upstream, engine: FakeEngine) -> None:
    engine.next.append(Script(tokens=3, interval_s=0.02))
    streaming = await ask(upstream, engine, stream=True)
    await (await ask(upstream, engine)).read_all(10_000)
    upstream.forget("127.0.0.1", engine.port)
    await engine.until(lambda: len(engine.open) == 1, 1.0)
    assert (await streaming.read_all(100_000)).endswith(b"[DONE]\n\n")


async def test_connection_closed_by_the_peer_while_idle_is_replaced(
    upstream: Upstream, engine: FakeEngine
) -> None:
    await (await ask(upstream, engine)).read_all(10_000)
    for peer in tuple(engine.open):
        peer.abort()
    response = await ask(upstream, engine)
    assert response.status == 200
    await response.read_all(10_000)
    assert engine.connections == 2


async def test_reused_connection_reset_by_the_request_is_retried_once_on_a_fresh_one(
    upstream: Upstream, engine: FakeEngine
) -> None:
    await (await ask(upstream, engine)).read_all(10_000)
    engine.next.append(Script(fault=Fault.RESET_BEFORE_HEAD))
    assert (await ask(upstream, engine)).status == 200
    assert engine.connections == 2
    assert len(engine.seen) == 3


async def test_slow_reader_pauses_the_engine_and_memory_stays_bounded(engine: FakeEngine) -> None:
    upstream = Upstream(limits=ConnectionLimits(read_buffer_bytes=64 * 1024))
    engine.script = Script(tokens=20_000, pad_bytes=1000)  # 24 MB
    response = await ask(upstream, engine, stream=True)
    await engine.until(lambda: engine.pauses > 0)
    stopped_at = engine.written
    assert stopped_at < 16_000_000  # both kernels' socket buffers and ours
    first = await response.read_chunk()
    assert len(first) < 64 * 1024 + 512 * 1024
    rest = await response.read_all(100_000_000)
    assert engine.written > stopped_at
    assert (first + rest).count(b" word") == 20_000
    assert (first + rest).endswith(b"[DONE]\n\n")
    await (await ask(upstream, engine)).read_all(200_000)
    assert engine.connections == 1  # reading was resumed, so the connection could be kept
    await upstream.close()


async def test_abort_is_seen_by_the_engine_at_once(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(tokens=10_000, interval_s=0.01)
    response = await ask(upstream, engine, stream=True)
    assert await response.read_chunk()
    response.abort()
    response.abort()
    await engine.until(lambda: engine.gone == 1 and engine.running == 0, 1.0)
    with pytest.raises(StreamBroken):
        await response.read_chunk()


async def test_cancelled_reader_is_seen_by_the_engine_at_once(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(tokens=10, interval_s=60)
    response = await ask(upstream, engine, stream=True)
    await response.read_chunk()
    task = asyncio.create_task(response.read_all(100_000))
    await asyncio.sleep(0)
    task.cancel()
    await engine.until(lambda: engine.gone == 1, 1.0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_before_the_first_byte_is_seen_by_the_engine(
    upstream: Upstream, engine: FakeEngine
) -> None:
    engine.script = Script(fault=Fault.NO_HEAD)
    task = asyncio.create_task(ask(upstream, engine))
    await engine.until(lambda: len(engine.seen) == 1)
    task.cancel()
    await engine.until(lambda: engine.gone == 1, 1.0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_abort_after_the_end_keeps_the_connection(upstream: Upstream, engine: FakeEngine) -> None:
    response = await ask(upstream, engine)
    await response.read_all(10_000)
    response.abort()
    await (await ask(upstream, engine)).read_all(10_000)
    assert engine.connections == 1


async def test_total_deadline_ends_a_stream_that_still_talks(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(tokens=10_000, interval_s=0.01)
    response = await ask(upstream, engine, total=0.15, stream=True)
    with pytest.raises(StreamTimeout) as caught:
        await response.read_all(10_000_000)
    assert caught.value.total
    await engine.until(lambda: engine.gone == 1, 1.0)


async def test_silence_inside_a_stream_ends_it(engine: FakeEngine) -> None:
    upstream = Upstream(sweep_interval_s=0.02, limits=ConnectionLimits(stall_timeout_s=0.1))
    engine.script = Script(fault=Fault.STALL)
    response = await ask(upstream, engine, stream=True)
    with pytest.raises(StreamTimeout) as caught:
        await response.read_all(100_000)
    assert not caught.value.total
    await engine.until(lambda: engine.gone == 1, 1.0)
    await upstream.close()


async def test_no_delay_is_set(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(tokens=3, interval_s=0.01)
    response = await ask(upstream, engine, stream=True)
    [connection] = upstream._open
    assert connection._transport is not None
    raw = connection._transport.get_extra_info("socket")
    assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await response.read_all(10_000)


async def test_close_ends_streams_under_way(engine: FakeEngine) -> None:
    upstream = Upstream()
    engine.script = Script(tokens=100, interval_s=0.05)
    response = await ask(upstream, engine, stream=True)
    await response.read_chunk()
    await upstream.close()
    with pytest.raises(StreamBroken):
        await response.read_all(100_000)
    await engine.until(lambda: engine.gone == 1, 1.0)
