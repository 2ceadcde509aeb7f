"""The port that callers come to: one for all gateways of a node."""

from __future__ import annotations

import socket


def endpoint_socket(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet.

    Several gateways of one user may have the same port, and the kernel deals new connections out among those
    that listen. So one that is replaced can go on while its successor is there already.

    Raises:
        OSError: another program has the port, or there is no such address here.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # What has just been closed must not keep the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock
