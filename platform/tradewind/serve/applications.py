"""The two kinds of Serve application: an engine per ModelDeployment, and the gateway.

The compiler names the builders here by import path. The replica classes are thin: they create what
the engine and gateway packages offer, and translate Serve's hooks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from tradewind import home
from tradewind.api.reading import Unreadable, read, read_live
from tradewind.api.wire import EngineLive, EngineSettings
from tradewind.engine.errors import EngineError
from tradewind.engine.runtime import VLLMEngine
from tradewind.rayapi.app_status import REASON_MARK, START_MARK
from tradewind.serve import doors, loopback
from tradewind.serve.gateway_replica import GatewayReplica
from tradewind.serve.replica_context import first_user_config
from tradewind.serve.serve_log import SERVE_LOGGER, adopt_serve
from tradewind.telemetry import names
from tradewind.telemetry.lines import LineFormat
from tradewind.telemetry.logs import keep_open, setup_logging
from tradewind.telemetry.setup import Tracing, setup_tracing

logger = logging.getLogger(__name__)


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
        adopt_serve()
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


_engine = serve.deployment(name=doors.ENGINE)(serve.ingress()(EngineReplica))
_gateway = serve.deployment(name="gateway")(GatewayReplica)


def engine(args: dict[str, Any]) -> Application:
    """Builder of an engine application. `args` is `{"settings": EngineSettings}`."""
    return _engine.bind(args["settings"])


def gateway(args: dict[str, Any]) -> Application:
    """Builder of the gateway application. `args` are GatewayReplica's; the rest comes by `user_config`."""
    return _gateway.bind(**args)
