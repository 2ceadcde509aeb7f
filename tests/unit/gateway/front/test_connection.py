"""Requests over a real connection: what is answered, what is refused, and who may go on afterwards."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.gateway.front.talking import HOST, Echo, hear, listening, talk, until
from tradewind.api.wire import RequestLimits
from tradewind.gateway.front.limits import FrontLimits

GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


def post(body: bytes, *headers: bytes, path: bytes = b"/p") -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", HOST.strip(), *headers, b"content-length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def test_requests_follow_each_other_on_one_connection() -> None:
    async with listening(echo := Echo()) as (_, port):
        answer, closed = await talk(port, GET, post(b"abc"))
    assert answer.count(OK) == 2
    assert answer.endswith(b"POST /p abc")
    assert not closed
    assert echo.seen == [(b"GET", b"/a", b""), (b"POST", b"/p", b"abc")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
async def test_it_does_not_matter_how_the_bytes_are_cut(size: int) -> None:
    chunked = b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n4;x=y\r\ncdef\r\n0\r\nx: trailer\r\n\r\n"
    sent = GET + post(b"abc") + b"POST /c HTTP/1.1\r\n" + HOST + chunked + GET
    async with listening(echo := Echo()) as (_, port):
        parts = [sent[start : start + size] for start in range(0, len(sent), size)]
        _, closed = await talk(port, *parts, pause_s=0)
    assert [(path, body) for _, path, body in echo.seen] == [
        (b"/a", b""),
        (b"/p", b"abc"),
        (b"/c", b"abcdef"),
        (b"/a", b""),
    ]
    assert not closed


async def test_requests_that_are_sent_ahead_are_answered_in_order() -> None:
    async with listening(Echo()) as (_, port):
        answer, _ = await talk(port, b"".join(post(b"%d" % number) for number in range(10)))
    places = [answer.find(b"POST /p %d" % number) for number in range(10)]
    assert places == sorted(places)
    assert min(places) > 0


async def test_too_many_requests_ahead_end_the_connection() -> None:
    async with listening(Echo(), FrontLimits(pipelined=4)) as (_, port):
        answer, closed = await talk(port, GET * 50)
    assert answer.count(OK) == 4
    assert b"400 Bad Request" in answer
    assert closed


async def test_a_stream_comes_in_chunks_and_ends_by_closing_in_http_1_0() -> None:
    async with listening(Echo()) as (_, port):
        answer, closed = await talk(port, b"GET /stream HTTP/1.1\r\n" + HOST + b"\r\n")
        assert answer.endswith(b"\r\n\r\n4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n")
        assert not closed
        answer, closed = await talk(port, b"GET /stream HTTP/1.0\r\n\r\n")
        assert answer.endswith(b"\r\n\r\none two three")
        assert closed


async def test_a_head_is_answered_without_a_body() -> None:
    async with listening(Echo()) as (_, port):
        answer, closed = await talk(port, b"HEAD /a HTTP/1.1\r\n" + HOST + b"\r\n", GET)
        assert answer.count(OK) == 2
        assert answer.startswith(OK + b"content-type: text/plain\r\ncontent-length: 8\r\n\r\nHTTP/1.1")
        answer, closed = await talk(port, b"HEAD /stream HTTP/1.1\r\n" + HOST + b"\r\n", GET)
        assert answer.count(OK) == 2
        assert b"one" not in answer
    assert not closed


async def test_whoever_asks_whether_to_go_on_is_told_when_the_body_is_wanted() -> None:
    async with listening(Echo()) as (_, port):
        head = b"POST /p HTTP/1.1\r\n" + HOST + b"expect: 100-continue\r\ncontent-length: 3\r\n\r\n"
        answer, _ = await talk(port, head, b"abc", pause_s=0.05)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"abc")


async def test_an_offer_of_http_2_changes_nothing() -> None:
    offer = (
        b"connection: Upgrade, HTTP2-Settings",
        b"upgrade: h2c",
        b"http2-settings: AAMAAABkAARAAAAAAAIAAAAA",
    )
    async with listening(echo := Echo()) as (_, port):
        sent = post(b"abc", *offer) + GET
        answer, closed = await talk(port, sent[:150], sent[150:])
        assert answer.count(OK) == 2
        get = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n".join(offer) + b"\r\n\r\n"
        answer, closed = await talk(port, get + GET)
    assert answer.count(OK) == 2
    assert not closed
    assert [body for _, _, body in echo.seen] == [b"abc", b"", b"", b""]


@pytest.mark.parametrize(
    "sent",
    [
        b"CONNECT gateway:80 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"blah\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /a HTTP/1.1\r\n" + HOST + b"x : y\r\n\r\n",
        b"GET /a HTTP/1.1\r\n" + HOST + b" folded\r\n\r\n",
        b"GET /a HTTP/1.1\r\n" + HOST + b"x: a\x00b\r\n\r\n",
        b"POST /p HTTP/1.1\r\n" + HOST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /p HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n-1\r\n\r\n",
        b"POST /p HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\nhost: gateway\n\n",
    ],
)
async def test_what_is_no_sound_request_is_told_so_and_the_connection_closes(sent: bytes) -> None:
    async with listening(echo := Echo()) as (_, port):
        answer, closed = await talk(port, sent, GET)
    assert closed
    assert answer.startswith(b"HTTP/1.1 400 Bad Request")
    assert answer.count(b"x-request-id") == 1
    assert b'"code":"invalid_request"' in answer
    assert b"/a" not in [path for _, path, _ in echo.seen]


async def test_a_fault_behind_a_request_is_told_after_its_answer() -> None:
    async with listening(Echo()) as (_, port):
        answer, closed = await talk(port, GET + b"blah\r\n\r\n")
    assert answer.index(b"200 OK") < answer.index(b"400 Bad Request")
    assert closed


async def test_a_body_that_is_too_large_ends_the_connection_and_is_not_held() -> None:
    echo = Echo(RequestLimits(body_bytes=1_000))
    async with listening(echo) as (listener, port):
        for sent in (
            b"POST /p HTTP/1.1\r\n" + HOST + b"content-length: 1001\r\n\r\n",
            b"POST /p HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n" + b"200\r\n" + b"a" * 512,
        ):
            more = (b"\r\n200\r\n" + b"a" * 512) * 3
            answer, closed = await talk(port, sent, more)
            assert b"413" in answer, sent
            assert closed
            assert listener.held == 0
    assert echo.seen == []


async def test_a_body_that_nobody_asks_for_is_not_taken() -> None:
    """Whoever is refused by the head alone, for a wrong key, say."""
    async with listening(Echo(reads=False)) as (listener, port):
        sent = b"POST /p HTTP/1.1\r\n" + HOST + b"content-length: 9000000\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent + b"a" * 2_000_000)
        answer, closed = await hear(reader)
        writer.close()
        assert answer.startswith(OK)
        assert b"connection: close" in answer
        assert closed
        assert listener.held == 0


async def test_the_room_for_bodies_has_an_end() -> None:
    hold = asyncio.Event()
    async with listening(Echo(hold=hold), FrontLimits(bodies=1_500)) as (listener, port):
        first = asyncio.create_task(talk(port, post(b"a" * 1_000)))
        await until(lambda: listener.held == 1_000)
        answer, closed = await talk(port, post(b"b" * 1_000))
        assert b"503" in answer
        assert closed
        hold.set()
        assert (await first)[0].startswith(OK)


async def test_whoever_leaves_ends_the_work_for_it() -> None:
    async with listening(echo := Echo(hold=asyncio.Event())) as (listener, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"abc"))
        await until(lambda: listener.held == 3)
        writer.close()
        await until(lambda: echo.cancelled)
        assert listener.open == 0


async def test_a_handler_that_ends_without_an_end_of_its_answer_closes_the_connection() -> None:
    class Broken(Echo):
        async def handle(self, context: object) -> None:
            assert hasattr(context, "begin")
            context.begin(200, [])
            context.write(b"half")

    async with listening(Broken()) as (_, port):
        answer, closed = await talk(port, GET)
    assert answer.endswith(b"4\r\nhalf\r\n") or answer == b""
    assert closed
