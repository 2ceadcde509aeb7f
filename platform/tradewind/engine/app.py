"""The door of an engine replica: an ASGI guard around vLLM's own application.

vLLM's application has control endpoints, and every engine is reachable through Serve's proxy at its
prefix, around the gateway. So nothing passes without the internal token, and with it only an exact
list of methods and paths. The decision is made on the raw path as it came on the wire; a path that
any later layer could read in another way (escapes, doubled slashes, a trailing slash) is not in the
list and gets 404. Bodies and streams pass through untouched.

Here, too, is the bound on the requests that one replica has at a time, whichever gateways they come from.
What is above it is told so at once instead of waiting where nobody sees it; what only asks how things are (a
GET) is never counted and always answered.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tradewind.api.headers import (
    ENGINE_FULL,
    ENGINE_STATS_PATH,
    ENGINE_TOKEN,
    ENGINE_USAGE_PATH,
    GATEWAY_WANTS,
)
from tradewind.api.problems import Code
from tradewind.engine.in_flight import InFlight
from tradewind.engine.share import Shares
from tradewind.engine.stats import EngineStats
from tradewind.engine.usage import UsageLog

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

ALLOWED = frozenset(
    {
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/rerank"),
        ("POST", "/v1/score"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("GET", ENGINE_STATS_PATH),
    }
)
"""What an engine replica answers below its prefix, and `GET <ENGINE_USAGE_PATH><request id>`."""

_TOKEN = ENGINE_TOKEN.encode()
_FULL = ENGINE_FULL.encode()
_WANTS = GATEWAY_WANTS.encode()
_PROPAGATOR = TraceContextTextMapPropagator()


DISCONNECT_GRACE_S = 1.0


class EngineGuard:
    """ASGI application: token, allow-list, bound, stats and the `engine` span; the rest is `inner`'s.

    `tracer` is None when tracing is off: trace headers then pass unchanged. `bound` may be set at any time.
    """

    def __init__(
        self,
        inner: ASGIApp,
        *,
        token: str,
        model: str,
        stats: Callable[[], EngineStats],
        usage: UsageLog | None = None,
        tracer: Tracer | None = None,
        bound: int = 256,
    ) -> None:
        if not token:
            raise ValueError("an engine needs an internal token")
        self._inner = inner
        self._token = token.encode()
        self._model = model
        self._stats = stats
        self._usage = usage
        self._tracer = tracer
        self._shares = Shares()
        self.bound = bound
        """Requests that `inner` may be at work on at a time."""
        self.in_flight = InFlight()
        """Requests that `inner` is at work on."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers: Headers = list(scope["headers"])
        if not self._authentic(headers):
            await _refuse(send, Code.INVALID_API_KEY, "This is an internal endpoint.")
            return
        path = wire_path(scope)
        if path is not None and path.startswith(ENGINE_USAGE_PATH) and scope["method"] == "GET":
            await self._tell_usage(path.removeprefix(ENGINE_USAGE_PATH), send)
            return
        if path is None or (scope["method"], path) not in ALLOWED:
            await _refuse(send, Code.NOT_FOUND, "No such path.")
            return
        if path == ENGINE_STATS_PATH:
            await _answer(send, 200, self._told(headers))
            return
        inner_scope = dict(scope)
        inner_scope["headers"] = [header for header in headers if header[0] != _TOKEN]
        if scope["method"] == "GET":
            await _to_its_end(self._inner, inner_scope, receive, send)
            return
        if len(self.in_flight) >= self.bound:
            await _refuse(send, Code.NO_CAPACITY, "This replica is full.", (_FULL, b"%d" % self.bound))
            return
        number = self.in_flight.enter()
        try:
            if self._tracer is None:
                await _to_its_end(self._inner, inner_scope, receive, send)
            else:
                await self._traced(self._tracer, path, inner_scope, receive, send)
        finally:
            self.in_flight.leave(number)

    async def _tell_usage(self, request: str, send: Send) -> None:
        """What a request has used, as far as known; waits a moment for one that is being aborted."""
        usage = None if self._usage is None else await self._usage.settled(request)
        if usage is None:
            await _refuse(send, Code.NOT_FOUND, "No such request.")
        else:
            await _answer(send, 200, usage.to_json())

    def _told(self, headers: Headers) -> dict[str, Any]:
        """The engine's stats, and what it has and may have of all gateways and of the one that asks."""
        word = next((value for name, value in headers if name == _WANTS), b"")
        content = self._stats().to_json()
        content["in_flight"] = len(self.in_flight)
        content["bound"] = self.bound
        content["room"] = self._shares.ask(word, self.bound)
        return content

    def _authentic(self, headers: Headers) -> bool:
        sent = [value for name, value in headers if name == _TOKEN]
        return len(sent) == 1 and hmac.compare_digest(sent[0], self._token)

    async def _traced(self, tracer: Tracer, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Run `inner` inside an `engine` span; what vLLM makes becomes that span's child."""
        parent = _PROPAGATOR.extract(_trace_headers(scope["headers"]))
        attributes = {
            "gen_ai.response.model": self._model,
            "tradewind.deployment": self._model,
            "http.request.method": scope["method"],
            "http.route": path,
        }
        span = tracer.start_span("engine", context=parent, kind=SpanKind.SERVER, attributes=attributes)
        scope["headers"] = _with_context(scope["headers"], span)
        watch = _ResponseWatch(send)
        try:
            await _to_its_end(self._inner, scope, receive, watch)
        finally:
            watch.describe(span)
            span.end()


async def _to_its_end(inner: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run `inner` so that a client that goes away ends its work too.

    Serve cancels the request's task then. vLLM's handlers do their work in tasks of their own, which
    that does not reach; they stop when they read the disconnect, and it is there to be read.
    """
    task = asyncio.ensure_future(inner(scope, receive, send))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=DISCONNECT_GRACE_S)
        task.cancel()
        raise


class _ResponseWatch:
    """`send` that notes the status and whether the response came to its end."""

    __slots__ = ("_send", "complete", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.complete = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif not message.get("more_body", False):
            self.complete = True
        await self._send(message)

    def describe(self, span: Span) -> None:
        if self.status:
            span.set_attribute("http.response.status_code", self.status)
        if not self.complete:
            span.set_attribute("error.type", "incomplete")
        if self.status >= 500 or not self.complete:
            span.set_status(Status(StatusCode.ERROR))


def wire_path(scope: Scope) -> str | None:
    """The path below the route prefix exactly as it was sent, or None when it is not plain.

    Servers differ in whether `path` and `raw_path` contain `root_path`; Serve's own port sends
    both with it. Not plain: not ASCII, or `path` (which the inner application routes by) is not
    the same text as `raw_path`.
    """
    path: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    if not path.isascii():
        return None
    root = scope.get("root_path", "").rstrip("/")
    below = _below(path, root)
    if raw is None:
        return below
    return below if _below(raw.decode("latin-1"), root) == below else None


def _below(path: str, root: str) -> str:
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _trace_headers(headers: Headers) -> dict[str, str]:
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in headers
        if name in (b"traceparent", b"tracestate")
    }


def _with_context(headers: Headers, span: Span) -> Headers:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(span))
    kept = [header for header in headers if header[0] not in (b"traceparent", b"tracestate")]
    return kept + [(name.encode(), value.encode()) for name, value in carrier.items()]


async def _refuse(send: Send, code: Code, message: str, *extra: tuple[bytes, bytes]) -> None:
    await _answer(send, code.value.status, code.error_object(message), *extra)


async def _answer(send: Send, status: int, content: dict[str, Any], *extra: tuple[bytes, bytes]) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    """vLLM's own lifespan only logs statistics now and then; starting and stopping is the Engine's."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
