"""The two kinds of Serve application: an engine per ModelDeployment, and the gateway.

The compiler names the builders here by import path. The replica classes are thin: they create what
the engine and gateway packages offer, and translate Serve's hooks.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve._private.logging_utils import StreamToLogger
from ray.serve.schema import ReplicaRank

from tradewind import home
from tradewind.api.reading import Unreadable, read, read_live
from tradewind.api.wire import EngineLive, EngineSettings
from tradewind.engine.errors import EngineError
from tradewind.engine.runtime import VLLMEngine
from tradewind.gateway.app import Gateway
from tradewind.gateway.front.asgi import GatewayASGI
from tradewind.gateway.intake import Intake
from tradewind.gateway.membership import Membership
from tradewind.gateway.prober import stats_fetch
from tradewind.gateway.problems import ConfigRefused
from tradewind.gateway.rotation import Rotation
from tradewind.gateway.upstream import Upstream
from tradewind.rayapi.app_status import REASON_MARK, START_MARK
from tradewind.secrets import read_secret
from tradewind.serve import loopback
from tradewind.serve.discovery import ReplicaDiscovery
from tradewind.serve.replica_context import first_user_config
from tradewind.telemetry import names
from tradewind.telemetry.lines import LineFormat
from tradewind.telemetry.logs import adopt_logger, keep_open, setup_logging
from tradewind.telemetry.prometheus import ScrapeServer, start_scrape
from tradewind.telemetry.setup import Tracing, gateway_collector, gateway_telemetry, setup_tracing

logger = logging.getLogger(__name__)

WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - recognised here, not bound

SERVE_LOGGER = "ray.serve"
COLLECT_AFTER = (20_000, 10, 10)
"""Allocations beyond deallocations before a collection; Python's own figure, 700, is for small programs."""


