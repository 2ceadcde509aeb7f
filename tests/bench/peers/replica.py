"""The gateway as a Serve application that is told where its engines are. Ray imports it, and nobody else.

Whoever starts Ray must not have imported it before: it reads its settings then.
"""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application

from tradewind.serve.discovery import Address
from tradewind.serve.gateway_replica import GatewayReplica


class FixedReplica(GatewayReplica):
    """The gateway's Serve replica with engines that Serve did not start."""

    def __init__(self, host: str, port: int, reachable_s: float, ports: dict[str, int]) -> None:
        super().__init__(host, port, reachable_s)
        self._discovery.stop()
        known = {name: [Address("127.0.0.1", each, f"fake-{name}")] for name, each in ports.items()}
        self._process.found(known)


_gateway = serve.deployment(name="gateway")(FixedReplica)


def gateway(args: dict[str, Any]) -> Application:
    """Builder for a Serve config: the gateway's own arguments, and `ports` of its deployments."""
    return _gateway.bind(args["host"], args["port"], args["reachable_s"], args["ports"])
