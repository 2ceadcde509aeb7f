"""A fake of Ray's Serve REST API on loopback: it keeps the configuration that it is given.

Applications are RUNNING as soon as they are put, unless `states` says otherwise.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PATH = "/api/serve/applications/"


@dataclass(frozen=True)
class State:
    """How an application is."""

    status: str = "RUNNING"
    message: str = ""
    wanted: int = 1
    running: int = 1


@dataclass
class FakeServeApi:
    """Use as a context manager."""

    token: str = "ray-token"
    config: dict[str, Any] | None = None
    states: dict[str, State] = field(default_factory=dict)
    """By application."""
    extra: dict[str, State] = field(default_factory=dict)
    """Applications that are in no configuration, such as one that is being removed."""
    refusal: str = ""
    """Answer PUT with 400 and this text."""
    puts: list[dict[str, Any]] = field(default_factory=list)
    on_put: Callable[[dict[str, Any]], None] = lambda config: None
    """Told of every configuration that was taken."""

    def __enter__(self) -> Self:
        api = self

        class Handler(_Handler):
            fake = api

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def document(self) -> dict[str, Any]:
        """What GET answers: ServeInstanceDetails, as far as anyone here reads it."""
        applications = {
            app["name"]: _details(self.states.get(app["name"], State()), app)
            for app in (self.config or {"applications": []})["applications"]
        }
        return {"applications": applications | {name: _details(state) for name, state in self.extra.items()}}


def _details(state: State, app: dict[str, Any] | None = None) -> dict[str, Any]:
    deployment = {
        "status": "HEALTHY",
        "message": state.message,
        "target_num_replicas": state.wanted,
        "replicas": [{"state": "RUNNING"}] * state.running,
    }
    return {
        "status": state.status,
        "message": state.message,
        "deployments": {"main": deployment},
        "deployed_app_config": app,
    }


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServeApi

    def do_GET(self) -> None:
        if self._allowed():
            self._send(200, json.dumps(self.fake.document()))

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._allowed():
            return
        if self.fake.refusal:
            self._send(400, self.fake.refusal)
            return
        self.fake.config = body
        self.fake.puts.append(body)
        self.fake.on_put(body)
        self._send(200, "{}")

    def _allowed(self) -> bool:
        if self.path == PATH and self.headers.get("authorization") == f"Bearer {self.fake.token}":
            return True
        self._send(401, "no token")
        return False

    def _send(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
