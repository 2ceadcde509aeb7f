"""One HTTP/1.1 client connection: request bytes out, one response parsed by llhttp, bytes up.

Made for relaying: a response body goes up as it came, without tasks, timers or copies per chunk.
Only what an engine (uvicorn) really sends is accepted. Everything that leaves room for two readings
of where a message ends - both framings, a repeated length, close-delimited bodies, trailers,
transfer codings other than `chunked` - ends the connection.

Errors::

    UpstreamError
    ├── ConnectFailed     no connection: nothing was sent, any retry is safe
    ├── ResponseFailed    the connection died before the first byte of an answer's body
    ├── HeadTimeout       no first byte of an answer in time
    ├── BadResponse       what came is not an HTTP response we accept
    └── StreamBroken      the answer had begun and will not be whole
        └── StreamTimeout it went silent, or took longer than allowed
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import httptools

_METHODS = frozenset((b"GET", b"POST"))
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"/[\x21-\x7e]*")
_HOST = re.compile(r"([0-9A-Za-z.\-_]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_REBUILT = frozenset(
    b"connection content-length expect host keep-alive proxy-authenticate proxy-authorization proxy-connection"
    b" te trailer transfer-encoding upgrade".split()
)
_BODILESS = frozenset((204, 304))
_JOINED_BODY_BYTES = 64 * 1024


class UpstreamError(Exception):
    """An engine replica could not be asked or did not answer whole. The text is for logs, not for clients."""


class ConnectFailed(UpstreamError):
    """No connection was made, so nothing was sent.

    `refused`: the port is closed (the replica is gone), as opposed to slow or unreachable.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class ResponseFailed(UpstreamError):
    """The connection died after the request was (perhaps partly) sent, before any byte of an answer's body.

    `stale`: a pooled connection that the peer had given up; a fresh one may well work.
    """

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.stale = stale


class HeadTimeout(UpstreamError):
    """The first byte of an answer's body did not come before the deadline."""


class BadResponse(UpstreamError):
    """The bytes received are not a response this client accepts."""


class StreamBroken(UpstreamError):
    """The answer had begun and ended before it was complete."""


