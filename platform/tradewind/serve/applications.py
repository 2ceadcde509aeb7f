"""The two kinds of Serve application: an engine per ModelDeployment, and the gateway.

The compiler names the builders here by import path. The replica classes are thin: they create what
the engine and gateway packages offer, and translate Serve's hooks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import serve
from ray.serve import Application

from tradewind import home
from tradewind.api.wire import EngineSettings, GatewayConfig
from tradewind.engine.errors import EngineError
from tradewind.engine.runtime import VLLMEngine
from tradewind.gateway.app import Gateway
from tradewind.gateway.prober import LoadProber
from tradewind.gateway.upstream import Upstream
from tradewind.routing.replica import ReplicaAddress
from tradewind.secrets import read_secret
from tradewind.serve.control import REASON_MARK
from tradewind.serve.discovery import Address, ReplicaDiscovery
from tradewind.telemetry.setup import gateway_telemetry, setup_logging, setup_tracing

logger = logging.getLogger(__name__)


class EngineReplica:
    """One replica of a model: vLLM in this process, its API behind the guard."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = EngineSettings.model_validate(settings)
        self._engine: VLLMEngine | None = None

    async def __serve_build_asgi_app__(self) -> Any:
        """Start the engine; Serve opens the replica's port when this returns."""
        setup_logging("engine")
        tracing = setup_tracing("tradewind-engine", instance=self._settings.name)
        engine = VLLMEngine(self._settings, token=home.internal_token(), tracing=tracing)
        try:
            await engine.start()
        except EngineError as error:
            # Serve shows the text of this exception as the application's status.
            raise RuntimeError(f"{REASON_MARK} {error}") from None
        self._engine = engine
        return engine.app

    async def check_health(self) -> None:
        """Raise when the engine is dead or stuck; Serve then replaces this replica."""
        if self._engine is None:
            return
        try:
            self._engine.check_health()
        except EngineError as error:
            raise RuntimeError(f"{REASON_MARK} {error}") from None

    async def __del__(self) -> None:
        if self._engine is not None:
            await self._engine.stop()
            self._engine = None


class GatewayReplica:
    """One replica of the gateway."""

    def __init__(self) -> None:
        setup_logging("gateway")
        self._own_host = ray.util.get_node_ip_address()
        self._telemetry = gateway_telemetry()
        self._gateway = Gateway(
            telemetry=self._telemetry,
            upstream=Upstream(),
            engine_token=home.internal_token(),
            read_secret=read_secret,
        )
        self._discovery = ReplicaDiscovery(self._replicas_changed, client_id="tradewind-gateway")
        self._known: Mapping[str, Sequence[Address]] = {}
        self._config: GatewayConfig | None = None

    async def __serve_build_asgi_app__(self) -> Gateway:
        self._discovery.start()
        return self._gateway

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Take over a new configuration whole, or keep the old one and say why."""
        self._config = GatewayConfig.model_validate(user_config)
        self._gateway.configure(self._config)
        self._update_directory()

    def _replicas_changed(self, found: Mapping[str, Sequence[Address]]) -> None:
        self._known = found
        self._update_directory()

    def _update_directory(self) -> None:
        if self._config is None:
            return
        directory = self._gateway.directory
        for entry in self._config.deployments:
            known = self._known.get(entry.app, ())
            directory.update(
                entry, [ReplicaAddress(self._reachable(at.host), at.port, at.replica) for at in known]
            )
        directory.retain({entry.name for entry in self._config.deployments})

    def _reachable(self, host: str) -> str:
        """Replicas on this machine may listen on loopback only, but are announced by the node's address."""
        return "127.0.0.1" if host == self._own_host else host

    async def __del__(self) -> None:
        self._discovery.stop()
        await self._gateway.shutdown()


_engine = serve.deployment(name="engine")(serve.ingress()(EngineReplica))
_gateway = serve.deployment(name="gateway")(serve.ingress()(GatewayReplica))


def engine(args: dict[str, Any]) -> Application:
    """Builder of an engine application. `args` is `{"settings": EngineSettings}`."""
    return _engine.bind(args["settings"])


def gateway(args: dict[str, Any]) -> Application:
    """Builder of the gateway application; everything it needs comes by `user_config`."""
    return _gateway.bind()
