"""Drives the gateway's ASGI application directly: a request in, the messages it sent out."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from tests.fakes.engine import FakeEngine, Script
from tradewind.api.wire import (
    DeploymentEntry,
    GatewayConfig,
    RequestLimits,
    RouteEntry,
    SecretRef,
    TenantEntry,
    VariantEntry,
)
from tradewind.gateway.app import Gateway
from tradewind.gateway.front.asgi import GatewayASGI
from tradewind.gateway.upstream import Upstream
from tradewind.routing.replica import AdapterReport, ReplicaAddress
from tradewind.telemetry.metrics import GatewayMetrics
from tradewind.telemetry.record import RequestRecord
from tradewind.telemetry.requests import RequestTelemetry
from tradewind.telemetry.sampling import HeadSampler

KEY = "tw-test-key-0123456789abcdef"
OTHER_KEY = "tw-other-key-0123456789abcdef"
TOKEN = "e" * 64
HOST = (b"host", b"gateway")
SECRETS = {"ACME_KEY": KEY, "OTHER_KEY": OTHER_KEY}
CHAT = "/v1/chat/completions"

Header = tuple[bytes, bytes]


class Records:
    """A span sink that keeps the records of finished requests."""

    dropped = 0

    def __init__(self) -> None:
        self.items: list[RequestRecord] = []

    def put(self, item: RequestRecord | ReadableSpan) -> None:
        assert isinstance(item, RequestRecord)
        self.items.append(item)

    def flush(self, timeout_s: float = 5.0) -> bool:
        return True

    def shutdown(self, timeout_s: float = 5.0) -> None:
        pass

    @property
    def last(self) -> RequestRecord:
        return self.items[-1]

    async def next(self, before: int = 0) -> RequestRecord:
        """The record after the first `before`, once it is written: of a cut answer that is a moment later."""
        async with asyncio.timeout(5):
            while len(self.items) <= before:  # noqa: ASYNC110 - a sink, which tells nobody
                await asyncio.sleep(0.001)
        return self.items[before]


@dataclass
class Reply:
    """What the application sent."""

    status: int = 0
    headers: list[Header] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])

    def header(self, name: str) -> str | None:
        values = [v.decode("latin-1") for k, v in self.headers if k == name.encode()]
        assert len(values) <= 1, f"{name} sent twice"
        return values[0] if values else None

    @property
    def events(self) -> list[str]:
        """Data of the server-sent events."""
        lines = self.body.decode().split("\n")
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


@dataclass
class Client:
    """Calls an application; `headers` go with every request that brings none of the same name."""

    app: Gateway
    headers: Sequence[Header] = ((b"host", b"gateway:8000"), (b"authorization", b"Bearer " + KEY.encode()))

    async def send(
        self,
        method: str,
        path: str | bytes,
        body: bytes | Sequence[bytes] | None = None,
        headers: Sequence[Header] = (),
        *,
        hang: bool = False,
        gone: asyncio.Event | None = None,
        on_send: Callable[[Reply], Any] | None = None,
        http_version: str = "1.1",
    ) -> Reply:
        """One request. `hang`: the body never ends. `gone`: set, the client disconnects.

        `on_send(reply)` is called after each message; the application waits for what it returns, if anything.
        """
        raw = path.encode() if isinstance(path, str) else path
        names = {name for name, _ in headers}
        sent = [*(pair for pair in self.headers if pair[0] not in names), *headers]
        parts = [body] if isinstance(body, bytes) else list(body or [])
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        if not hang:
            messages = messages or [{"type": "http.request", "body": b""}]
            messages[-1]["more_body"] = False
        left = gone or asyncio.Event()
        pending = iter(messages)
        reply = Reply()

        async def receive() -> dict[str, Any]:
            message = next(pending, None)
            if message is not None:
                return message
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                reply.status, reply.headers = message["status"], list(message["headers"])
            else:
                if message.get("body"):
                    reply.chunks.append(message["body"])
                reply.complete = not message.get("more_body", False)
            if on_send is not None:
                waited = on_send(reply)
                if waited is not None:
                    await waited

        scope = {
            "type": "http", "http_version": http_version, "method": method, "scheme": "http",
            "path": raw.split(b"?")[0].decode("latin-1"), "raw_path": raw, "query_string": b"",
            "headers": sent, "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
        }  # fmt: skip
        await GatewayASGI(self.app)(scope, receive, send)
        return reply

    async def post(self, path: str, body: Any, headers: Sequence[Header] = (), **options: Any) -> Reply:
        """POSTs `body`, as JSON unless it is bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        fixed = ((b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()))
        names = {name for name, _ in headers}
        sent = [*(pair for pair in fixed if pair[0] not in names), *headers]
        return await self.send("POST", path, content, sent, **options)

    async def get(self, path: str, headers: Sequence[Header] = ()) -> Reply:
        return await self.send("GET", path, None, headers)

    async def chat(
        self,
        headers: Sequence[Header] = (),
        *,
        gone: asyncio.Event | None = None,
        on_send: Callable[[Reply], Any] | None = None,
        **fields: Any,
    ) -> Reply:
        """A small chat request to the model `chat`."""
        body = {"model": "chat", "messages": [user("hello")], **fields}
        return await self.post(CHAT, body, headers, gone=gone, on_send=on_send)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def deployment(name: str = "llama", **changes: Any) -> DeploymentEntry:
    fields = {"app": name, "prefix": f"/engines/{name}", "family": "llama", "context_length": 2048, **changes}
    return DeploymentEntry(name=name, **fields)


