"""One request as it came in, and the way to answer it.

`Context` is what the gateway's core knows of a caller, whoever listens. A handler reads the body at most
once, begins one answer, writes and ends it. When the caller leaves, the task that handles the request is
cancelled, once; `gone` tells it why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from tradewind.api.problems import Code
from tradewind.api.wire import RequestLimits
from tradewind.gateway.front import wire
from tradewind.gateway.problems import ClientGone, Header, Refused

if TYPE_CHECKING:
    from tradewind.gateway.front.connection import Connection

_EXPECTED: Final = b"100-continue"

Amend = Callable[[list[Header]], list[Header]]
"""The headers of an answer, and what goes with them whatever the answer is."""


class Context(Protocol):
    """One request, for one task."""

    method: bytes
    path: bytes
    """Raw, without the query."""
    headers: list[Header]
    """Names in lower case, in the order in which they came."""
    version: str
    """`1.1` or `1.0`."""
    head_only: bool
    """The answer's body is not wanted (HEAD); it is thrown away here."""
    amend: Amend | None
    """To be set before the answer begins."""

    @property
    def gone(self) -> bool:
        """The caller left before the answer was complete."""

    async def body(self, limits: RequestLimits) -> bytes:
        """The whole body, once. Raises Refused (body_too_large, request_timeout, no_capacity), ClientGone."""

    def let_body_go(self) -> None:
        """The handler holds the body no longer."""

    def begin(
        self, status: int, headers: list[Header], length: int = wire.NO_LENGTH, *, close: bool = False
    ) -> None:
        """The answer's head. `headers` say nothing of framing or the connection.

        What was announced of the body and not read closes the connection too. Raises ClientGone, ValueError.
        """

    def write(self, data: bytes) -> None:
        """Bytes of the answer, at once. Never raises: nothing is sent to a caller who left."""

    def end(self, data: bytes = b"") -> None:
        """The answer is complete."""

    def abort(self) -> None:
        """The answer will never be complete: the connection closes, so that the caller can tell."""

    @property
    def paused(self) -> bool:
        """So many bytes wait for a slow reader that no more should be written; see `drained`."""

    async def drained(self) -> None:
        """Wait until the caller has taken (most of) what was written, or is gone."""


class ConnectionContext:
    """A request of the listener's. Made by a connection."""

    __slots__ = (
        "_body", "_connection", "_ended", "_limit", "_refused", "_waiter", "_whole", "amend", "chunked",
        "closes", "framing", "gone", "head_only", "headers", "held", "method", "path", "version",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, method: bytes, path: bytes, headers: list[Header], version: str
    ) -> None:
        self._connection: Connection | None = connection
        self.method = method
        self.path = path
        self.headers = headers
        self.version = version
        self.amend: Amend | None = None
        self.framing = wire.framing(headers, version)
        self.head_only = method == b"HEAD"
        self.closes = False
        """The connection ends with the answer."""
        self.gone = False
        self.chunked = False
        self.held = 0
        """Bytes of the body that are held."""
        self._body: list[bytes] = []
        self._whole = not self.framing.has_body
        self._limit: int | None = None
        self._refused: Refused | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False

    # What a handler calls.

    async def body(self, limits: RequestLimits) -> bytes:
        """The whole body, once. Its bytes count as held until `let_body_go` or the end."""
        self._limit = limits.body_bytes
        announced = self.framing.length
        if (announced or 0) > limits.body_bytes or self.held > limits.body_bytes:
            raise too_large(limits.body_bytes)
        if not self._whole and self._refused is None:
            await self._arrive(limits.body_timeout_s)
        if self._refused is not None:
            raise self._refused
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        return body

    def let_body_go(self) -> None:
        """The handler holds the body no longer."""
        self._let_go(self._connection)

    def begin(
        self, status: int, headers: list[Header], length: int = wire.NO_LENGTH, *, close: bool = False
    ) -> None:
        """It is sent with the first bytes of the body, or at the end."""
        connection = self._open()
        if self.amend is not None:
            headers = self.amend(headers)
        # What is left of the body would be read as the next request.
        self.closes = self.closes or close or not self._whole or connection.leaving
        self.chunked = length < 0 and self.version == "1.1" and not self.head_only
        self.closes = self.closes or (length < 0 and not self.chunked and not self.head_only)
        head = wire.response_head(status, headers, length, chunked=self.chunked, close=self.closes)
        connection.head = head

    def write(self, data: bytes) -> None:
        """At once."""
        if self._connection is None or not data or self.head_only:
            return
        self._connection.send(wire.chunk(data) if self.chunked else data)

    def end(self, data: bytes = b"") -> None:
        """The connection goes on or closes."""
        connection, self._connection = self._connection, None
        self._ended = True
        self._let_go(connection)
        if connection is None:
            return
        if self.head_only:
            data = b""
        if self.chunked:
            data = (wire.chunk(data) if data else b"") + wire.LAST_CHUNK
        connection.answered(self, data)

    def abort(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        self._let_go(connection)
        if connection is not None:
            connection.abort()

    @property
    def paused(self) -> bool:
        """The transport holds more than `write_buffer`."""
        return self._connection is not None and self._connection.paused

    async def drained(self) -> None:
        """Wait until the transport holds little."""
        if self._connection is not None:
            await self._connection.drained()

    # What the connection calls.

    def add(self, data: bytes) -> bool:
        """Take bytes of the body; tells whether no more are wanted for now."""
        connection = self._connection
        if self._refused is not None or connection is None:
            return False
        if not connection.hold(len(data)):
            self._refuse(Refused(Code.NO_CAPACITY, "The gateway holds too many bodies.", close=True))
            return False
        self.held += len(data)
        self._body.append(data)
        if self._limit is None:
            return self.held > connection.limits.ahead_bytes
        if self.held > self._limit:
            self._refuse(too_large(self._limit))
        return False

    def fail(self, refused: Refused) -> None:
        """The rest of the body is no sound HTTP."""
        self._refuse(self._refused or refused)

    def complete(self) -> None:
        """All of the body is here."""
        self._whole = True
        self._wake()

    def leave(self) -> None:
        """The caller is gone."""
        connection, self._connection = self._connection, None
        if not self._ended:
            self.gone = True
        self._let_go(connection)
        self._wake()

    def _open(self) -> Connection:
        if self._connection is None:
            raise ClientGone
        return self._connection

    async def _arrive(self, timeout_s: float) -> None:
        connection = self._open()
        if not self._body and self._expects():
            connection.send(wire.CONTINUE)
        connection.read_on()
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, self._late, timeout_s)
        try:
            await waiter
        finally:
            timer.cancel()
        if self.gone:
            raise ClientGone

    def _expects(self) -> bool:
        """Whether the caller sends its body only when it is told to."""
        return any(name == b"expect" and value.lower() == _EXPECTED for name, value in self.headers)

    def _late(self, timeout_s: float) -> None:
        self._refuse(too_late(timeout_s))

    def _refuse(self, refused: Refused) -> None:
        self._refused = refused
        self._body = []
        self._let_go(self._connection)
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _let_go(self, connection: Connection | None) -> None:
        if self.held and connection is not None:
            connection.release(self.held)
            self.held = 0


def too_large(limit: int) -> Refused:
    """The refusal of a body over `limit` bytes."""
    return Refused(Code.BODY_TOO_LARGE, f"The body is over {limit} bytes.", close=True)


def too_late(timeout_s: float) -> Refused:
    """The refusal of a body that took longer than `timeout_s`."""
    return Refused(Code.REQUEST_TIMEOUT, f"The body did not arrive within {timeout_s:g} s.", close=True)
