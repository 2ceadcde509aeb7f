"""The endpoint's port is shared among gateways, and with nobody else."""

from __future__ import annotations

import socket

import pytest

from tradewind.serve.endpoint import endpoint_socket
from tradewind.serve.local import PortInUse, check_port


def test_gateways_share_a_port_and_the_one_that_is_left_takes_everybody() -> None:
    first = endpoint_socket("127.0.0.1", 0)
    where = first.getsockname()
    second = endpoint_socket(*where)
    with first, second:
        first.listen()
        second.listen()
        first.close()
        for _ in range(20):
            with socket.create_connection(where):
                second.setblocking(True)
                second.accept()[0].close()


def test_another_programs_port_is_not_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        endpoint_socket(*other.getsockname())


def test_a_second_platform_sees_that_a_gateway_has_the_port() -> None:
    with endpoint_socket("127.0.0.1", 0) as sock:
        sock.listen()
        with pytest.raises(PortInUse):
            check_port(*sock.getsockname())


def test_it_may_be_of_the_sixth_version_of_ip() -> None:
    with endpoint_socket("::1", 0) as sock:
        assert sock.family == socket.AF_INET6
