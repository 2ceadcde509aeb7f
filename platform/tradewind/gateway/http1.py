"""HTTP/1.1 as the gateway speaks it to engines: request heads, responses, bounds, what can go wrong.

Errors::

    UpstreamError
    ├── ConnectFailed     no connection: nothing was sent, any retry is safe
    ├── OutOfResources    this side is short of files, ports or memory: nothing is known of the other
    ├── ResponseFailed    the connection died before the first byte of an answer's body
    ├── HeadTimeout       no first byte of an answer in time
    ├── BadResponse       what came is not an HTTP response we accept
    └── StreamBroken      the answer had begun and will not be whole
        └── StreamTimeout it went silent, or took longer than allowed
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

_METHODS = frozenset((b"GET", b"POST"))
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"/[\x21-\x7e]*")
_HOST = re.compile(r"([0-9A-Za-z.\-_]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_REBUILT = frozenset(
    b"connection content-length expect host keep-alive proxy-authenticate proxy-authorization"
    b" proxy-connection te trailer transfer-encoding upgrade".split()
)


class UpstreamError(Exception):
    """An engine replica could not be asked or did not answer whole. The text is for logs, not for clients."""


class ConnectFailed(UpstreamError):
    """No connection was made, so nothing was sent.

    `refused`: the port is closed (the replica is gone), as opposed to slow or unreachable.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class OutOfResources(UpstreamError):
    """This process or machine has run short of something that a connection needs. No replica is at fault."""


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


Sink = Callable[[bytes], bool]
"""Takes what has arrived; tells whether it wants no more for now."""


class Carrier(Protocol):
    """What a response needs of the connection that carries it."""

    paused: bool

    def resume(self) -> None:
        """Reads on after a pause."""

    def abort(self, error: UpstreamError) -> None:
        """Closes at once and ends the response with `error`."""


class UpstreamResponse:
    """One answer of an engine: status and headers, then the body as it comes.

    `headers` have lower-case names. Read to the end with `deliver`, `read_chunk`, `chunks` or `read_all`, or
    call `abort`; a response given up without either holds its connection until the total deadline.
    One reader at a time. A cancelled read aborts.
    """

    __slots__ = (
        "_buffered", "_choked", "_connection", "_cutoff", "_ended", "_error", "_loop", "_parts",
        "_quiet_since", "_sink", "_sink_failed", "_started", "_total_deadline", "_waiter", "content_type",
        "headers", "heard", "reused", "sent_at", "status",
    )  # fmt: skip

    def __init__(
        self, connection: Carrier, loop: asyncio.AbstractEventLoop, first_byte: float, total: float
    ) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.content_type = b""
        self.reused = False
        self.heard = False
        self.sent_at = self._quiet_since = loop.time()
        self._cutoff = first_byte if first_byte < total else total
        self._total_deadline = total
        self._connection: Carrier | None = connection
        self._loop = loop
        self._parts: list[bytes] = []
        self._buffered = 0
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._sink_failed: Exception | None = None
        self._choked = False
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
        if self._parts:
            data = self._take()
            self._resume()
            return data
        self._raise_error()
        return b""

    async def deliver(self, sink: Sink, drained: Callable[[], Awaitable[None]]) -> None:
        """Hand everything that arrives to `sink`, from where it arrives: no task wakes up for a chunk.

        Nothing is read from the engine after `sink` said True, until `drained` returns. Returns at the clean
        end. Raises what either raises, and StreamBroken when the answer will never be whole, after all that
        came of it was handed on.
        """
        self._sink = sink
        self._hand_on()
        while True:
            if self._sink_failed is not None:
                raise self._sink_failed
            if self._ended:
                break
            if self._choked:
                await drained()
                self._choked = False
                self._resume()
            else:
                await self._wait()
        self._raise_error()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, piece by piece as it arrives. Raises StreamBroken."""
        while chunk := await self.read_chunk():
            yield chunk

    async def read_all(self, limit: int) -> bytes:
        """The whole body. Raises StreamBroken, and BadResponse (and aborts) over `limit` bytes."""
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
        """Closes the connection at once: the engine sees its client gone. Does nothing once complete."""
        connection = self._connection
        if connection is not None:
            connection.abort(StreamBroken("aborted by the gateway"))
            self._parts.clear()
            self._buffered = 0

    def _take(self) -> bytes:
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._buffered = 0
        return data

    def _resume(self) -> None:
        if self._connection is not None and self._connection.paused:
            self._connection.resume()

    def _raise_error(self) -> None:
        if self._error is None:
            return
        if isinstance(self._error, StreamBroken):
            raise self._error
        raise StreamBroken(str(self._error)) from self._error

    def _hand_on(self) -> bool:
        """Gives the sink what is here; tells whether it wants no more for now."""
        if self._parts and self._sink is not None and self._sink_failed is None:
            try:
                self._choked = self._sink(self._take())
            except Exception as error:  # belongs to whoever awaits `deliver`, not to the event loop
                self._sink_failed = error
        return self._choked or self._sink_failed is not None

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
        """Wakes the reader when there is something for it; tells whether reading should pause.

        That is when more than `bound` bytes wait for a reader, or when a sink wants no more.
        """
        if self._sink is None:
            wanted, pause = bool(self._parts), self._buffered > bound
        else:
            wanted = pause = self._hand_on()
        waiter = self._waiter
        if waiter is not None and (wanted or self._ended):
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        return pause

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
