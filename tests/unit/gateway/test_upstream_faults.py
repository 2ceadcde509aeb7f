"""Every way an engine can fail, as the gateway's client tells it; and the request heads that are refused."""

from __future__ import annotations

import os
import resource
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.engine import FakeEngine, Fault, Script
from tests.unit.gateway.asking import ask
from tradewind.gateway.http1 import ConnectionLimits
from tradewind.gateway.upstream import (
    BadResponse,
    ConnectFailed,
    HeadTimeout,
    OutOfResources,
    ResponseFailed,
    StreamBroken,
    Upstream,
    request_head,
)

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"content-length: 2\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


async def test_refused(upstream: Upstream, engine: FakeEngine) -> None:
    await engine.refuse()
    with pytest.raises(ConnectFailed) as caught:
        await ask(upstream, engine)
    assert caught.value.refused


async def test_listener_that_never_accepts_times_out_as_connect_failed(engine: FakeEngine) -> None:
    upstream = Upstream(connect_timeout_s=0.1)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        engine.port, port = full.getsockname()[1], engine.port
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:  # the accept queue is full, so the next SYN is dropped
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        with pytest.raises(ConnectFailed) as caught:
            await ask(upstream, engine)
        for filler in fillers:
            filler.close()
    engine.port = port
    assert not caught.value.refused


async def test_without_a_file_descriptor_nothing_is_known_of_the_engine(
    upstream: Upstream, engine: FakeEngine
) -> None:
    (_, hard), before = resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken, hard))  # every number below is in use
    try:
        with pytest.raises(OutOfResources):
            await ask(upstream, engine)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        os.close(taken)
    assert (await ask(upstream, engine)).status == 200


