"""An engine that does no work, as a Serve application: what is left to measure is everything around it.

It speaks the engine contract (token, stats, chat completions) in raw ASGI. A streamed answer has
`max_tokens` tokens, one every `interval_s`, in vLLM's form; one that is not streamed comes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from ray import serve
from ray.serve import Application

from tests.bench.load import CHAT_PATH
from tests.fakes import engine_answers
from tests.fakes.engine import stats
from tradewind import home
from tradewind.api.headers import ENGINE_STATS_PATH, ENGINE_TOKEN

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class _Options(msgspec.Struct):
    include_usage: bool = False


class _Request(msgspec.Struct):
    model: str
    max_tokens: int = 1
    stream: bool = False
    stream_options: _Options | None = None


_decode = msgspec.json.Decoder(_Request).decode


class NoWork:
    """The ASGI application."""

    def __init__(self, token: str, interval_s: float) -> None:
        self._token = token.encode()
        self._interval_s = interval_s
        self._running = 0

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        path = scope["path"][len(scope.get("root_path", "")) :]
        if dict(scope["headers"]).get(ENGINE_TOKEN.encode()) != self._token:
            await _answer(send, 401, engine_answers.error(401, "no token"))
        elif path == ENGINE_STATS_PATH:
            await _answer(send, 200, engine_answers.dumps(stats(running=self._running)))
        elif path == CHAT_PATH:
            await self._chat(_decode(await _body(receive)), send)
        else:
            await _answer(send, 404, engine_answers.error(404, "no such path"))

    async def _chat(self, request: _Request, send: Send) -> None:
        if not request.stream:
            whole = engine_answers.whole(CHAT_PATH, {"model": request.model}, request.max_tokens)
            await _answer(send, 200, whole)
            return
        self._running += 1
        try:
            await self._stream(request, send)
        finally:
            self._running -= 1

    async def _stream(self, request: _Request, send: Send) -> None:
        usage = request.stream_options is not None and request.stream_options.include_usage
        events = engine_answers.stream(CHAT_PATH, request.model, request.max_tokens, usage)
        loop = asyncio.get_running_loop()
        due = loop.time()
        await _begin(send, 200, b"text/event-stream; charset=utf-8")
        await send(_part(events.first))
        for _ in range(request.max_tokens):
            due += self._interval_s
            await asyncio.sleep(due - loop.time())
            await send(_part(events.token))
        for event in events.last:
            await send(_part(event))
        await send(_part(b"", more=False))


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _begin(send: Send, status: int, kind: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", kind), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _answer(send: Send, status: int, body: bytes) -> None:
    await _begin(send, status, b"application/json", (b"content-length", str(len(body)).encode()))
    await send(_part(body, more=False))


class NoWorkReplica:
    """A Serve replica around it."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s

    async def __serve_build_asgi_app__(self) -> NoWork:
        return NoWork(home.internal_token(), self._interval_s)

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Every engine is told its bound, which nothing here comes near."""


_engine = serve.deployment(name="engine")(serve.ingress()(NoWorkReplica))


def engine(args: dict[str, Any]) -> Application:
    """Builder for a Serve config: `args` is `{"interval_s": seconds between tokens}`."""
    return _engine.bind(float(args["interval_s"]))
