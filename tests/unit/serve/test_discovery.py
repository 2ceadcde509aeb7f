"""The adapter to Serve's private interface, held to the installed Ray."""

from __future__ import annotations

from ray.serve._private.common import RequestProtocol
from ray.serve._private.long_poll import LongPollClient, LongPollNamespace
from ray.serve.schema import Target, TargetGroup

from tradewind.serve.discovery import Address, addresses_by_app


def group(app: str, protocol: RequestProtocol, *targets: Target) -> TargetGroup:
    return TargetGroup(targets=list(targets), route_prefix="/", protocol=protocol, app_name=app)


def target(port: int, name: str) -> Target:
    return Target(ip="10.0.0.1", port=port, instance_id="i", name=name)


def test_addresses_come_per_application_with_the_replicas_own_name() -> None:
    groups = [
        group("a", RequestProtocol.HTTP, target(30000, "r1"), target(30001, "r2")),
        group("a", RequestProtocol.GRPC, target(40000, "r1")),
        group("b", RequestProtocol.HTTP),
    ]
    assert addresses_by_app(groups) == {
        "a": [Address("10.0.0.1", 30000, "r1"), Address("10.0.0.1", 30001, "r2")],
        "b": [],
    }


def test_the_installed_ray_has_what_discovery_listens_to() -> None:
    assert LongPollNamespace.TARGET_GROUPS.name == "TARGET_GROUPS"
    parameters = LongPollClient.__init__.__annotations__
    assert {"host_actor", "key_listeners", "call_in_event_loop", "client_id"} <= parameters.keys()
