"""Gateways that find, ask and choose engines by themselves, as in a cluster, without Ray."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from tests.unit.gateway.asgi import TOKEN, Client, Records, make_gateway
from tradewind.api.steps import at_once
from tradewind.api.wire import GatewayConfig
from tradewind.gateway.app import Gateway
from tradewind.gateway.prober import Pace, stats_fetch
from tradewind.gateway.rotation import Rotation
from tradewind.gateway.upstream import Upstream
from tradewind.routing.replica import ReplicaAddress, ReplicaView

QUICK = Pace(interval_s=0.05, deadline_s=0.1, silence_s=0.2, held_s=0.05)
"""A tenth of the real times."""


@dataclass
class Way:
    """One gateway with its own client of the engines and its own prober."""

    gateway: Gateway
    client: Client
    records: Records
    upstream: Upstream

    @property
    def views(self) -> tuple[ReplicaView, ...]:
        return self.gateway.directory.views("llama")


@contextlib.asynccontextmanager
async def way(settings: GatewayConfig, *ports: int, pace: Pace = QUICK) -> AsyncIterator[Way]:
    """A gateway in front of engines on these ports of loopback, all of the first deployment."""
    gateway, records, metrics, upstream = make_gateway()
    gateway.configure(settings)
    rotation = Rotation(gateway, metrics, stats_fetch(upstream, TOKEN), pace=pace)
    at = [ReplicaAddress("127.0.0.1", port) for port in ports]
    at_once(rotation.updating({settings.deployments[0]: at}))
    try:
        yield Way(gateway, Client(gateway), records, upstream)
    finally:
        await rotation.stop()
        await upstream.close()


async def until(condition: Callable[[], bool], within_s: float) -> float:
    """Looks every millisecond; the seconds that it took. Raises TimeoutError."""
    clock = asyncio.get_running_loop().time
    began = clock()
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.001)
    return clock() - began
