"""A fake of the platform's own endpoint: a small HTTP server on loopback that speaks the OpenAI API.

Which variant answers is decided by the real routing table of the configuration it is given.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tradewind.api.wire import DeploymentEntry, GatewayConfig
from tradewind.routing.table import RouteTable, Subject, UnknownModel

REQUEST_ID = "req_" + "0123456789abcdef" * 2


def deployment(name: str, **changes: Any) -> DeploymentEntry:
    """A ModelDeployment as a gateway sees it."""
    entry = {"name": name, "app": name, "prefix": f"/engines/{name}", "family": "llama"}
    return DeploymentEntry.model_validate(entry | changes)


ONE_MODEL = GatewayConfig(revision="r1", deployments=(deployment("llama"),), anonymous=True)


@dataclass(frozen=True)
class Seen:
    """A request as it arrived; header names are lower case."""

    path: str
    headers: Mapping[str, str]
    body: Any
    tenant: str
    variant: str


@dataclass
class Script:
    """How questions are answered."""

    words: tuple[str, ...] = ("Pa", "ris", ".")
    status: int = 200
    code: str = ""
    """Of the error object of any other status than 200."""
    breaks_after: int | None = None
    """Words after which the connection is closed."""
    error_after: int | None = None
    """Words after which an error event comes."""
    hangs_after: int | None = None
    """Words after which nothing comes until the client leaves or `FakeEndpoint.close`."""
    raw_event: str | None = None
    """Sent as the only event's data."""
    finish_reason: str = "stop"


@dataclass
class FakeEndpoint:
    """Use as a context manager. `keys` are tenant by key; none lets everyone in."""

    config: GatewayConfig = field(default_factory=lambda: ONE_MODEL)
    keys: Mapping[str, str] = field(default_factory=dict)
    script: Script = field(default_factory=Script)
    ready: dict[str, Any] = field(default_factory=dict)
    """Changes to what /readyz says."""
    seen: list[Seen] = field(default_factory=list)

    def __enter__(self) -> Self:
        endpoint = self

        class Handler(_Handler):
            fake = endpoint

        self.hanging = threading.Event()
        """Set when an answer hangs."""
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def resolve(self, body: Any, headers: Mapping[str, str], tenant: str) -> tuple[str, str]:
        """Route and variant for a request."""
        subject = Subject(headers, body.get("user"), None, tenant, REQUEST_ID)
        decision = RouteTable.build(self.config).resolve(body["model"], subject)
        return decision.route.model, decision.variant.name


class _Handler(BaseHTTPRequestHandler):
    fake: FakeEndpoint

    def do_GET(self) -> None:
        if self.path == "/readyz":
            state = {"status": "ready", "revision": self.fake.config.revision, "cold_deployments": 0}
            state |= self.fake.ready
            self._send(503 if "reason" in state else 200, state)
        elif self._tenant() is None:
            self._refuse(401, "invalid_api_key")
        else:
            names = RouteTable.build(self.fake.config).models()
            cards = [{"id": listed.name, "object": "model", "task": self._task(listed)} for listed in names]
            self._send(200, {"object": "list", "data": cards})

    def do_POST(self) -> None:
        fake = self.fake
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        tenant = self._tenant()
        if tenant is None:
            self._refuse(401, "invalid_api_key")
            return
        try:
            route, variant = fake.resolve(body, headers, tenant)
        except UnknownModel:
            self._refuse(404, "model_not_found")
            return
        fake.seen.append(Seen(self.path, headers, body, tenant, variant))
        if fake.script.status != 200:
            self._refuse(fake.script.status, fake.script.code)
            return
        about = {"x-request-id": REQUEST_ID, "x-tradewind-route": route, "x-tradewind-variant": variant}
        if body.get("stream"):
            self._stream(about)
        else:
            self._send(200, self._whole(), about)

    def _whole(self) -> Any:
        if self.path == "/v1/embeddings":
            return {"object": "list", "data": [{"index": 0, "embedding": [0.0, 0.5, 1.0]}]}
        if self.path == "/v1/score":
            return {"object": "list", "data": [{"index": 0, "score": 0.875}]}
        message = {"role": "assistant", "content": "".join(self.fake.script.words)}
        return {"object": "chat.completion", "choices": [{"index": 0, "message": message}]}

    def _stream(self, about: Mapping[str, str]) -> None:
        script = self.fake.script
        self.send_response(200)
        for name, value in {"content-type": "text/event-stream", **about}.items():
            self.send_header(name, value)
        self.send_header("connection", "close")
        self.end_headers()
        try:
            for number, data in enumerate(self._events()):
                if number == script.breaks_after:
                    return
                if number == script.error_after:
                    data = json.dumps({"error": {"message": "the engine died", "code": "upstream_error"}})
                if number == script.hangs_after:
                    self.fake.hanging.set()
                    self._wait_until_gone()
                    return
                self.wfile.write(f"data: {data}\n\n".encode())
                self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            return

    def _events(self) -> Iterator[str]:
        script = self.fake.script
        if script.raw_event is not None:
            yield script.raw_event
            return
        base = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m"}
        for word in script.words:
            yield json.dumps({**base, "choices": [{"index": 0, "delta": {"content": word}}]})
        last = {"index": 0, "delta": {}, "finish_reason": script.finish_reason}
        yield json.dumps({**base, "choices": [last]})
        usage = {"prompt_tokens": 7, "completion_tokens": len(script.words), "total_tokens": 10}
        yield json.dumps({**base, "choices": [], "usage": usage})
        yield "[DONE]"

    def _wait_until_gone(self) -> None:
        self.connection.settimeout(0.02)
        while not self.fake.closing.is_set():
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    def _tenant(self) -> str | None:
        if not self.fake.keys:
            return ""
        return self.fake.keys.get(self.headers.get("authorization", "").removeprefix("Bearer "))

    def _task(self, listed: Any) -> str:
        route = RouteTable.build(self.fake.config).routes[listed.name]
        return route.variants[0].deployment.task.value

    def _refuse(self, status: int, code: str) -> None:
        error = {"message": f"Refused with {status}.", "type": "x", "param": None, "code": code}
        self._send(status, {"error": error})

    def _send(self, status: int, content: Any, about: Mapping[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(about or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