async def test_reset_before_the_head_on_a_fresh_connection(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(fault=Fault.RESET_BEFORE_HEAD)
    with pytest.raises(ResponseFailed) as caught:
        await ask(upstream, engine)
    assert not caught.value.stale
    assert len(engine.seen) == 1  # not asked again behind the caller's back


async def test_engine_that_dies_on_every_request_is_asked_twice_at_most(
    upstream: Upstream, engine: FakeEngine
) -> None:
    await (await ask(upstream, engine)).read_all(10_000)
    engine.script = Script(fault=Fault.RESET_BEFORE_HEAD)
    with pytest.raises(ResponseFailed):
        await ask(upstream, engine)
    assert len(engine.seen) == 3


async def test_reused_connection_that_dies_late_is_not_stale(upstream: Upstream, engine: FakeEngine) -> None:
    upstream = Upstream(limits=ConnectionLimits(stale_window_s=0.0))
    await (await ask(upstream, engine)).read_all(10_000)
    engine.next.append(Script(fault=Fault.RESET_BEFORE_HEAD))
    with pytest.raises(ResponseFailed):
        await ask(upstream, engine)
    await upstream.close()


@pytest.mark.parametrize("fault", [Fault.RESET_MID_STREAM, Fault.CLOSE_MID_STREAM])
async def test_dies_mid_stream(upstream: Upstream, engine: FakeEngine, fault: Fault) -> None:
    engine.script = Script(fault=fault, interval_s=0.01)
    response = await ask(upstream, engine, stream=True)
    received = b""
    try:
        async for chunk in response.chunks():
            received += chunk
    except StreamBroken:
        received += b"broken"
    assert received.count(b" word") == 2
    assert received.endswith(b"broken")
    assert upstream.open_connections == 0


async def test_head_that_does_not_come(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(fault=Fault.NO_HEAD)
    with pytest.raises(HeadTimeout):
        await ask(upstream, engine, within=0.1)
    await engine.until(lambda: engine.gone == 1, 1.0)


async def test_head_without_a_first_byte_times_out_too(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(fault=Fault.RAW, raw=CHUNKED)
    with pytest.raises(HeadTimeout):
        await ask(upstream, engine, within=0.1)
    await engine.until(lambda: not engine.open, 1.0)


async def test_slow_head_in_time(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(head_delay_s=0.1)
    assert (await ask(upstream, engine)).status == 200


async def test_503_is_an_answer(upstream: Upstream, engine: FakeEngine) -> None:
    engine.script = Script(fault=Fault.UNAVAILABLE)
    response = await ask(upstream, engine)
    assert response.status == 503
    assert b"error" in await response.read_all(10_000)


@pytest.mark.parametrize("fault", [Fault.GARBAGE, Fault.HUGE_HEAD])
async def test_not_a_response(upstream: Upstream, engine: FakeEngine, fault: Fault) -> None:
    engine.script = Script(fault=fault)
    with pytest.raises(BadResponse):
        await ask(upstream, engine)
    await engine.until(lambda: not engine.open, 1.0)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", id="CL and TE"
        ),
        pytest.param(
            OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n", id="TE and CL"
        ),
        pytest.param(OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nab", id="two CLs"),
        pytest.param(OK + b"content-length: 2, 2\r\n\r\nab", id="list of CLs"),
        pytest.param(OK + b"content-length: +2\r\n\r\nab", id="signed CL"),
        pytest.param(OK + b"content-length: 99999999999999999999999\r\n\r\nab", id="overflowing CL"),
        pytest.param(OK + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", id="two codings"),
        pytest.param(OK + b"transfer-encoding: gzip\r\n\r\nab", id="another coding"),
        pytest.param(OK + b"transfer-encoding: identity\r\n\r\nab", id="identity"),
        pytest.param(OK + b"\r\nab", id="until close"),
        pytest.param(CHUNKED + b"2\r\nabc\r\n0\r\n\r\n", id="over-long chunk"),
        pytest.param(CHUNKED + b"2\r\na\r\n0\r\n\r\n", id="short chunk"),
        pytest.param(CHUNKED + b"-2\r\nab\r\n0\r\n\r\n", id="signed chunk"),
        pytest.param(CHUNKED + b"fffffffffffffffff\r\nab", id="overflowing chunk"),
        pytest.param(CHUNKED + b"2\r\nab\r\n0\r\nx-late: 1\r\n\r\n", id="trailers"),
        pytest.param(CHUNKED + b"2;" + b"x" * 100_000, id="endless chunk extension"),
        pytest.param(OK + b"content-length : 0\r\n\r\n", id="space before colon"),
        pytest.param(OK + b"x: a\r\n b\r\ncontent-length: 0\r\n\r\n", id="folded header"),
        pytest.param(OK + b"x: a\ncontent-length: 0\r\n\r\n", id="bare LF"),
        pytest.param(OK + b"x: a\0\r\ncontent-length: 0\r\n\r\n", id="NUL"),
        pytest.param(b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", id="HTTP/1.0"),
        pytest.param(b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n", id="HTTP/2.0"),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nab", id="upgrade"
        ),
        pytest.param(
            OK + b"x: " + b"x" * 40_000 + b"\r\nx: " + b"x" * 40_000 + b"\r\ncontent-length: 0\r\n\r\n",
            id="head",
        ),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, id="endless interim responses"),
    ],
)
async def test_ambiguous_or_oversized_framing(upstream: Upstream, engine: FakeEngine, raw: bytes) -> None:
    engine.script = Script(fault=Fault.RAW, raw=raw)
    with pytest.raises(BadResponse):
        await ask(upstream, engine)
    await engine.until(lambda: not engine.open, 1.0)


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + LENGTH + b"\r\nab", b"ab", id="interim"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="no content"),
        pytest.param(CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc", id="chunks together"),
        pytest.param(CHUNKED + b"0\r\n\r\n", b"", id="empty"),
    ],
)
async def test_valid_framing_keeps_the_connection(
    upstream: Upstream, engine: FakeEngine, raw: bytes, body: bytes
) -> None:
    engine.script = Script(fault=Fault.RAW, raw=raw)
    for _ in range(2):
        assert await (await ask(upstream, engine)).read_all(100) == body
    assert engine.connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(OK + b"content-length: 2\r\n\r\nabjunk", id="junk"),
        pytest.param((OK + b"content-length: 2\r\n\r\nab") * 2, id="a second response"),
        pytest.param(OK + b"connection: close\r\ncontent-length: 2\r\n\r\nab", id="connection: close"),
    ],
)
async def test_answer_stands_but_its_connection_is_not_kept(
    upstream: Upstream, engine: FakeEngine, raw: bytes
) -> None:
    engine.script = Script(fault=Fault.RAW, raw=raw)
    assert await (await ask(upstream, engine)).read_all(100) == b"ab"
    await engine.until(lambda: not engine.open, 1.0)


