from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from ray.serve._private import replica

from tradewind.serve import loopback


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that Serve has opened."""
    addresses: list[str] = []
    monkeypatch.setattr(replica, "add_port_to_grpc_server", lambda _, address: addresses.append(address) or 7)
    return addresses


def open_port(module: ModuleType = replica) -> Any:
    return module.add_port_to_grpc_server(None, "[::]:0")


@pytest.mark.parametrize(
    ("node_ip", "address"),
    [
        ("127.0.0.1", "127.0.0.1:0"),
        ("127.0.1.1", "127.0.0.1:0"),
        ("10.0.0.7", "[::]:0"),
        ("fd00::7", "[::]:0"),
    ],
)
def test_a_replicas_port_is_where_its_node_is(opened: list[str], node_ip: str, address: str) -> None:
    loopback.keep_replica(node_ip)
    assert open_port() == 7
    assert opened == [address]


def test_a_port_with_an_address_of_its_own_stays_there() -> None:
    assert loopback.on_loopback("10.0.0.7:30000") == "10.0.0.7:30000"


def test_a_ray_that_opens_it_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(replica, "add_port_to_grpc_server")
    with pytest.raises(loopback.UnknownRay, match="without add_port_to_grpc_server"):
        loopback.keep_replica("127.0.0.1")
    loopback.keep_replica("10.0.0.7")
