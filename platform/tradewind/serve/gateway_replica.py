"""A gateway under Serve's care: Serve starts, watches and stops it, and it listens for callers itself.

No request comes by Serve. From the word to stop to the end there are two steps: for some seconds the
gateway says that it is not ready and takes requests all the same, because whoever sends them hears of it
late; then it listens no more, and what it has begun goes on to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import ray
from ray import serve
from ray.serve.schema import ReplicaRank

from tradewind import home
from tradewind.compiler.compile import STOP_MARGIN_S
from tradewind.compiler.ray_environment import LEAVING_FILE, MAX_STREAM_S
from tradewind.gateway.problems import ConfigRefused
from tradewind.gateway.process import GatewayProcess
from tradewind.rayapi.app_status import START_MARK
from tradewind.secrets import read_secret
from tradewind.serve import loopback
from tradewind.serve.discovery import ReplicaDiscovery
from tradewind.serve.endpoint import endpoint_socket
from tradewind.serve.replica_context import grace_s
from tradewind.serve.serve_log import SERVE_LOGGER, adopt_serve
from tradewind.telemetry import names
from tradewind.telemetry.logs import setup_logging

_log = logging.getLogger(__name__)

COLLECT_AFTER: Final = (20_000, 10, 10)
"""Allocations beyond deallocations before a collection; Python's own figure, 700, is for small programs."""
_LOOK_S: Final = 0.5
_AGAIN_S: Final = 2.0


class GatewayReplica:
    """One replica of the gateway."""

    def __init__(self, host: str, port: int, reachable_s: float) -> None:
        """Runs in the event loop that everything belongs to.

        Args:
            host: where callers come to, with `port`.
            reachable_s: how long one that is told to stop takes new requests all the same.
        """
        instance = serve.get_replica_context().replica_id.unique_id
        setup_logging("gateway", fields={"replica": instance})
        adopt_serve()
        self._host, self._port, self._reachable_s = host, port, reachable_s
        self._own_host = ray.util.get_node_ip_address()
        loopback.keep_replica(self._own_host)
        self._process = GatewayProcess(
            instance=instance,
            engine_token=home.internal_token(),
            read_secret=read_secret,
            hash_key=home.hash_key(),
            reachable=self._reachable,
        )
        self._discovery = ReplicaDiscovery(self._process.found)
        loop = asyncio.get_running_loop()
        self._process.metrics.watch(names.DISCOVERY_AGE, self._discovery.age)
        self._process.metrics.watch(names.TASKS, lambda: len(asyncio.all_tasks(loop)))
        self._discovery.start()
        self._listens = False
        self._rank = 0
        self._metrics_at: tuple[str, int] | None = None
        self._leaving: asyncio.Task[None] | None = None
        if (file := os.environ.get(LEAVING_FILE)) is not None:
            self._leave_with_pod(Path(file))

    async def reconfigure(self, user_config: Mapping[str, Any], rank: ReplicaRank) -> None:
        """Take over a new configuration whole. One that is refused leaves the old one in force.

        Raises:
            RuntimeError: the first configuration is refused, or another program has the endpoint's port: this
                replica cannot serve.
        """
        try:
            await self._process.offer(user_config)
        except ConfigRefused as error:
            raise RuntimeError(f"{START_MARK} {error}") from None
        if not self._listens:
            self._listens = True
            await self._listen()
        self._rank = rank.local_rank
        self._offer_metrics()

    async def _listen(self) -> None:
        try:
            sock = endpoint_socket(self._host, self._port)
        except OSError as error:
            why = f"cannot listen on {self._host} port {self._port}: {error.strerror}"
            raise RuntimeError(f"{START_MARK} {why}") from error
        _quicken()
        await self._process.listen(sock)

    def _offer_metrics(self) -> None:
        """At the port of this replica's rank on its node, which a replica that leaves may still have.

        Metrics are worth a warning, not an outage.
        """
        config = self._process.gateway.config
        if config is None or self._leaving is not None:
            return
        wanted = config.metrics_host, config.metrics_port + self._rank
        if wanted == self._metrics_at:
            return
        try:
            self._process.start_scrape(*wanted)
        except OSError as error:
            _log.warning("no metrics endpoint yet: port %d: %s", wanted[1], error.strerror)
            self._metrics_at = None
            asyncio.get_running_loop().call_later(_AGAIN_S, self._offer_metrics)
        else:
            self._metrics_at = wanted

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Requests under way, which Serve does not see."""
        return {"requests": float(self._process.gateway.active)}

    def _reachable(self, host: str) -> str:
        """Engines of this node are announced by its address, and on one machine listen on loopback alone."""
        return loopback.ADDRESS if host == self._own_host else host

    def _leave_with_pod(self, file: Path) -> None:
        """As soon as the file is there: so a pod that ends says so, head or no head."""
        if file.exists():
            self._leave(MAX_STREAM_S)
        elif self._leaving is None:
            asyncio.get_running_loop().call_later(_LOOK_S, self._leave_with_pod, file)

    def _leave(self, timeout_s: float) -> asyncio.Task[None]:
        """Begin to, or go on."""
        if self._leaving is None:
            _log.info("the gateway leaves: no new connections in %g s", self._reachable_s)
            leaving = self._process.leave(self._reachable_s, timeout_s)
            self._leaving = asyncio.create_task(leaving, name="leaving")
        return self._leaving

    async def __del__(self) -> None:
        left_s = max(0.0, grace_s() - STOP_MARGIN_S)
        leaving = self._leave(max(0.0, left_s - self._reachable_s))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(leaving), left_s)
        self._discovery.stop()
        await self._process.close()


def _quicken() -> None:
    """Spend nothing per request on what nobody reads. Concerns this process, which is one gateway replica."""
    logging.getLogger(SERVE_LOGGER).setLevel(logging.WARNING)
    # A request's objects die by reference count; the collector would look at those in flight again and again.
    gc.set_threshold(*COLLECT_AFTER)
    # Nor at what is there from the start, Ray and its libraries, which holds the loop for longest.
    gc.collect()
    gc.freeze()