async def test_bytes_on_an_idle_connection_close_it(upstream: Upstream, engine: FakeEngine) -> None:
    await (await ask(upstream, engine)).read_all(10_000)
    [peer] = engine.open
    peer.transport.write(OK + b"content-length: 5\r\n\r\nfalse")
    await engine.until(lambda: not engine.open, 1.0)
    answer = await (await ask(upstream, engine)).read_all(10_000)
    assert b" word" in answer


async def test_body_over_the_readers_limit(upstream: Upstream, engine: FakeEngine) -> None:
    with pytest.raises(BadResponse):
        await (await ask(upstream, engine)).read_all(10)


async def test_closed_client_sends_nothing(upstream: Upstream, engine: FakeEngine) -> None:
    await upstream.close()
    with pytest.raises(ConnectFailed):
        await ask(upstream, engine)
    assert not engine.seen


def test_request_head_has_framing_of_its_own() -> None:
    headers = [
        (b"Transfer-Encoding", b"chunked"), (b"content-length", b"7"), (b"Connection", b"x-keep"),
        (b"host", b"evil"), (b"X-Keep", b"1"),
    ]  # fmt: skip
    assert request_head(b"POST", b"/p/v1/models", "h:1", headers, 2) == (
        b"POST /p/v1/models HTTP/1.1\r\nhost: h:1\r\nx-keep: 1\r\ncontent-length: 2\r\n\r\n"
    )
    assert b"content-length" not in request_head(b"GET", b"/", "h", [], 0)
    assert b"content-length: 0\r\n" in request_head(b"POST", b"/", "[::1]:80", [], 0)


@pytest.mark.parametrize(
    ("method", "target", "host", "header"),
    [
        (b"GET", b"/ HTTP/1.1", "h", (b"a", b"b")),
        (b"GET", b"/\r\nx: y", "h", (b"a", b"b")),
        (b"GET", b"http://h/", "h", (b"a", b"b")),
        (b"GET", b"/\xc3\xa9", "h", (b"a", b"b")),
        (b"HEAD", b"/", "h", (b"a", b"b")),
        (b"G ET", b"/", "h", (b"a", b"b")),
        (b"GET", b"/", "a/?x=", (b"a", b"b")),
        (b"GET", b"/", "a b", (b"a", b"b")),
        (b"GET", b"/", "a\r\nx:y", (b"a", b"b")),
        (b"GET", b"/", "h", (b"a b", b"c")),
        (b"GET", b"/", "h", (b"a:", b"c")),
        (b"GET", b"/", "h", (b"", b"c")),
        (b"GET", b"/", "h", (b"a\n", b"c")),
    ],
)
def test_request_head_refuses(method: bytes, target: bytes, host: str, header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match=r"holds|not a name"):
        request_head(method, target, host, [header], 0)


@given(st.lists(st.sampled_from([b"a", b" ", b"\r", b"\n", b"\0", b"\r\n", b"x: y"])).map(b"".join))
def test_no_header_value_breaks_out_of_its_line(value: bytes) -> None:
    if set(value) & set(b"\r\n\0"):
        with pytest.raises(ValueError, match="holds"):
            request_head(b"GET", b"/", "h", [(b"a", value)], 0)
    else:
        assert request_head(b"GET", b"/", "h", [(b"a", value)], 0).count(b"\r\n") == 4
