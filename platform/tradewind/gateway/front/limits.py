"""Bounds of the listener: for everyone, before anybody is asked for a key."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FrontLimits:
    """Times are seconds, sizes are bytes."""

    connections: int = 16_384
    """Open at once. A new one beyond takes the place of the one that was idle longest, if there is one."""
    connections_per_address: int = 4_096
    """Of one address: whoever fills that leaves room for others."""
    head_s: float = 15.0
    """From the first byte of a request, or from connecting, to the end of its head."""
    idle_s: float = 90.0
    """Between two requests."""
    refused_s: float = 2.0
    """How long a connection that is closed for a refusal is read, so that the caller sees the answer."""
    write_stall_s: float = 60.0
    """How long a caller may take none of the answer that waits for it."""
    head_bytes: int = 64 * 1024
    """More than the configured limit of headers, which has an answer of its own."""
    ahead_bytes: int = 64 * 1024
    """Of a body that nobody has asked for yet."""
    pipelined: int = 16
    """Requests that may be sent before the first is answered."""
    write_buffer: int = 64 * 1024
    """Bytes that may wait for a slow reader before whoever writes is asked to pause."""
    bodies: int = 1024 * 1024 * 1024
    """Bytes of all requests' bodies that are held at once."""
