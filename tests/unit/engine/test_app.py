"""The door of an engine replica: who gets in, where to, and what is told about it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tradewind.engine.app import ALLOWED, EngineGuard, Message, Receive, Scope, Send
from tradewind.engine.stats import EngineStats
from tradewind.engine.usage import UsageLog

TOKEN = "5" * 64
PREFIX = "/engines/llama"
TONE = {"tone": {"state": "ready", "message": ""}}
STATS = EngineStats("llama", "llama", "generate", 2048, 1, 2, 0.5, 77, True, TONE, "0.32.0")


class Inner:
    """vLLM's application as a fake: notes what reached it and answers in two chunks."""

    def __init__(self, status: int = 200) -> None:
        self.scopes: list[Scope] = []
        self.body = b""
        self._status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.body = (await receive())["body"]
        await send({"type": "http.response.start", "status": self._status, "headers": []})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})


class Broken(Inner):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("gone")


@pytest.fixture
def spans() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


def guard(inner: Inner, provider: TracerProvider | None = None) -> EngineGuard:
    tracer = provider.get_tracer("test") if provider else None
    return EngineGuard(inner, token=TOKEN, model="llama", stats=lambda: STATS, tracer=tracer)


def scope(method: str = "POST", path: str = "/v1/chat/completions", **changes: Any) -> Scope:
    headers = [(b"x-tradewind-token", TOKEN.encode()), (b"content-type", b"application/json")]
    made: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
    }
    return {**made, **changes}


async def call(app: EngineGuard, request: Scope, body: bytes = b"{}") -> tuple[int, bytes]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(request, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="no token"),
        pytest.param([(b"x-tradewind-token", b"")], id="empty token"),
        pytest.param([(b"x-tradewind-token", b"5" * 63)], id="a prefix of the token"),
        pytest.param([(b"x-tradewind-token", b"4" * 64)], id="wrong token"),
        pytest.param([(b"x-tradewind-token", b"\xff" * 64)], id="bytes that are no text"),
        pytest.param([(b"authorization", b"Bearer " + TOKEN.encode())], id="token in another header"),
        pytest.param(
            [(b"x-tradewind-token", TOKEN.encode()), (b"x-tradewind-token", b"4" * 64)], id="two tokens"
        ),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/metrics", "/tradewind/stats", "/nothing"])
async def test_without_the_token_every_path_is_401_and_nothing_else(
    headers: list[tuple[bytes, bytes]], path: str
) -> None:
    inner = Inner()
    status, body = await call(guard(inner), scope("GET", path, headers=headers))
    assert status == 401
    assert json.loads(body)["error"]["code"] == "invalid_api_key"
    assert TOKEN.encode() not in body
    assert inner.scopes == []


@pytest.mark.parametrize(("method", "path"), sorted(ALLOWED - {("GET", "/tradewind/stats")}))
@pytest.mark.parametrize(
    ("root", "in_path"), [("", False), (PREFIX, True), (PREFIX, False), (PREFIX + "/", True)]
)
async def test_allowed_paths_pass_with_and_without_the_prefix_in_the_path(
    method: str, path: str, root: str, in_path: bool
) -> None:
    inner = Inner()
    full = (PREFIX if in_path else "") + path
    status, body = await call(guard(inner), scope(method, full, root_path=root), b'{"model":"llama"}')
    assert (status, body) == (200, b"one two")
    assert inner.body == b'{"model":"llama"}'
    assert inner.scopes[0]["path"] == full


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/sleep"),
        ("POST", "/wake_up"),
        ("POST", "/collective_rpc"),
        ("POST", "/update_weights"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("POST", "/tokenize/"),
        ("GET", "/tokenize"),
        ("GET", "/tokenizer_info"),
        ("POST", "/invocations"),
        ("POST", "/scale_elastic_ep"),
        ("POST", "/reset_prefix_cache"),
        ("GET", "/health"),
        ("GET", "/ping"),
        ("GET", "/version"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/"),
        ("GET", ""),
        ("GET", "/v1/chat/completions"),
        ("DELETE", "/v1/models"),
        ("POST", "/v1/models"),
        ("POST", "/tradewind/usage/req_11111111111111111111111111111111"),
        ("GET", "/tradewind/usage/req_11111111111111111111111111111111"),
        ("HEAD", "/metrics"),
        ("OPTIONS", "/v1/chat/completions"),
        ("post", "/v1/chat/completions"),
        ("POST", "//v1/chat/completions"),
        ("POST", "/v1//chat/completions"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "/v1/chat/../chat/completions"),
        ("POST", "/v1/./chat/completions"),
        ("POST", "/V1/chat/completions"),
        ("POST", "/v1/chat/completions;x"),
        ("POST", "v1/chat/completions"),
        ("POST", "http://x/v1/chat/completions"),
        ("GET", "/metrics/x"),
        ("POST", "/v1/chat/completions\u0131"),
    ],
)
async def test_everything_else_is_404(method: str, path: str) -> None:
    inner = Inner()
    status, body = await call(guard(inner), scope(method, path, raw_path=path.encode()))
    assert status == 404
    assert json.loads(body)["error"]["code"] == "not_found"
    assert inner.scopes == []


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        pytest.param("/v1/chat/completions", b"/v1/chat%2Fcompletions", id="escaped slash"),
        pytest.param("/v1/chat/completions", b"/v1/cha%74/completions", id="escaped letter"),
        pytest.param("/v1/models", b"/tokenize/%2e%2e/v1/models", id="escaped dots"),
        pytest.param("/tokenize", b"/v1/chat/completions", id="path differs from raw path"),
        pytest.param("/v1/chat/completions", b"/tokenize", id="raw path differs from path"),
        pytest.param(
            PREFIX + "/v1/chat/completions", b"/engines%2Fllama/v1/chat/completions", id="in prefix"
        ),
    ],
)
async def test_a_path_that_could_be_read_in_two_ways_is_404(path: str, raw: bytes) -> None:
    inner = Inner()
    request = scope("POST", path, raw_path=raw, root_path=PREFIX if path.startswith(PREFIX) else "")
    assert (await call(guard(inner), request))[0] == 404
    assert inner.scopes == []


