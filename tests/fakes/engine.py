"""A fake engine that does no work: raw asyncio HTTP/1.1 speaking the engine contract, and failing on cue.

In a test::

    async with FakeEngine(Script(tokens=3)) as engine:
        engine.next.append(Script(fault=Fault.RESET_MID_STREAM))     # the next request only
        ...
        await engine.until(lambda: engine.gone == 1)

By itself: `python -m tests.fakes.engine --port 30000 --tokens 64 --interval-ms 20` (it prints the port).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self, cast

import httptools

from tests.fakes import engine_answers

POSTS = frozenset(
    f"/v1/{name}"
    for name in (
        "chat/completions", "completions", "responses", "messages", "messages/count_tokens", "embeddings",
        "rerank", "score",
    )
) | {"/tokenize", "/detokenize"}  # fmt: skip
STREAMING = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"))
REASONS = {200: b"OK", 401: b"Unauthorized", 404: b"Not Found", 503: b"Service Unavailable"}
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: fake\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class Fault(StrEnum):
    """What goes wrong. A refused connection is `FakeEngine.refuse()`."""

    NONE = "none"
    RESET_BEFORE_HEAD = "reset-before-head"
    RESET_MID_STREAM = "reset-mid-stream"
    CLOSE_MID_STREAM = "close-mid-stream"
    STALL = "stall"
    """The head and some tokens, then nothing, the connection open."""
    UNAVAILABLE = "503"
    GARBAGE = "garbage"
    NO_HEAD = "no-head"
    """Takes the request and never answers."""
    HUGE_HEAD = "huge-head"
    RAW = "raw"
    """Sends `Script.raw` and leaves the connection open."""


@dataclass(frozen=True)
class Script:
    """How one request is answered. Mid-stream faults come after `fault_after` tokens."""

    tokens: int = 16
    interval_s: float = 0.0
    head_delay_s: float = 0.0
    fault: Fault = Fault.NONE
    fault_after: int = 2
    raw: bytes = b""
    pad_bytes: int = 0
    """Added to each token's event as an SSE comment."""


@dataclass(frozen=True)
class Seen:
    """A request as it arrived; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def stats(**changes: object) -> dict[str, object]:
    """A body for GET /tradewind/stats."""
    return {
        "model": "fake", "family": "llama", "task": "generate", "context_length": 2048, "running": 0,
        "waiting": 0, "kv_cache_use": 0.0, "tokens_generated": 0, "healthy": True, "adapters": {},
        "version": "0.32.0", **changes,
    }  # fmt: skip


@dataclass
class FakeEngine:
    """One engine replica on loopback. `script` answers every request that `next` holds none for."""

    script: Script = field(default_factory=Script)
    token: str = ""
    """Expected in x-tradewind-token; empty lets everyone in."""
    prefix: str = ""
    port: int = 0
    stats: dict[str, object] = field(default_factory=stats)
    usage: list[dict[str, object]] = field(default_factory=list)
    """Bodies for GET /tradewind/usage/<id>, one after the other; the last one stays. Without any: 404."""
    deaf: bool = False
    """Says nothing at all to who asks for usage."""
    asked: list[str] = field(default_factory=list)
    """Ids whose usage was asked for."""
    next: deque[Script] = field(default_factory=deque)
    seen: deque[Seen] = field(default_factory=lambda: deque(maxlen=1000))
    connections: int = 0
    """Accepted so far."""
    open: set[_Peer] = field(default_factory=set)
    running: int = 0
    """Streams under way."""
    gone: int = 0
    """Requests whose client left before the end."""
    pauses: int = 0
    """Times that the client's slowness stopped a stream's writes."""
    written: int = 0
    """Bytes of token events handed to the sockets."""
    _server: asyncio.Server | None = None
    _waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        for peer in tuple(self.open):
            peer.abort()
        await self.until(lambda: not self.open)

    async def listen(self) -> None:
        """Accepts connections, on the same port as before if there was one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Peer(self), "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Stops listening: new connections are refused, open ones go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
        """Waits for `condition`, looked at on every change of this engine. Raises TimeoutError."""
        if not condition():
            future = asyncio.get_running_loop().create_future()
            self._waiters.append((condition, future))
            async with asyncio.timeout(timeout_s):
                await future

    def changed(self) -> None:
        for waiter in tuple(self._waiters):
            if waiter[0]():
                self._waiters.remove(waiter)
                if not waiter[1].done():
                    waiter[1].set_result(None)