class StreamTimeout(StreamBroken):
    """`total`: the whole answer took longer than its deadline; else nothing came for too long."""

    def __init__(self, message: str, *, total: bool) -> None:
        super().__init__(message)
        self.total = total


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of one connection."""

    read_buffer_bytes: int = 256 * 1024
    """Body bytes held for a slow consumer before reading from the engine pauses."""
    head_bytes: int = 64 * 1024
    """Size of a response head, and of framing between body bytes."""
    stall_timeout_s: float = 120.0
    """Longest silence inside an answer."""
    stale_window_s: float = 1.0
    """A reused connection that dies this soon after a request, unanswered, counts as stale."""


@lru_cache(maxsize=256)
def _wire_name(name: bytes) -> bytes:
    """The lower-case `name: ` as sent; empty for a header that belongs to the connection, not the request."""
    if _TOKEN.fullmatch(name) is None:
        raise ValueError("a header name holds a character that HTTP does not allow")
    lower = name.lower()
    return b"" if lower in _REBUILT else lower + b": "


@lru_cache(maxsize=1024)
def _host_line(host: str) -> bytes:
    if _HOST.fullmatch(host) is None:
        raise ValueError("the host is not a name or an address")
    return b"host: " + host.encode("ascii")


def request_head(
    method: bytes, target: bytes, host: str, headers: list[tuple[bytes, bytes]], body_length: int
) -> bytes:
    """Bytes of a request head, with framing of our own making.

    `host` is `name` or `name:port`. Framing and hop-by-hop headers in `headers` are left out, whatever
    their case; the body is always announced by one `content-length` of `body_length` bytes.
    Raises ValueError for a method other than GET and POST, a target that is not an absolute path of
    printable ASCII, and a CR, LF or NUL anywhere.
    """
    if method not in _METHODS or _TARGET.fullmatch(target) is None:
        raise ValueError("the request line holds something that HTTP does not allow")
    lines = [b"%b %b HTTP/1.1" % (method, target), _host_line(host)]
    for name, value in headers:
        wire = _wire_name(name)
        if wire:
            lines.append(wire + value)
    if body_length or method == b"POST":
        lines.append(b"content-length: %d" % body_length)
    ends = len(lines) + 1
    lines += (b"", b"")
    head = b"\r\n".join(lines)
    # One pass over the whole instead of one per value: any CR, LF or NUL beyond ours shows in a count.
    if not head.count(b"\r") == head.count(b"\n") == head.count(b"\r\n") == ends or b"\0" in head:
        raise ValueError("a header value holds CR, LF or NUL")
    return head


class UpstreamResponse:
    """One answer of an engine: status and headers, then the body as it comes.

    `headers` have lower-case names. Read to the end with `read_chunk`, `chunks` or `read_all`, or call
    `abort`; a response given up without either holds its connection until the total deadline.
    One reader at a time. A cancelled read aborts.
    """

    __slots__ = (
        "_buffered", "_connection", "_cutoff", "_ended", "_error", "_loop", "_parts", "_quiet_since", "_started",
        "_total_deadline", "_waiter", "content_type", "headers", "heard", "reused", "sent_at", "status",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, loop: asyncio.AbstractEventLoop, first_byte: float, total: float
    ) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.content_type = b""
        self.reused = False
        self.heard = False
        self.sent_at = self._quiet_since = loop.time()
        self._cutoff = first_byte if first_byte < total else total
        self._total_deadline = total
        self._connection: Connection | None = connection
        self._loop = loop
        self._parts: list[bytes] = []
        self._buffered = 0
        self._waiter: asyncio.Future[None] | None = None
        self._started = False
        self._ended = False
        self._error: UpstreamError | None = None

    async def started(self) -> None:
        """Waits for the first byte of the body or the end of a response without one.

        Raises ResponseFailed, HeadTimeout or BadResponse.
        """
        if not self._parts and not self._ended:
            await self._wait()
        if self._error is not None:
            raise self._error
        self._started = True
        self._cutoff = self._total_deadline

    async def read_chunk(self) -> bytes:
        """Everything that has arrived since the last call (waits for at least a byte); b"" at the clean end.

        Raises StreamBroken when the answer will never be whole, after all that came of it was returned.
        """
        if not self._parts and not self._ended:
            await self._wait()
        parts = self._parts
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            self._buffered = 0
            if self._connection is not None and self._connection.paused:
                self._connection.resume()
            return data
        if self._error is None:
            return b""
        if isinstance(self._error, StreamBroken):
            raise self._error
        raise StreamBroken(str(self._error)) from self._error

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece as it arrives. Raises StreamBroken."""
        while chunk := await self.read_chunk():
            yield chunk

    async def read_all(self, limit: int) -> bytes:
        """The whole body. Raises StreamBroken, and BadResponse (after aborting) when it is over `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        while chunk := await self.read_chunk():
            size += len(chunk)
            if size > limit:
                self.abort()
                raise BadResponse(f"the body is over {limit} bytes")
            parts.append(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def abort(self) -> None:
        """Closes the connection at once, so that the engine sees its client gone. Nothing to do once complete."""
        connection = self._connection
        if connection is not None:
            connection.abort(StreamBroken("aborted by the gateway"))
            self._parts.clear()
            self._buffered = 0

    async def _wait(self) -> None:
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        except asyncio.CancelledError:
            self.abort()
            raise

    def add(self, body: bytes) -> None:
        """Takes body bytes from the connection."""
        self._parts.append(body)
        self._buffered += len(body)

    def advance(self, bound: int) -> bool:
        """Wakes the reader when there is something to read; tells whether more than `bound` bytes wait."""
        waiter = self._waiter
        if waiter is not None and (self._parts or self._ended):
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        return self._buffered > bound

    @property
    def barren(self) -> bool:
        """Nothing to read and not at the end."""
        return not self._parts and not self._ended

    def end(self, error: UpstreamError | None = None) -> None:
        """No more bytes will come: the message is complete, or `error` says why it never will be."""
        self._connection = None
        if not self._ended:
            self._ended = True
            self._error = error
        self.advance(0)

    def overdue(self, now: float, stall_timeout_s: float) -> UpstreamError | None:
        """The timeout that this response has run into, if any. `now` is loop time."""
        if now >= self._cutoff:
            if self._started:
                return StreamTimeout("the answer took longer than its deadline", total=True)
            return HeadTimeout("no first byte in time")
        if self.heard or self._waiter is None or not self._started:
            self.heard = False
            self._quiet_since = now
        elif now - self._quiet_since >= stall_timeout_s:
            return StreamTimeout("the engine went silent", total=False)
        return None


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
        elif response.advance(self._limits.read_buffer_bytes):
            self._pause()
        elif response.barren:
            self._barren_bytes += len(data)
            if self._barren_bytes > self._limits.head_bytes:
                self.abort(BadResponse("the head or the framing is too large"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._parser = None  # breaks the cycle through its bound callbacks
        response = self.response
        if response is not None:
            if response.status:
                why: UpstreamError = ResponseFailed("the connection closed inside the answer")
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