async def test_another_engines_prefix_is_404() -> None:
    request = scope("POST", "/engines/other/v1/chat/completions", root_path=PREFIX)
    assert (await call(guard(Inner()), request))[0] == 404


async def test_a_server_that_sends_no_raw_path_is_served_by_path() -> None:
    request = scope()
    del request["raw_path"]
    assert (await call(guard(Inner()), request))[0] == 200


async def test_stats_are_answered_here() -> None:
    inner = Inner()
    request = scope("GET", PREFIX + "/tradewind/stats", root_path=PREFIX)
    status, body = await call(guard(inner), request)
    assert status == 200
    assert json.loads(body) == {
        "model": "llama",
        "family": "llama",
        "task": "generate",
        "context_length": 2048,
        "running": 1,
        "waiting": 2,
        "kv_cache_use": 0.5,
        "tokens_generated": 77,
        "healthy": True,
        "adapters": TONE,
        "version": "0.32.0",
        "in_flight": 0,
        "bound": 256,
        "room": None,
    }
    assert inner.scopes == []


async def test_the_usage_of_a_request_is_answered_here() -> None:
    inner, log = Inner(), UsageLog()
    request = "req_" + "1" * 32
    await log.counting(inner)({"headers": [(b"x-request-id", request.encode())]}, _receive, _send)
    guarded = EngineGuard(Inner(), token=TOKEN, model="llama", stats=lambda: STATS, usage=log)
    for root in ("", PREFIX):
        asked = scope("GET", f"{root}/tradewind/usage/{request}", root_path=root)
        status, body = await call(guarded, asked)
        assert (status, json.loads(body)) == (
            200, {"input_tokens": None, "output_tokens": None, "running": False},
        )  # fmt: skip
        for name in ("", "req_" + "2" * 32, request + "/", "../stats"):
            asked = scope("GET", f"{root}/tradewind/usage/{name}", root_path=root)
            status, body = await call(guarded, asked)
            assert (status, json.loads(body)["error"]["code"]) == (404, "not_found")
    asked = scope("GET", f"/tradewind/usage/{request}", headers=[])
    assert (await call(guarded, asked))[0] == 401


async def _receive() -> Message:
    return {"type": "http.request", "body": b""}


async def _send(message: Message) -> None:
    pass


