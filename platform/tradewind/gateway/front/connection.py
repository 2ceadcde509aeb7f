"""One caller's connection: bytes in, parsed by llhttp, one request after another to the handler, bytes out.

Order of life: a request's head arrives, its handler starts, its body arrives as the handler asks for it, the
answer goes out, the next request begins. A caller may send requests ahead; they wait. Whoever sends what is
no sound request is told so and the connection closes: after the answer nothing more is taken from it, but it
is read for a moment, since closing with unread bytes would take the answer back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, cast

import httptools

from tradewind.gateway.front import wire
from tradewind.gateway.front.context import ConnectionContext, Context
from tradewind.gateway.front.limits import FrontLimits
from tradewind.gateway.problems import Header, Refused, Rendered

_READ_BACK: Final = 256 * 1024
"""Bytes that are read of a caller who was refused, and thrown away."""


class Owner(Protocol):
    """What a connection needs of the listener that made it."""

    limits: FrontLimits
    leaving: bool

    def hold(self, size: int) -> bool:
        """Take `size` bytes of the room for bodies; False where there is none."""

    def release(self, size: int) -> None:
        """Give them back."""

    def opened(self, connection: Connection) -> bool:
        """Count it; False where there is no place for it."""

    def lost(self, connection: Connection) -> None:
        """It is closed."""

    def await_head(self, connection: Connection) -> None:
        """A head has begun and has `head_s`."""

    def await_request(self, connection: Connection) -> None:
        """It is idle and has `idle_s`."""

    def await_close(self, connection: Connection) -> None:
        """It was refused and has `refused_s`."""

    def busy(self, connection: Connection) -> None:
        """A request is being handled: no deadline of the connection's own."""

    def stalled(self, connection: Connection, *, stalled: bool) -> None:
        """Its caller takes, or no longer takes, less than is written."""

    @property
    def handle(self) -> Callable[[Context], Awaitable[None]]:
        """Answers a request."""

    def refuse(self, refused: Refused) -> Rendered:
        """The answer to what is no sound request."""


