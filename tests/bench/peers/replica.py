"""The gateway as a Serve application that is told where its engines are. Ray imports it, and nobody else.

Whoever starts Ray must not have imported it before: it reads its settings then.
"""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application

from tradewind.gateway.app import Gateway
from tradewind.serve.applications import GatewayReplica
from tradewind.serve.discovery import Address


class FixedReplica(GatewayReplica):
    """The gateway's Serve replica with engines that Serve did not start."""

    def __init__(self, host: str, ports: dict[str, int]) -> None:
        super().__init__(host)
        self._known = {name: [Address("127.0.0.1", port, f"fake-{name}")] for name, port in ports.items()}

    async def __serve_build_asgi_app__(self) -> Gateway:
        app = await super().__serve_build_asgi_app__()
        self._discovery.stop()
        self._discovery._held.changed(self._known)
        return app


_gateway = serve.deployment(name="gateway")(serve.ingress()(FixedReplica))


def gateway(args: dict[str, Any]) -> Application:
    """Builder for a Serve config: the gateway's own arguments, and `ports` of its deployments."""
    return _gateway.bind(args["host"], args["ports"])