class _Peer(asyncio.Protocol):
    """One client connection."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.parser: Any = httptools.HttpRequestParser(self)
        self.loop = asyncio.get_running_loop()
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.busy = self.streaming = self.paused = False
        self.timer: asyncio.Handle | None = None
        self.pieces: deque[bytes] = deque()
        self.token_event = b""
        self.left = 0
        self.script = Script()

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.engine.connections += 1
        self.engine.open.add(self)
        self.engine.changed()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.engine.gone += self.busy
        self.engine.running -= self.streaming
        self.engine.open.discard(self)
        self.parser = None
        self.engine.changed()

    def pause_writing(self) -> None:
        self.paused = True
        self.engine.pauses += 1
        self.engine.changed()

    def resume_writing(self) -> None:
        self.paused = False
        if self.streaming and self.timer is None:
            self._tick()

    # httptools

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        target, headers, body = self.target.decode("latin-1"), self.headers, b"".join(self.body)
        self.target, self.headers, self.body = b"", [], []
        lower = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        seen = Seen(self.parser.get_method().decode(), target, lower, body)
        usage_of = seen.target.removeprefix(self.engine.prefix + "/tradewind/usage/")
        if usage_of != seen.target:
            self._tell_usage(seen, usage_of)
            return
        self.engine.seen.append(seen)
        self.busy = True
        self._route(seen)

    # answers

    def _tell_usage(self, seen: Seen, request: str) -> None:
        engine = self.engine
        if engine.token and seen.headers.get("x-tradewind-token") != engine.token:
            self._send(401, engine_answers.error(401, "no token"))
            return
        engine.asked.append(request)
        if engine.deaf:
            return
        if not engine.usage:
            self._send(404, engine_answers.error(404, "no such request"))
        else:
            body = engine.usage.pop(0) if len(engine.usage) > 1 else engine.usage[0]
            self._send(200, engine_answers.dumps(body))
        engine.changed()

    def _route(self, seen: Seen) -> None:
        engine = self.engine
        path = seen.target.removeprefix(engine.prefix)
        if engine.token and seen.headers.get("x-tradewind-token") != engine.token:
            self._send(401, engine_answers.error(401, "no token"))
            return
        self.script = engine.next.popleft() if engine.next else engine.script
        if self.script.head_delay_s:
            self.timer = self.loop.call_later(self.script.head_delay_s, self._answer, seen, path)
        else:
            self._answer(seen, path)
        engine.changed()

    def _answer(self, seen: Seen, path: str) -> None:
        self.timer = None
        engine, script = self.engine, self.script
        if self._fail_first():
            return
        if seen.method == "GET" and path == "/tradewind/stats":
            self._send(200, engine_answers.dumps({**engine.stats, "running": engine.running}))
        elif seen.method == "GET" and path == "/v1/models":
            model = {"id": engine.stats["model"], "object": "model", "created": 0, "owned_by": "vllm"}
            self._send(200, engine_answers.dumps({"object": "list", "data": [model]}))
        elif seen.method == "GET" and path == "/health":
            self._send(200, b"")
        elif seen.method == "GET" and path == "/metrics":
            self._send(200, b"vllm:num_requests_running 0\n", b"text/plain")
        elif seen.method == "POST" and path in POSTS:
            request = seen.json
            if request.get("stream") and path in STREAMING:
                self._stream(path, request)
            else:
                self._send(200, engine_answers.whole(path, request, script.tokens))
        else:
            self._send(404, engine_answers.error(404, "no such path"))

    def _fail_first(self) -> bool:
        match self.script.fault:
            case Fault.RESET_BEFORE_HEAD:
                self.busy = False
                self.abort()
            case Fault.UNAVAILABLE:
                self._send(503, engine_answers.error(503, "busy"))
            case Fault.GARBAGE:
                self.transport.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            case Fault.HUGE_HEAD:
                self.transport.write(b"HTTP/1.1 200 OK\r\nx-huge: " + b"x" * 1_000_000 + b"\r\n\r\n")
            case Fault.RAW:
                self.transport.write(self.script.raw)
                self.busy = False
            case Fault.NO_HEAD:
                pass
            case _:
                return False
        return True

    def _send(self, status: int, body: bytes, content_type: bytes = b"application/json") -> None:
        self.busy = False
        self.transport.write(
            b"HTTP/1.1 %d %b\r\nserver: fake\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (status, REASONS[status], content_type, len(body), body)
        )

    def _stream(self, path: str, request: dict[str, Any]) -> None:
        script = self.script
        usage = bool((request.get("stream_options") or {}).get("include_usage"))
        events = engine_answers.stream(path, str(request.get("model", "")), script.tokens, usage)
        pad = b":%b\n" % (b" " * script.pad_bytes) if script.pad_bytes else b""
        self.token_event = chunked(pad + events.token)
        self.pieces = deque(chunked(piece) for piece in events.last)
        self.left = script.tokens
        self.streaming = True
        self.engine.running += 1
        self.transport.write(STREAM_HEAD + chunked(events.first))
        self._tick()

    def _tick(self) -> None:
        """Writes the next token, or with no interval as many as the client takes."""
        self.timer = None
        engine, script = self.engine, self.script
        while not self.paused and not self.transport.is_closing():
            if script.fault is not Fault.NONE and script.tokens - self.left >= script.fault_after:
                self._fail_mid_stream()
                return
            if not self.left:
                self.transport.write(b"".join(self.pieces) + b"0\r\n\r\n")
                self.busy = self.streaming = False
                engine.running -= 1
                engine.changed()
                return
            self.left -= 1
            engine.written += len(self.token_event)
            self.transport.write(self.token_event)
            if script.interval_s:
                self.timer = self.loop.call_later(script.interval_s, self._tick)
                return

    def _fail_mid_stream(self) -> None:
        if self.script.fault is Fault.RESET_MID_STREAM:
            self.abort()
        elif self.script.fault is Fault.CLOSE_MID_STREAM:
            self.transport.close()

    def abort(self) -> None:
        """Resets the connection."""
        with contextlib.suppress(OSError, AttributeError):
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self.transport.abort()


async def _main(engine: FakeEngine) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with engine:
        print(engine.port, flush=True)
        await stop.wait()


def main() -> None:
    """Serves until SIGINT or SIGTERM; the first line printed is the port."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--interval-ms", type=float, default=0.0)
    parser.add_argument("--head-delay-ms", type=float, default=0.0)
    parser.add_argument("--fault", type=Fault, choices=list(Fault), default=Fault.NONE)
    parser.add_argument("--token", default="", help="expected in x-tradewind-token")
    parser.add_argument("--prefix", default="", help="route prefix, like /engines/fake")
    args = parser.parse_args()
    script = Script(args.tokens, args.interval_ms / 1000, args.head_delay_ms / 1000, args.fault)
    asyncio.run(_main(FakeEngine(script, args.token, args.prefix, args.port)))


if __name__ == "__main__":
    main()