class Connection(asyncio.Protocol):
    """Made by the listener, one per caller's connection."""

    __slots__ = (
        "_closing", "_current", "_fault", "_head_size", "_headers", "_in_head", "_loop", "_offered", "_owner",
        "_parsed", "_parser", "_queue", "_read_back", "_resumed", "_target", "_task", "_transport", "address",
        "fresh", "head", "limits", "paused", "reading",
    )  # fmt: skip

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self.limits = owner.limits
        self.address = ""
        self.head = b""
        """Of the answer that has begun and of which nothing is sent yet."""
        self.paused = False
        self.fresh = True
        """Nobody has been answered yet."""
        self.reading = True
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[Header] = []
        self._head_size = 0
        self._in_head = False
        self._parsed: ConnectionContext | None = None  # the one whose body is being parsed
        self._offered: ConnectionContext | None = None  # the one that came with an offer of another protocol
        self._current: ConnectionContext | None = None  # the one that is being answered
        self._queue: deque[ConnectionContext] = deque()
        self._task: asyncio.Task[None] | None = None
        self._fault: Refused | None = None
        self._closing = False
        self._read_back = 0
        self._resumed: asyncio.Future[None] | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        if not self._owner.opened(self):
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=self.limits.write_buffer)
        self._owner.await_head(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._parser = None  # breaks the cycle through its bound callbacks
        self._owner.lost(self)
        for waiting in self._queue:
            waiting.leave()
        self._queue.clear()
        current, self._current = self._current, None
        if current is not None:
            current.leave()
            if self._task is not None:
                self._task.cancel()
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self._closing or self._fault is not None:
            self._read_back += len(data)
            if self._read_back > _READ_BACK:
                self.abort()
            return
        if self._current is None and not self._in_head:
            self._owner.await_head(self)
        self._feed(data)
        if self._transport is None:
            return
        if self._in_head:
            self._head_size += len(data)
            if self._head_size > self.limits.head_bytes:
                self._fault = self._fault or wire.too_long_a_head(self.limits.head_bytes)
        if self._fault is not None and self._parsed is not None:
            self._parsed.fail(self._fault)
        self._next()

    def eof_received(self) -> None:
        return None  # whoever closes their side has left; the transport closes

    def pause_writing(self) -> None:
        self.paused = True
        self._owner.stalled(self, stalled=True)

    def resume_writing(self) -> None:
        self.paused = False
        self._owner.stalled(self, stalled=False)
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_size = 0
        self._target = b""
        self._headers = []
        self._parsed = None

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer, which nobody reads
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        parser = self._parser
        method, version = parser.get_method(), parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise wire.bad("Speak HTTP/1.1.")
        context = ConnectionContext(self, method, wire.path_of(self._target), self._headers, version)
        context.closes = not parser.should_keep_alive()
        if len(self._queue) >= self.limits.pipelined:
            raise wire.bad("Too many requests were sent before the first was answered.")
        self._parsed = context
        self._queue.append(context)
        if parser.should_upgrade():
            self._offered = context

    def on_body(self, body: bytes) -> None:
        if self._parsed is not None and self._parsed.add(body):
            self._pause_reading()

    def on_message_complete(self) -> None:
        # llhttp believes that a message which offers another protocol ends with its head.
        if self._parsed is not None and self._parsed is not self._offered:
            self._parsed.complete()
            self._parsed = None

    # What a context calls.

    @property
    def leaving(self) -> bool:
        """The listener takes no more requests."""
        return self._owner.leaving

    def hold(self, size: int) -> bool:
        return self._owner.hold(size)

    def release(self, size: int) -> None:
        self._owner.release(size)

    def read_on(self) -> None:
        """Somebody wants the rest of the body."""
        if not self.reading and self._transport is not None:
            self.reading = True
            self._transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Behind the head of the answer, if that is still to be sent."""
        transport = self._transport
        if transport is None:
            return
        if self.head:
            data, self.head = self.head + data, b""
        transport.write(data)

    def answered(self, context: ConnectionContext, data: bytes) -> None:
        """The answer ends with `data`."""
        if self.head or data:
            self.send(data)
        if context is not self._current:
            return
        self._current = self._task = None
        if context.closes or self._owner.leaving:
            self._close()
        elif self._transport is not None:
            self.read_on()
            if not self._queue and self._fault is None:
                if self._in_head:
                    self._owner.await_head(self)
                else:
                    self._owner.await_request(self)
                return
            # Not from here: the handler that has just ended its answer is still running.
            self._loop.call_soon(self._next)

    async def drained(self) -> None:
        """Wait until the caller has taken most of what was written, or is gone."""
        while self.paused and self._transport is not None:
            if self._resumed is None:
                self._resumed = self._loop.create_future()
            await asyncio.shield(self._resumed)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # What the listener calls.

    @property
    def idle(self) -> bool:
        """No request is being handled or on its way."""
        return self._current is None and not self._queue and not self._in_head

    @property
    def closing(self) -> bool:
        """Its last answer is written."""
        return self._closing

    @property
    def unsent(self) -> int:
        """Bytes that wait for the caller."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def overdue(self, refused: Refused) -> None:
        """Its head should be here: told where one had begun, closed without a word where not."""
        if not self._in_head:
            self.abort()
            return
        self._fault = refused
        self._next()

    def leave_soon(self) -> None:
        """Close now if nobody is being answered, else with the answer."""
        if self.idle:
            self._close()

    # Own steps.

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, Refused):
                raise
            self._fault = cause
        except httptools.HttpParserError:
            self._fault = self._fault or wire.bad("This is no request as the HTTP standard has it.")

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Answer as if no other protocol had been asked for: clients offer HTTP/2 unasked."""
        context, self._offered = self._offered, None
        if context is None or context.method == b"CONNECT":
            self._fault = wire.bad("This is no proxy.")
            return
        # llhttp has given the connection up. Another parser reads the body by the same framing.
        self._parser = httptools.HttpRequestParser(_Body(self))
        length = b"transfer-encoding: chunked" if context.framing.chunked else b"content-length: 0"
        if context.framing.length is not None:
            length = b"content-length: %d" % context.framing.length
        self._feed(b"POST / HTTP/1.1\r\n" + length + b"\r\n\r\n" + rest)

    def _next(self) -> None:
        """Begin with the request that is next, or say what is wrong with it."""
        if self._current is not None or self._transport is None or self._closing:
            if len(self._queue) > 0 and self._current is not None:
                self._pause_reading()
            return
        if self._queue:
            context = self._current = self._queue.popleft()
            self.fresh = False
            self._owner.busy(self)
            self._task = self._loop.create_task(self._serve(context))
            if self._queue:
                self._pause_reading()
        elif self._fault is not None:
            self._refuse(self._fault)

    async def _serve(self, context: ConnectionContext) -> None:
        try:
            await self._owner.handle(context)
        finally:
            if context is self._current:
                context.abort()  # left open: the caller must see that nothing more will come

    def _refuse(self, refused: Refused) -> None:
        status, headers, body = self._owner.refuse(refused)
        head = wire.response_head(status, headers, len(body), chunked=False, close=True)
        self.head = b""
        self.send(head + body)
        self._close()

    def _close(self) -> None:
        """Say that nothing more will come, and read for a moment, so that the caller sees what was said."""
        transport = self._transport
        if transport is None:
            return
        self._closing, self.fresh = True, False
        self.read_on()
        if transport.can_write_eof():
            transport.write_eof()
            self._owner.await_close(self)
        else:  # TLS
            transport.close()

    def _pause_reading(self) -> None:
        if self.reading and self._transport is not None:
            self.reading = False
            self._transport.pause_reading()

    def _wake(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None and not resumed.done():
            resumed.set_result(None)


class _Body:
    """Callbacks for the body of a request whose head is read; of the next one, all of them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._seen = False

    def on_message_begin(self) -> None:
        if self._seen:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._seen:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._seen:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._seen:
            self._connection.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._connection.on_body(body)

    def on_message_complete(self) -> None:
        self._seen = True
        self._connection.on_message_complete()