class Held(Inner):
    """Answers when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["method"] == "POST":
            await self.free.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


async def told(app: EngineGuard, wants: bytes = b"") -> tuple[int, int, int | None]:
    headers = [(b"x-tradewind-token", TOKEN.encode()), (b"x-tradewind-wants", wants)]
    _, body = await call(app, scope("GET", "/tradewind/stats", headers=headers))
    stats = json.loads(body)
    return stats["in_flight"], stats["bound"], stats["room"]


async def test_above_its_bound_it_says_at_once_that_it_is_full_and_is_asked_how_it_is_all_the_same() -> None:
    inner = Held()
    app = guard(inner)
    app.bound = 2
    held = [asyncio.create_task(call(app, scope())) for _ in range(2)]
    await asyncio.sleep(0)
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("a request that is turned away is not read")

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope(), receive, send)
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"])[b"x-tradewind-full"] == b"2"
    assert json.loads(sent[1]["body"])["error"]["code"] == "no_capacity"
    assert await told(app, b"one 9") == (2, 2, 2)
    assert await told(app, b"two 9") == (2, 2, 1)
    assert (await call(app, scope("GET", "/metrics")))[0] == 200
    assert (await call(app, scope("GET", "/v1/models")))[0] == 200
    assert len(inner.scopes) == 4
    app.bound = 3
    more = asyncio.create_task(call(app, scope()))
    await asyncio.sleep(0)
    assert (await call(app, scope()))[0] == 503
    inner.free.set()
    assert [await task for task in (*held, more)] == [(200, b"{}")] * 3
    assert await told(app) == (0, 3, None)


@pytest.mark.parametrize("headers", [[], [(b"x-tradewind-token", b"4" * 64)]])
async def test_a_full_engine_tells_nobody_without_the_token(headers: list[tuple[bytes, bytes]]) -> None:
    app = guard(Held())
    app.bound = 0
    assert (await call(app, scope(headers=headers)))[0] == 401


async def test_the_token_stays_outside() -> None:
    inner = Inner()
    await call(guard(inner), scope())
    assert inner.scopes[0]["headers"] == [(b"content-type", b"application/json")]


async def test_the_engine_span_hangs_between_the_callers_and_vllms(
    spans: tuple[TracerProvider, InMemorySpanExporter],
) -> None:
    provider, exporter = spans
    inner = Inner()
    trace_id, parent = "a" * 32, "b" * 16
    headers = [
        (b"x-tradewind-token", TOKEN.encode()),
        (b"traceparent", f"00-{trace_id}-{parent}-01".encode()),
        (b"tracestate", b"vendor=1"),
    ]
    await call(guard(inner, provider), scope(headers=headers), b'{"messages":"canary"}')
    (span,) = exporter.get_finished_spans()
    assert span.name == "engine"
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == parent
    assert dict(span.attributes or {}) == {
        "gen_ai.response.model": "llama",
        "tradewind.deployment": "llama",
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
    }
    passed = dict(inner.scopes[0]["headers"])
    assert passed[b"traceparent"] == f"00-{trace_id}-{span.context.span_id:016x}-01".encode()
    assert passed[b"tracestate"] == b"vendor=1"
    assert "canary" not in span.to_json()


async def test_an_unsampled_trace_makes_no_span_and_stays_unsampled(
    spans: tuple[TracerProvider, InMemorySpanExporter],
) -> None:
    provider, exporter = spans
    inner = Inner()
    headers = [
        (b"x-tradewind-token", TOKEN.encode()),
        (b"traceparent", f"00-{'a' * 32}-{'b' * 16}-00".encode()),
    ]
    await call(guard(inner, provider), scope(headers=headers))
    assert exporter.get_finished_spans() == ()
    assert dict(inner.scopes[0]["headers"])[b"traceparent"].endswith(b"-00")


@pytest.mark.parametrize(("status", "code"), [(400, StatusCode.UNSET), (500, StatusCode.ERROR)])
async def test_the_span_tells_the_status(
    spans: tuple[TracerProvider, InMemorySpanExporter], status: int, code: StatusCode
) -> None:
    provider, exporter = spans
    await call(guard(Inner(status), provider), scope())
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {})["http.response.status_code"] == status
    assert span.status.status_code is code


async def test_a_response_that_breaks_off_is_an_error_in_its_span(
    spans: tuple[TracerProvider, InMemorySpanExporter],
) -> None:
    provider, exporter = spans
    with pytest.raises(RuntimeError, match="gone"):
        await call(guard(Broken(), provider), scope())
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes or {})["error.type"] == "incomplete"
    assert span.status.status_code is StatusCode.ERROR


async def test_lifespan_is_answered_and_never_reaches_vllm() -> None:
    inner = Inner()
    incoming = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[Message] = []

    async def receive() -> Message:
        return next(incoming)

    async def send(message: Message) -> None:
        sent.append(message)

    await guard(inner)({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert inner.scopes == []


async def test_websockets_are_closed() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("not read")

    await guard(Inner())({"type": "websocket", "headers": [], "path": "/v1/realtime"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_guard_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="token"):
        EngineGuard(Inner(), token="", model="m", stats=lambda: STATS)
