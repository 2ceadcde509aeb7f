"""Listens for callers: who may connect, how long anything may take, and how it ends.

Nothing here asks for a key, so nothing here may cost much. One sweep a second looks after every deadline.
Each kind of deadline has one length, so each kind's connections stand in the order in which they are due, and
the sweep touches none but those that are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from tradewind.api.problems import Code
from tradewind.gateway.front.connection import Connection
from tradewind.gateway.front.context import Context
from tradewind.gateway.front.limits import FrontLimits
from tradewind.gateway.problems import Refused, Rendered

_log = logging.getLogger(__name__)

_SWEEP_S: Final = 1.0
_BACKLOG: Final = 4_096
_LOOK_S: Final = 0.02

Handle = Callable[[Context], Awaitable[None]]
"""Answers one request."""
Refuse = Callable[[Refused], Rendered]
"""The answer to what is no sound request."""


class Listener:
    """A listening socket and its connections. Belongs to one event loop."""

    def __init__(
        self,
        handle: Handle,
        refuse: Refuse,
        limits: FrontLimits | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock` counts seconds; the loop's own unless given."""
        self.limits = limits or FrontLimits()
        self.leaving = False
        self.handle = handle
        self.refuse = refuse
        self.refused: Counter[str] = Counter()
        """Connections that were closed before a request, by why."""
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        self._connections: set[Connection] = set()
        self._by_address: Counter[str] = Counter()
        self._heads: dict[Connection, float] = {}
        self._idle: dict[Connection, float] = {}
        self._closing: dict[Connection, float] = {}
        self._stalled: dict[Connection, tuple[float, int]] = {}
        self._held = 0
        self._sock: socket.socket | None = None
        self._tls: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._all_gone: asyncio.Future[None] | None = None

    async def start(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Listen on a bound socket, which is the listener's from here on. Raises OSError."""
        self._sock, self._tls = sock, tls
        self._server = await self._loop.create_server(self._connect, sock=sock, backlog=_BACKLOG, ssl=tls)
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep_on)

    @property
    def open(self) -> int:
        """Connections."""
        return len(self._connections)

    @property
    def held(self) -> int:
        """Bytes of bodies."""
        return self._held

    def leave(self) -> None:
        """Go on, but let every answer end its connection: the next request goes elsewhere."""
        self.leaving = True

    async def stop(self, within_s: float) -> None:
        """Listen no more. Returns when everybody who has come has asked something, or after `within_s`.

        Whom the kernel let in already is taken in: to close with them in its queue would reset them.
        """
        self.leave()
        await self._take_last()
        for connection in tuple(self._connections):
            if not connection.fresh:
                connection.leave_soon()
        until = self._loop.time() + within_s
        # Once in a process's life: not worth an event that every connection would have to set.
        while self._loop.time() < until and any(each.fresh for each in self._connections):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)

    async def drain(self, timeout_s: float) -> None:
        """Take no more connections and requests; return when every answer has ended, or after `timeout_s`.

        What is open then is closed.
        """
        await self.stop(0)
        for connection in tuple(self._connections):
            connection.leave_soon()
        if self._connections:
            self._all_gone = self._all_gone or self._loop.create_future()
            try:
                await asyncio.wait_for(asyncio.shield(self._all_gone), timeout_s)
            except TimeoutError:
                _log.warning("closed with answers under way", extra={"connections": len(self._connections)})
        for connection in tuple(self._connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # What a connection calls.

    def hold(self, size: int) -> bool:
        """Take room for bytes of a body."""
        if self._held + size > self.limits.bodies:
            return False
        self._held += size
        return True

    def release(self, size: int) -> None:
        """Give room back."""
        self._held -= size

    def opened(self, connection: Connection) -> bool:
        """Count a new connection; False where there is no place for it."""
        if self._by_address[connection.address] >= self.limits.connections_per_address:
            self.refused["address"] += 1
            return False
        if len(self._connections) >= self.limits.connections and not self._make_room():
            self.refused["full"] += 1
            return False
        self._connections.add(connection)
        self._by_address[connection.address] += 1
        return True

    def lost(self, connection: Connection) -> None:
        """A connection is closed."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._forget(connection)
        self._stalled.pop(connection, None)
        left = self._by_address[connection.address] - 1
        if left:
            self._by_address[connection.address] = left
        else:
            del self._by_address[connection.address]
        if self._all_gone is not None and not self._connections and not self._all_gone.done():
            self._all_gone.set_result(None)

    def await_head(self, connection: Connection) -> None:
        """A head has begun, or should."""
        self._idle.pop(connection, None)
        if connection not in self._heads:
            self._heads[connection] = self._clock() + self.limits.head_s

    def await_request(self, connection: Connection) -> None:
        """It is idle."""
        self._idle[connection] = self._clock() + self.limits.idle_s

    def await_close(self, connection: Connection) -> None:
        """It is read for a moment."""
        self._forget(connection)
        self._closing[connection] = self._clock() + self.limits.refused_s

    def busy(self, connection: Connection) -> None:
        """A request is being handled."""
        self._forget(connection)

    def stalled(self, connection: Connection, *, stalled: bool) -> None:
        """A caller who does not take what waits for it, or does again."""
        if stalled:
            self._stalled[connection] = (self._clock(), connection.unsent)
        else:
            self._stalled.pop(connection, None)

    # Own steps.

    def _connect(self) -> Connection:
        return Connection(self, self._loop)

    async def _take_last(self) -> None:
        server, self._server = self._server, None
        sock, self._sock = self._sock, None
        if server is None or sock is None:
            return
        waiting: list[socket.socket] = []
        with contextlib.suppress(BlockingIOError):
            while len(waiting) < _BACKLOG:
                waiting.append(sock.accept()[0])
        server.close()  # nothing was awaited since the queue was empty
        for each in waiting:
            with contextlib.suppress(OSError):
                await self._loop.connect_accepted_socket(self._connect, each, ssl=self._tls)

    def _forget(self, connection: Connection) -> None:
        self._heads.pop(connection, None)
        self._idle.pop(connection, None)
        self._closing.pop(connection, None)

    def _make_room(self) -> bool:
        """Close the connection that has been idle longest; False where all are used."""
        for connection in self._idle:
            self.refused["idle"] += 1
            connection.abort()
            self.lost(connection)
            return True
        return False

    def _sweep_on(self) -> None:
        self.sweep()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep_on)

    def sweep(self) -> None:
        """End what is overdue."""
        now = self._clock()
        for connection in _due(self._heads, now):
            self.refused["head"] += 1
            text = f"The request's head did not arrive within {self.limits.head_s:g} s."
            connection.overdue(Refused(Code.REQUEST_TIMEOUT, text, close=True))
        for connection in _due(self._idle, now):
            connection.abort()
        for connection in _due(self._closing, now):
            if connection.unsent:
                self._stalled.setdefault(connection, (now, connection.unsent))
            else:
                connection.abort()
        for connection, (since, unsent) in tuple(self._stalled.items()):
            left = connection.unsent
            if connection.closing and not left:
                connection.abort()
            elif left < unsent:
                self._stalled[connection] = (now, left)
            elif now - since >= self.limits.write_stall_s:
                self.refused["stalled"] += 1
                connection.abort()


def _due(deadlines: dict[Connection, float], now: float) -> list[Connection]:
    """Those whose time has come, taken out."""
    due = []
    for connection, deadline in deadlines.items():
        if deadline > now:
            break
        due.append(connection)
    for connection in due:
        del deadlines[connection]
    return due