class EngineReplica:
    """One replica of a model: vLLM in this process, its API behind the guard."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        loopback.keep_replica(ray.util.get_node_ip_address())
        try:
            self._settings = read(EngineSettings, settings)
        except Unreadable as error:
            text = f"this release of the engine cannot read its settings: {error}"
            raise RuntimeError(f"{START_MARK} {text}") from None
        self._live = EngineLive()
        self._engine: VLLMEngine | None = None
        self._tracing: Tracing | None = None

    async def __serve_build_asgi_app__(self) -> Any:
        """Start the engine; Serve opens the replica's port when this returns."""
        fields = {"model": self._settings.name, "replica": serve.get_replica_context().replica_id.unique_id}
        setup_logging("engine", fields=fields)
        _adopt_serve()
        keep_open(SERVE_LOGGER)
        self._tracing = setup_tracing(names.ENGINE_SERVICE, instance=self._settings.name)
        engine = VLLMEngine(
            token=home.internal_token(), tracer_provider=self._tracing.provider, lines=LineFormat(fields)
        )
        self._live = self._read_live(first_user_config() or {})
        engine.set_bound(self._live.max_ongoing_requests)
        try:
            await engine.start(self._settings, self._live.adapters)
        except EngineError as error:
            # Serve shows the text of this exception as the application's status.
            raise RuntimeError(f"{START_MARK} {error}") from None
        self._engine = engine
        return engine.asgi

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Take over another bound and adapters. Returns at once: Serve routes nothing here until then.

        What becomes of each adapter, the engine's stats tell.
        """
        if self._engine is None:
            return
        try:
            live = self._read_live(user_config)
            self._engine.set_bound(live.max_ongoing_requests)
            self._engine.set_adapters(live.adapters)
            self._live = live
        except EngineError as error:
            logger.error("the adapters of %s stay as they are: %s", self._settings.name, error)
        except Exception as error:
            # Whatever it is: an engine that runs must not be replaced for what it was sent.
            logger.error("the adapters of %s stay as they are", self._settings.name, exc_info=error)

    def _read_live(self, user_config: Mapping[str, Any]) -> EngineLive:
        """What can be read; of adapters that cannot, what it has. Where nothing can be, all that it has."""
        try:
            live, left_out = read_live(user_config, self._live.adapters)
        except Unreadable as error:
            logger.error("the adapters of %s stay as they are: %s", self._settings.name, error)
            return self._live
        for entry in left_out:
            became = "stays as it is" if entry.kept else "is left out"
            logger.error("adapter %s of %s %s: %s", entry.name, self._settings.name, became, entry.why)
        return live

    async def check_health(self) -> None:
        """Raise when the engine is dead or stuck; Serve then replaces this replica."""
        if self._engine is None:
            return
        try:
            await self._engine.check_health()
        except EngineError as error:
            raise RuntimeError(f"{REASON_MARK} {error}") from None

    async def __del__(self) -> None:
        if self._engine is not None:
            await self._engine.stop()
            self._engine = None
        if self._tracing is not None:
            self._tracing.shutdown()


class GatewayReplica:
    """One replica of the gateway."""

    def __init__(self, host: str) -> None:
        """`host` is the address that the platform listens on, its replicas included."""
        instance = serve.get_replica_context().replica_id.unique_id
        setup_logging("gateway", fields={"replica": instance})
        _adopt_serve()
        token = home.internal_token()
        upstream = Upstream()
        self._listen = "127.0.0.1" if host in WILDCARDS else host
        self._own_host = ray.util.get_node_ip_address()
        loopback.keep_replica(self._own_host)
        self._telemetry = gateway_telemetry(instance)
        self._gateway = Gateway(
            telemetry=self._telemetry,
            upstream=upstream,
            engine_token=token,
            read_secret=read_secret,
            hash_key=home.hash_key(),
        )
        self._rotation = Rotation(self._gateway, self._telemetry.metrics, stats_fetch(upstream, token))
        members = Membership(self._rotation.updating, self._reachable)
        self._intake = Intake(self._gateway, self._telemetry.metrics, members.configured)
        self._discovery = ReplicaDiscovery(members.found)
        self._telemetry.metrics.watch(names.DISCOVERY_AGE, self._discovery.age)
        self._collector = gateway_collector(self._telemetry, instance)
        self._scrape: ScrapeServer | None = None

    async def __serve_build_asgi_app__(self) -> GatewayASGI:
        _quicken()
        loop = asyncio.get_running_loop()
        self._telemetry.metrics.watch(names.TASKS, lambda: len(asyncio.all_tasks(loop)))
        self._discovery.start()
        return GatewayASGI(self._gateway)

    async def reconfigure(self, user_config: Mapping[str, Any], rank: ReplicaRank) -> None:
        """Take over a new configuration whole. One that is refused leaves the old one in force.

        Raises:
            RuntimeError: the first configuration is refused: this replica cannot serve.
        """
        try:
            await self._intake.offer(user_config)
        except ConfigRefused as error:
            raise RuntimeError(f"{START_MARK} {error}") from None
        config = self._gateway.config
        if self._scrape is None and config is not None:
            self._start_scrape(config.metrics_host, config.metrics_port + rank.local_rank)

    def _start_scrape(self, host: str, port: int) -> None:
        """Metrics are worth a warning, not an outage."""
        try:
            self._scrape = start_scrape(port, [self._collector], host)
        except OSError as error:
            logger.warning("no metrics endpoint: port %d: %s", port, error.strerror)

    def _reachable(self, host: str) -> str:
        """Replicas listen on the platform's address, but are announced by their node's."""
        return self._listen if host == self._own_host else host

    async def __del__(self) -> None:
        self._discovery.stop()
        await self._rotation.stop()
        await self._gateway.shutdown()
        if self._scrape is not None:
            self._scrape.stop()
        self._telemetry.shutdown()


def _adopt_serve() -> None:
    """Write what Serve says in this process as our own lines: an exception without its message, which may
    quote a request. Of its access log, which it builds even where it is switched off, nothing.

    Only where Serve writes to the console, as in pods. Elsewhere it writes files and feeds what is printed to
    this very logger, which would so never be done with a line.
    """
    if isinstance(sys.stdout, StreamToLogger):
        return
    adopt_logger(SERVE_LOGGER)
    logging.getLogger(SERVE_LOGGER).addFilter(lambda record: not getattr(record, "serve_access_log", False))


def _quicken() -> None:
    """Spend nothing per request on what nobody reads. Concerns this process, which is one gateway replica."""
    # Serve builds the record of its access log for every request, also where the log is switched off.
    logging.getLogger(SERVE_LOGGER).setLevel(logging.WARNING)
    # A request's objects die by reference count; the collector would look at those in flight again and again.
    gc.set_threshold(*COLLECT_AFTER)
    # Nor at what is there from the start, Ray and its libraries, which holds the loop for longest.
    gc.collect()
    gc.freeze()


_engine = serve.deployment(name="engine")(serve.ingress()(EngineReplica))
_gateway = serve.deployment(name="gateway")(serve.ingress()(GatewayReplica))


def engine(args: dict[str, Any]) -> Application:
    """Builder of an engine application. `args` is `{"settings": EngineSettings}`."""
    return _engine.bind(args["settings"])


def gateway(args: dict[str, Any]) -> Application:
    """Builder of the gateway application. `args` is `{"host": ...}`; the rest comes by `user_config`."""
    return _gateway.bind(args["host"])