def route(model: str = "chat", *variants: VariantEntry, **changes: Any) -> RouteEntry:
    return RouteEntry(
        model=model, variants=variants or (VariantEntry(name="control", deployment="llama"),), **changes
    )


def bearer(key: str) -> Header:
    return (b"authorization", b"Bearer " + key.encode())


def tenant(name: str = "acme", env: str = "ACME_KEY", **changes: Any) -> TenantEntry:
    return TenantEntry(name=name, keys=(SecretRef(env=env),), **changes)


def config(
    *,
    deployments: Sequence[DeploymentEntry] = (),
    routes: Sequence[RouteEntry] = (),
    tenants: Sequence[TenantEntry] | None = None,
    limits: RequestLimits | None = None,
    **changes: Any,
) -> GatewayConfig:
    """One deployment `llama`, one route `chat` to it, one tenant `acme`, unless said otherwise."""
    return GatewayConfig(
        revision="r",
        deployments=tuple(deployments) or (deployment(),),
        routes=tuple(routes) or (route(),),
        tenants=(tenant(),) if tenants is None else tuple(tenants),
        limits=limits or RequestLimits(),
        **changes,
    )


def read_secret(reference: SecretRef) -> str:
    return SECRETS[reference.env or ""]


@dataclass
class Stage:
    """A gateway with fake engines behind it."""

    gateway: Gateway
    client: Client
    records: Records
    metrics: GatewayMetrics
    engines: dict[str, list[FakeEngine]]

    @property
    def app(self) -> GatewayASGI:
        """What an ASGI server calls."""
        return GatewayASGI(self.gateway)

    @property
    def engine(self) -> FakeEngine:
        return self.engines["llama"][0]

    def seen(self) -> int:
        """Requests that reached any engine."""
        return sum(len(engine.seen) for replicas in self.engines.values() for engine in replicas)

    def discover(self) -> None:
        """Tells the directory of every engine."""
        table = {entry.name: entry for entry in self.config.deployments}
        for name, replicas in self.engines.items():
            addresses = [ReplicaAddress("127.0.0.1", engine.port) for engine in replicas]
            self.gateway.directory.update(table[name], addresses)

    def report(self, deployment: str, *replicas: Mapping[str, AdapterReport]) -> None:
        """Each replica in its turn tells how it has its adapters, as the prober would hear it."""
        views = self.gateway.directory.views(deployment)
        for view, adapters in zip(views, replicas, strict=True):
            self.gateway.directory.report(view, running=0, waiting=0, adapters=adapters)

    config: GatewayConfig = field(default_factory=config)


def make_gateway() -> tuple[Gateway, Records, GatewayMetrics, Upstream]:
    records = Records()
    metrics = GatewayMetrics()
    telemetry = RequestTelemetry(records, metrics, HeadSampler(ALWAYS_ON))
    upstream = Upstream(sweep_interval_s=0.02)
    gateway = Gateway(telemetry=telemetry, upstream=upstream, engine_token=TOKEN, read_secret=read_secret)
    return gateway, records, metrics, upstream


@contextlib.asynccontextmanager
async def stage(
    settings: GatewayConfig | None = None,
    *,
    replicas: Mapping[str, int] | None = None,
    script: Script | None = None,
) -> AsyncIterator[Stage]:
    """A configured gateway; `replicas` says how many engines each deployment has (one unless said)."""
    settings = settings or config()
    gateway, records, metrics, _ = make_gateway()
    gateway.configure(settings)
    engines: dict[str, list[FakeEngine]] = {}
    async with contextlib.AsyncExitStack() as stack:
        for entry in settings.deployments:
            count = 1 if replicas is None else replicas.get(entry.name, 1)
            engines[entry.name] = [
                await stack.enter_async_context(
                    FakeEngine(script or Script(tokens=3), token=TOKEN, prefix=entry.prefix)
                )
                for _ in range(count)
            ]
        stack.push_async_callback(gateway.shutdown, 0)
        scene = Stage(gateway, Client(gateway), records, metrics, engines, settings)
        scene.discover()
        yield scene
