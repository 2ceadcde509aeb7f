"""One HTTP/1.1 connection to an engine: request bytes out, one response parsed by llhttp, bytes up.

Made for relaying: a response body goes up as it came, without tasks, timers or copies per chunk.
Only what an engine (uvicorn) really sends is accepted. Everything that leaves room for two readings
of where a message ends - both framings, a repeated length, close-delimited bodies, trailers,
transfer codings other than `chunked` - ends the connection.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from typing import Final, cast

import httptools

from tradewind.gateway.http1 import (
    BadResponse,
    ConnectionLimits,
    OutOfResources,
    ResponseFailed,
    UpstreamError,
    UpstreamResponse,
)
from tradewind.gateway.shortage import is_short

_BODILESS = frozenset((204, 304))
_JOINED_BODY_BYTES = 64 * 1024
_LOST_PEER: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 9_000),
)
"""A node that loses its power closes no connection: the kernel asks it, and gives up after 9 seconds."""


def _notice_a_lost_peer(peer: socket.socket) -> None:
    for level, option, value in _LOST_PEER:
        peer.setsockopt(level, option, value)


class Connection(asyncio.Protocol):
    """Transport, parser and the response being received, if any. Created by `Upstream` only.

    `on_idle` is called when a message is complete and the connection can carry another, `on_lost` once
    when the connection is closed, for whatever reason.
    """

    def __init__(
        self,
        key: tuple[str, int],
        limits: ConnectionLimits,
        loop: asyncio.AbstractEventLoop,
        on_idle: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
    ) -> None:
        self.key = key
        self.idle_since = math.inf
        self.paused = False
        self.response: UpstreamResponse | None = None
        self._limits = limits
        self._loop = loop
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._fault = ""
        self._used = self._heard_any = self._head_done = self._complete = self._keep_alive = False
        self._barren_bytes = 0

    # What the pool calls.

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def begin(self, head: bytes, body: bytes, first_byte: float, total: float) -> UpstreamResponse:
        """Sends a request on an idle connection. Deadlines are loop times."""
        response = UpstreamResponse(self, self._loop, first_byte, total)
        response.reused = self._used
        self._used = True
        self._heard_any = self._head_done = self._complete = False
        self._barren_bytes = 0
        self.response = response
        transport = self._transport
        if transport is None:
            self._end_response(ResponseFailed("the connection was closed", stale=True))
        elif len(body) <= _JOINED_BODY_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        return response

    def abort(self, error: UpstreamError) -> None:
        """Closes at once; a response under way ends with `error`."""
        if self._transport is not None:
            self._transport.abort()
        self._end_response(error)

    def resume(self) -> None:
        self.paused = False
        if self._transport is not None:
            self._transport.resume_reading()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family in (socket.AF_INET, socket.AF_INET6):
            _notice_a_lost_peer(peer)

    def data_received(self, data: bytes) -> None:
        response = self.response
        if response is None:
            # Bytes nobody asked for would be taken for the answer to the next request.
            self.abort(BadResponse("bytes without a request"))
            return
        response.heard = self._heard_any = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fault = self._fault or f"not HTTP: {error}"
        except httptools.HttpParserUpgrade:
            self._fault = "an upgrade nobody asked for"
        if self._complete:
            self._finish(response)
        elif self._fault:
            self.abort(BadResponse(self._fault))
        elif response.barren:
            self._barren_bytes += len(data)
            if self._barren_bytes > self._limits.head_bytes:
                self.abort(BadResponse("the head or the framing is too large"))
        elif response.advance(self._limits.read_buffer_bytes):
            self._pause()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._parser = None  # breaks the cycle through its bound callbacks
        response = self.response
        if response is not None:
            why: UpstreamError
            if is_short(exc):
                why = OutOfResources("the connection was lost for want of memory here")
            elif response.status:
                why = ResponseFailed("the connection closed inside the answer")
            else:
                soon = self._loop.time() - response.sent_at < self._limits.stale_window_s
                stale = response.reused and not self._heard_any and soon
                why = ResponseFailed("the connection closed before the answer", stale=stale)
            why.__cause__ = exc
            self._end_response(why)
        self._on_lost(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._complete:
            self._fault = "a second response to one request"

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            self._fault = self._fault or "trailers, or a response nobody asked for"
        elif self.response is not None:
            self.response.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        response = self.response
        status = self._parser.get_status_code()
        if response is None or self._head_done or 100 <= status < 200:
            return
        self._head_done = True
        framed = status in _BODILESS
        size = 0
        for name, value in response.headers:
            size += len(name) + len(value)
            if name == b"content-type":
                response.content_type = value
            elif name == b"content-length":
                framed = True
            elif name == b"transfer-encoding":
                framed = value.lower() == b"chunked"
                if not framed:
                    break
        if not framed or self._parser.get_http_version() != "1.1":
            self._fault = "the message's end cannot be told"
        elif size > self._limits.head_bytes:
            self._fault = "the head is too large"
        response.status = status

    def on_body(self, body: bytes) -> None:
        response = self.response
        if response is not None and not self._complete:
            response.add(body)

    def on_message_complete(self) -> None:
        if not self._head_done:
            if self.response is not None:
                self.response.headers.clear()  # an interim 1xx response
        elif not self._complete and not self._fault:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()

    # Own steps.

    def _finish(self, response: UpstreamResponse) -> None:
        """The message is whole: the response stands, and the connection is kept unless anything is odd."""
        transport = self._transport
        self.response = None
        response.end()
        if transport is None:
            return
        if self._keep_alive and not self._fault and not transport.get_write_buffer_size():
            if self.paused:
                self.resume()
            self.idle_since = self._loop.time()
            self._on_idle(self)
        else:
            transport.abort()

    def _pause(self) -> None:
        if not self.paused and self._transport is not None:
            self.paused = True
            self._transport.pause_reading()

    def _end_response(self, error: UpstreamError) -> None:
        response, self.response = self.response, None
        if response is not None:
            response.end(error)
