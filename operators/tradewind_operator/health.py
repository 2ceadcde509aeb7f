"""What the kubelet and Prometheus ask: /healthz, /readyz and /metrics.

healthz says whether a restart would help; readyz whether this replica does its part, which for one that
waits to lead is to wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Faults = Callable[[], Sequence[str]]
"""What is wrong now, a sentence each; empty while all is well."""


@dataclass(frozen=True, slots=True)
class Probes:
    """Where the answers come from."""

    dead: Faults
    """A restart would help."""
    unready: Faults
    """Not doing its part (yet)."""
    registry: CollectorRegistry | None = None
    """None: no /metrics."""


class HealthServer:
    """Listens from `start` to `stop`."""

    def __init__(self, probes: Probes, host: str, port: int) -> None:
        self._probes = probes
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """Where it listens; the given port until it does."""
        if self._runner is None or not self._runner.addresses:
            return self._port
        return int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Raises OSError when the address cannot be had."""
        app = web.Application()
        app.router.add_get("/healthz", self._answer(self._probes.dead))
        app.router.add_get("/readyz", self._answer(lambda: [*self._probes.dead(), *self._probes.unready()]))
        if self._probes.registry is not None:
            app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        self._runner = runner
        await web.TCPSite(runner, self._host, self._port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _answer(self, faults: Faults) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(_request: web.Request) -> web.StreamResponse:
            found = faults()
            text = "\n".join(found) or "ok"
            return web.Response(text=text + "\n", status=503 if found else 200)

        return answer

    async def _metrics(self, _request: web.Request) -> web.Response:
        assert self._probes.registry is not None
        body = generate_latest(self._probes.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
