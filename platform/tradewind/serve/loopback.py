"""Keeps what Ray opens on one machine on loopback.

Told a loopback address, Ray takes on Linux the one by which the machine reaches others, and its daemons
listen on every interface, on some ports without asking for a token. `ENVIRONMENT` has it keep the address.
One port is left, by which Serve's replicas call each other, as ours never do: it has no setting.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, Final

ADDRESS: Final = "127.0.0.1"
ENVIRONMENT: Final[Mapping[str, str]] = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's default on the systems that the variable is named after. Read when Ray is imported."""
_EVERYWHERE: Final = "[::]:"
_BIND: Final = "add_port_to_grpc_server"


class UnknownRay(Exception):
    """This version of Ray opens the port in another way."""


def keep_replica(node_ip: str) -> None:
    """To be called by a replica before Serve has opened its port: on a node that is on loopback, so is that.

    Raises:
        UnknownRay: it is not known how.
    """
    if not ipaddress.ip_address(node_ip).is_loopback:
        return
    from ray.serve._private import replica

    bind: Callable[[Any, str], int] | None = getattr(replica, _BIND, None)
    if bind is None:
        raise UnknownRay(f"{replica.__name__} without {_BIND}: this Ray version is not supported")
    setattr(replica, _BIND, lambda server, address: bind(server, on_loopback(address)))


def on_loopback(address: str) -> str:
    """`address` with the host replaced where it stands for every interface."""
    return address.replace(_EVERYWHERE, f"{ADDRESS}:", 1) if address.startswith(_EVERYWHERE) else address
