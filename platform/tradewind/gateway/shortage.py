"""What this process or machine can run short of, and so fail to connect for a reason that is no replica's.

A connection that cannot be made because files, ports or memory have run out here says nothing about who
would have answered. It is told once in a while, with the way out, and counts against nobody.
"""

from __future__ import annotations

import errno
import logging
import math
import resource
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)

SAID_EVERY_S = 5.0

RESOURCES: Final = {
    errno.EMFILE: "file descriptors of this process",
    errno.ENFILE: "file descriptors of this machine",
    errno.ENOBUFS: "memory for sockets",
    errno.ENOMEM: "memory",
    errno.EADDRNOTAVAIL: "local ports",
}
"""What is short, by the error that tells."""

_WAY_OUT: Final = {
    errno.ENFILE: "sysctl fs.file-max sets how many there are",
    errno.ENOBUFS: "sysctl net.ipv4.tcp_mem bounds it",
    errno.ENOMEM: "the machine or the pod needs more",
    errno.EADDRNOTAVAIL: "sysctl net.ipv4.ip_local_port_range sets how many there are to one replica",
}


def is_short(error: BaseException | None) -> bool:
    """Whether the error is about this side alone."""
    return isinstance(error, OSError) and error.errno in RESOURCES


class ShortageLog:
    """Says what is short, at most every `SAID_EVERY_S` seconds for each resource."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._said: dict[int, float] = {}
        self._missed: dict[int, int] = {}

    def note(self, number: int) -> None:
        """A connection failed with this errno, one of `RESOURCES`."""
        self._missed[number] = self._missed.get(number, 0) + 1
        now = self._clock()
        if now - self._said.get(number, -math.inf) < SAID_EVERY_S:
            return
        self._said[number] = now
        _log.error(
            "out of %s (%s): connections to replicas failed: %d since this was last said; %s",
            RESOURCES[number],
            errno.errorcode[number],
            self._missed.pop(number),
            _WAY_OUT.get(number) or _file_limit(),
        )


def _file_limit() -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"this process may have {soft}, at most {hard}: raise its limit on open files (ulimit -n)"
