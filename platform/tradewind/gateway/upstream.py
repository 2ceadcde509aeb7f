"""Pooled HTTP/1.1 to engine replicas: one request, one streamed response, little CPU.

A connection goes back to the pool only when a complete keep-alive message was read from it. All
deadlines are looked after by one coarse sweep over the open connections (`sweep_interval_s`), so a
request costs no timer of its own and a chunk costs no clock reading.
"""

from __future__ import annotations

import asyncio
import math
import time

from tradewind.gateway.connection import Connection
from tradewind.gateway.http1 import (
    BadResponse,
    ConnectFailed,
    ConnectionLimits,
    HeadTimeout,
    OutOfResources,
    ResponseFailed,
    StreamBroken,
    StreamTimeout,
    UpstreamError,
    UpstreamResponse,
    request_head,
)
from tradewind.gateway.shortage import ShortageLog, is_short

__all__ = [
    "BadResponse",
    "ConnectFailed",
    "HeadTimeout",
    "OutOfResources",
    "ResponseFailed",
    "StreamBroken",
    "StreamTimeout",
    "Upstream",
    "UpstreamError",
    "UpstreamResponse",
    "request_head",
]


class Upstream:
    """Client of every replica, for one event loop.

    `idle_timeout_s` is how long an unused connection is kept (shorter than the engine keeps it),
    `max_idle_per_replica` how many; `limits` bounds each connection.
    """

    def __init__(
        self,
        *,
        connect_timeout_s: float = 2.0,
        idle_timeout_s: float = 30.0,
        max_idle_per_replica: int = 128,
        sweep_interval_s: float = 0.1,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._max_idle = max_idle_per_replica
        self._sweep_interval_s = sweep_interval_s
        self._limits = limits or ConnectionLimits()
        self._shortage = ShortageLog(time.monotonic)
        self._idle: dict[tuple[str, int], list[Connection]] = {}
        self._open: set[Connection] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing = False
        self._all_lost: asyncio.Future[None] | None = None
        self.connects = 0
        """Connections made so far."""

    @property
    def open_connections(self) -> int:
        return len(self._open)

    async def send(
        self,
        host: str,
        port: int,
        head: bytes,
        body: bytes,
        *,
        first_byte_deadline: float,
        total_deadline: float = math.inf,
    ) -> UpstreamResponse:
        """Sends one request; returns once the first byte of the answer's body is here, or its end.

        Until then nothing has been passed on, so the caller may try elsewhere. Deadlines are loop times,
        kept to `sweep_interval_s`; past `total_deadline` the response raises StreamTimeout. A pooled
        connection that the peer had already closed is replaced by a fresh one, once.
        Raises ConnectFailed, OutOfResources, ResponseFailed, HeadTimeout, BadResponse. Cancelling closes the
        connection.
        """
        if self._closing:
            raise ConnectFailed("the client is closed")
        idle = self._idle.get((host, port))
        while idle:
            connection = idle.pop()
            if not connection.usable:
                continue
            response = connection.begin(head, body, first_byte_deadline, total_deadline)
            try:
                await response.started()
            except ResponseFailed as error:
                if not error.stale:
                    raise
                break
            return response
        connection = await self._connect(host, port, min(first_byte_deadline, total_deadline))
        response = connection.begin(head, body, first_byte_deadline, total_deadline)
        await response.started()
        return response

    def forget(self, host: str, port: int) -> None:
        """Closes the idle connections to a replica that is gone; answers under way go on."""
        for connection in self._idle.pop((host, port), ()):
            connection.abort(StreamBroken("the replica is gone"))

    async def close(self) -> None:
        """Closes every connection, answers under way included, and returns when all are closed."""
        self._closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in tuple(self._open):
            connection.abort(StreamBroken("the gateway is shutting down"))
        if self._open:
            self._all_lost = self._all_lost or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._all_lost)

    async def _connect(self, host: str, port: int, deadline: float) -> Connection:
        loop = self._loop = self._loop or asyncio.get_running_loop()
        connection = Connection((host, port), self._limits, loop, self._put, self._lost)
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + self._connect_timeout_s)):
                await loop.create_connection(lambda: connection, host, port)
        except TimeoutError as error:
            raise ConnectFailed("connecting took too long") from error
        except OSError as error:
            if is_short(error) and error.errno is not None:
                self._shortage.note(error.errno)
                raise OutOfResources(f"cannot connect: {error.strerror}") from error
            refused = isinstance(error, ConnectionRefusedError)
            raise ConnectFailed(f"cannot connect: {error.strerror or error}", refused=refused) from error
        self.connects += 1
        if self._closing:
            connection.abort(StreamBroken("the client is closed"))
            raise ConnectFailed("the client is closed")
        if connection.usable:
            self._open.add(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._sweep_interval_s, self._sweep, loop)
        return connection

    def _put(self, connection: Connection) -> None:
        idle = self._idle.setdefault(connection.key, [])
        if len(idle) < self._max_idle and not self._closing:
            idle.append(connection)
        else:
            connection.abort(StreamBroken("the pool is full"))

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(connection.key)
        if idle is not None and connection in idle:
            idle.remove(connection)
        if idle is not None and not idle:
            del self._idle[connection.key]
        if self._all_lost is not None and not self._open and not self._all_lost.done():
            self._all_lost.set_result(None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends overdue answers and drops connections that sat unused; runs while any connection is open."""
        now = loop.time()
        too_old = now - self._idle_timeout_s
        stall = self._limits.stall_timeout_s
        for connection in tuple(self._open):
            response = connection.response
            if response is not None:
                error = response.overdue(now, stall)
                if error is not None:
                    connection.abort(error)
            elif connection.idle_since < too_old:
                connection.abort(StreamBroken("unused"))
        again = bool(self._open) and not self._closing
        self._sweeper = loop.call_later(self._sweep_interval_s, self._sweep, loop) if again else None
