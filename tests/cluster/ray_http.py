"""Serve's REST API and the gateways of all Ray clusters of a stand-in, over loopback HTTP.

GET /{namespace}/{cluster}/head/api/serve/applications/   with Ray's token; PUT gives a configuration
GET /{namespace}/{cluster}/gateway/readyz                 tells more to who shows the internal token
"""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kubernetes import client as k8s

from tests.cluster.ray import RayCluster

HEAD = ["head", "api", "serve", "applications", ""]
GATEWAY = ["gateway", "readyz"]

Serving = Callable[[str, str], RayCluster | None]
"""Namespace and name of a RayCluster → the Ray cluster behind it."""
Secrets = Callable[[str, str], Mapping[str, str]]
"""The same → the content of the Secret that it names."""


class HeadsAndGateways:
    """Listens from `start` to `stop`."""

    def __init__(self, serving: Serving, secret: Secrets) -> None:
        listening = self
        self.serving, self.secret = serving, secret

        class Handler(_Handler):
            shown = listening

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="ray-http")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    shown: HeadsAndGateways

    def do_GET(self) -> None:
        _, namespace, cluster, *rest = self.path.split("/")
        ray = self.shown.serving(namespace, cluster)
        if ray is None:
            self._send(502, {})
        elif rest == HEAD:
            if self._may(namespace, cluster):
                self._send(200, ray.document(time.monotonic()))
        elif rest == GATEWAY:
            known = self._shows(namespace, cluster, "internal-token")
            self._send(*ray.readiness(time.monotonic(), details=known))
        else:
            self._send(404, {})

    def do_PUT(self) -> None:
        _, namespace, cluster, *rest = self.path.split("/")
        content = self.rfile.read(int(self.headers["content-length"]))
        ray = self.shown.serving(namespace, cluster)
        if ray is None or rest != HEAD:
            self._send(502 if ray is None else 404, {})
        elif self._may(namespace, cluster):
            ray.put(json.loads(content), time.monotonic())
            self._send(200, {})

    def _may(self, namespace: str, cluster: str) -> bool:
        """Who asks has Ray's token; others are told."""
        known = self._shows(namespace, cluster, "auth_token")
        if not known:
            self._send(401, {"error": "Unauthorized: missing or invalid authentication token"})
        return known

    def _shows(self, namespace: str, cluster: str, key: str) -> bool:
        try:
            expected = self.shown.secret(namespace, cluster)[key]
        except k8s.ApiException:
            return False
        return hmac.compare_digest(self.headers.get("authorization", ""), f"Bearer {expected}")

    def _send(self, status: int, body: Mapping[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        # Who asked may be killed in the middle of it.
        with suppress(ConnectionError):
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing: a test's output is its own."""
