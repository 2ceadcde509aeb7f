"""A whole gateway over real sockets: how it begins, serves, leaves and ends."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from tests.fakes.engine import FakeEngine, Fault, Script
from tests.unit.gateway.asgi import CHAT, KEY, TOKEN, config, read_secret, route, user
from tests.unit.gateway.front.talking import until
from tradewind.gateway.front.limits import FrontLimits
from tradewind.gateway.problems import ConfigRefused
from tradewind.gateway.process import GatewayProcess

LONG = Script(tokens=100_000, interval_s=0.005)
HEAD = f"host: x\r\nauthorization: Bearer {KEY}\r\n".encode()


class At(NamedTuple):
    host: str
    port: int
    replica: str


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\n".encode() + HEAD + b"\r\n"


def chat(*, stream: bool = False) -> bytes:
    body = json.dumps({"model": "chat", "stream": stream, "messages": [user("x")]}).encode()
    kind = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    return f"POST {CHAT} HTTP/1.1\r\n".encode() + HEAD + kind + body


@dataclass
class Caller:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: bytes) -> tuple[bytes, Any]:
        """The answer's head and JSON."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        return head, json.loads(await self.reader.readexactly(length))


@dataclass
class Scene:
    process: GatewayProcess
    engine: FakeEngine
    port: int

    @asynccontextmanager
    async def caller(self) -> AsyncIterator[Caller]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Caller(reader, writer)
        finally:
            writer.close()


@asynccontextmanager
async def running(script: Script, front: FrontLimits | None = None, **changes: Any) -> AsyncIterator[Scene]:
    async with FakeEngine(script, token=TOKEN, prefix="/engines/llama") as engine:
        process = GatewayProcess(
            instance="gateway-1",
            engine_token=TOKEN,
            read_secret=read_secret,
            hash_key=None,
            reachable=lambda host: host.replace("10.0.0.1", "127.0.0.1"),
            front=front,
        )
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port: int = sock.getsockname()[1]
            await process.listen(sock)
            try:
                await process.offer(config(**changes).model_dump(mode="json"))
                process.found({"llama": [At("10.0.0.1", engine.port, "r1")], "other": []})
                await until(lambda: process.gateway.directory.any_ready("llama"))
                yield Scene(process, engine, port)
            finally:
                await process.close()


@pytest.fixture(autouse=True)
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")


async def test_it_serves_what_it_was_told_to() -> None:
    async with running(Script(tokens=3)) as s, s.caller() as caller:
        head, answer = await caller.ask(chat())
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer["choices"][0]["message"]["content"] == " word word word"
        _, ready = await caller.ask(get("/readyz"))
        assert ready["status"] == "ready"
        s.process.start_scrape("127.0.0.1", 0)
        s.process.start_scrape("127.0.0.1", 0)
        scrape = s.process._scrape
        assert scrape is not None
        url = f"http://127.0.0.1:{scrape.port}/metrics"
        shown = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read())
        assert b'service_instance_id="gateway-1"' in shown
        assert b'tradewind_route="chat"' in shown or b'route="chat"' in shown


async def test_the_first_configuration_is_refused_aloud_and_a_later_one_is_not() -> None:
    async with running(Script()) as s, s.caller() as caller:
        await s.process.offer({"revision": "bad", "deployments": "none"})
        assert (await caller.ask(chat()))[0].startswith(b"HTTP/1.1 200")
    process = GatewayProcess(
        instance="", engine_token=TOKEN, read_secret=read_secret, hash_key=None, reachable=str
    )
    with pytest.raises(ConfigRefused):
        await process.offer({"revision": "bad", "deployments": "none"})
    await process.close()


async def test_who_leaves_says_so_and_takes_requests_all_the_same_for_a_while() -> None:
    async with running(Script(tokens=3)) as s, s.caller() as known:
        assert b"connection: close" not in (await known.ask(get("/readyz")))[0]
        leaving = asyncio.create_task(s.process.leave(0.4, 5))
        await asyncio.sleep(0)
        async with s.caller() as probe:
            head, answer = await probe.ask(get("/readyz"))
            assert head.startswith(b"HTTP/1.1 503")
            assert answer["reason"] == "shutting_down"
        async with s.caller() as late:
            head, answer = await late.ask(chat())
            assert head.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in head
            assert await late.reader.read() == b""
        head, _ = await known.ask(chat())
        assert head.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in head
        await leaving
        with pytest.raises(OSError):
            async with s.caller():
                pass


async def test_a_stream_that_ends_in_time_ends_as_ever() -> None:
    async with running(Script(tokens=60, interval_s=0.005)) as s, s.caller() as caller:
        caller.writer.write(chat(stream=True))
        await caller.reader.readuntil(b"data: ")
        await s.process.leave(0.05, 30)
        rest = await caller.reader.read()
        assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_what_is_cut_in_the_end_is_told_so() -> None:
    async with (
        running(LONG) as s,
        s.caller() as stream,
        s.caller() as whole,
        s.caller() as slow,
    ):
        stream.writer.write(chat(stream=True))
        await stream.reader.readuntil(b"data: ")
        s.engine.next.append(Script(fault=Fault.NO_HEAD))
        answer = asyncio.create_task(whole.ask(chat()))
        await s.engine.until(lambda: len(s.engine.seen) >= 2)
        slow.writer.write(chat(stream=True)[:-20])
        await s.process.leave(0, 0.2)
        rest = await stream.reader.read()
        event = json.loads(rest.rpartition(b"data: ")[2].partition(b"\n\n")[0])
        assert event["error"]["code"] == "shutting_down"
        assert rest.endswith(b"\r\n0\r\n\r\n")
        assert b"[DONE]" not in rest
        head, refused = await answer
        assert head.startswith(b"HTTP/1.1 503")
        assert refused["error"]["code"] == "shutting_down"
        await s.engine.until(lambda: s.engine.gone == 2)


async def test_who_waits_for_a_replica_is_told_too() -> None:
    async with running(LONG, routes=[route(first_token_timeout_s=30)]) as s, s.caller() as caller:
        s.process.found({"llama": []})
        answer = asyncio.create_task(caller.ask(chat()))
        await until(lambda: s.process.gateway.admission.load("llama").waiting)
        await s.process.leave(0, 0.1)
        head, refused = await answer
        assert head.startswith(b"HTTP/1.1 503")
        assert refused["error"]["code"] == "shutting_down"


async def test_a_request_on_a_connection_of_the_last_moment_is_served() -> None:
    async with running(Script(tokens=3)) as s, s.caller() as caller:
        await until(lambda: s.process._listener.open == 1)
        leaving = asyncio.create_task(s.process.leave(0, 5))
        await asyncio.sleep(0.1)
        head, _ = await caller.ask(chat())
        assert head.startswith(b"HTTP/1.1 200")
        await leaving


async def test_an_end_at_once_does_not_wait_for_who_leaves() -> None:
    async with running(LONG) as s, s.caller() as caller:
        caller.writer.write(chat(stream=True))
        await caller.reader.readuntil(b"data: ")
        leaving = asyncio.create_task(s.process.leave(0, 3_600))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            await s.process.close()
            await leaving
        assert b"shutting_down" in await caller.reader.read()
