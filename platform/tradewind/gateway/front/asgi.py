"""A second way in: the gateway as an ASGI application, for servers that have a listener of their own.

The server's task handles the request. Another one begins with a stream, and hands on to the server what the
handler writes; one begins when the body is read, and sees the caller leave.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from tradewind.api.wire import RequestLimits
from tradewind.gateway.app import Gateway
from tradewind.gateway.front import wire
from tradewind.gateway.front.context import Amend, too_large, too_late
from tradewind.gateway.problems import ClientGone, Header

_log = logging.getLogger(__name__)

_AHEAD: Final = 16
"""Messages that may wait for the server before whoever writes is asked to pause."""

Scope = Mapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class GatewayASGI:
    """ASGI 3 application of a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        kind = scope["type"]
        if kind == "http":
            context = AsgiContext(scope, receive, send)
            await context.serve(self._gateway.handle)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1003})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._gateway.startup()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._gateway.shutdown()
                await send({"type": "lifespan.shutdown.complete"})
                return


class AsgiContext:
    """A `Context` made of an ASGI server's scope and callables."""

    __slots__ = (
        "_ended", "_handler", "_more", "_queue", "_receive", "_send", "_sender", "_sent", "_unread",
        "_watcher", "amend", "gone", "head_only", "headers", "method", "path", "version",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: bytes = scope["method"].encode("latin-1")
        self.path = _raw_path(scope)
        self.headers: list[Header] = list(scope["headers"])
        self.version: str = scope.get("http_version", "1.1")
        self.head_only = self.method == b"HEAD"
        self.amend: Amend | None = None
        self.gone = False
        self._receive = receive
        self._send = send
        self._unread = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in self.headers
        )
        self._queue: deque[Message] = deque()
        self._ended = False
        self._handler: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        self._sent = asyncio.Event()

    async def serve(self, handle: Callable[[AsgiContext], Awaitable[None]]) -> None:
        """Returns when the request is handled and the server has the answer, or the caller is gone.

        An answer that has no end makes the server close the connection.
        """
        self._handler = asyncio.current_task()
        try:
            await handle(self)
            self._handler = None  # whoever leaves now cancels nothing
            if self._sender is not None and self._ended:
                await self._sender
            elif self._sender is None:
                await self._send_queued()
        except OSError:
            self.gone = True
        except asyncio.CancelledError:
            # The server may want this task to end, whether or not the caller left in the same moment.
            task = asyncio.current_task()
            if not self.gone or task is None or task.uncancel():
                raise
        finally:
            self._handler = None
            for other in (self._watcher, self._sender):
                if other is not None:
                    other.cancel()

    # What a handler calls: see Context.

    async def body(self, limits: RequestLimits) -> bytes:
        """At most `limits.body_bytes` plus one message of the server's are held."""
        announced = next((value for name, value in self.headers if name == b"content-length"), b"0")
        if int(announced) > limits.body_bytes:
            raise too_large(limits.body_bytes)
        try:
            async with asyncio.timeout(limits.body_timeout_s):
                body = await self._read(limits.body_bytes)
        except TimeoutError:
            raise too_late(limits.body_timeout_s) from None
        self._unread = False
        self._watcher = asyncio.create_task(self._watch())
        return body

    def let_body_go(self) -> None:
        """Nothing of it is held here."""

    def begin(
        self, status: int, headers: list[Header], length: int = wire.NO_LENGTH, *, close: bool = False
    ) -> None:
        """Of an answer without a length at once, else with its end."""
        if self.gone:
            raise ClientGone
        headers = list(headers) if self.amend is None else self.amend(headers)
        if length >= 0 and status not in wire.BODILESS:
            headers.append((b"content-length", b"%d" % length))
        if close or self._unread:
            headers.append((b"connection", b"close"))
        self._queue.append({"type": "http.response.start", "status": status, "headers": headers})
        if length < 0:
            self._sender = asyncio.create_task(self._send_on())

    def write(self, data: bytes) -> None:
        """One message to the server."""
        if data and not self.head_only:
            self._put(data, more=True)

    def end(self, data: bytes = b"") -> None:
        """The last message."""
        self._put(b"" if self.head_only else data, more=False)
        self._ended = True

    def abort(self) -> None:
        """What the server was not given yet, it is never given."""
        self._ended = False
        self._queue.clear()
        if self._sender is not None:
            self._sender.cancel()

    @property
    def paused(self) -> bool:
        """The server takes less than is written."""
        return len(self._queue) >= _AHEAD

    async def drained(self) -> None:
        """Wait until the server has taken everything."""
        if self._sender is not None and not self.gone:
            await self._sent.wait()

    # Own steps.

    async def _read(self, limit: int) -> bytes:
        message = await self._receive()
        body: bytes | bytearray = message.get("body", b"")
        while True:
            if message["type"] != "http.request":
                self.gone = True
                raise ClientGone
            if len(body) > limit:
                raise too_large(limit)
            if not message.get("more_body", False):
                return bytes(body)
            message = await self._receive()
            body = bytearray(body) if isinstance(body, bytes) else body
            body += message.get("body", b"")

    async def _watch(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except Exception as error:  # a server that cannot tell any more; it will cancel the task instead
            _log.debug("receiving failed: %s", type(error).__name__)
            return
        self._leave()

    def _leave(self) -> None:
        """The caller is gone. A server may report the end of an answer as that, too."""
        if self._ended or self.gone:
            return
        self.gone = True
        self._sent.set()
        if self._handler is not None:
            self._handler.cancel()

    def _put(self, data: bytes, *, more: bool) -> None:
        if not self.gone:
            self._queue.append({"type": "http.response.body", "body": data, "more_body": more})
            self._sent.clear()
            self._more.set()

    async def _send_queued(self) -> None:
        while self._queue:
            await self._send(self._queue[0])
            if self._queue:
                self._queue.popleft()

    async def _send_on(self) -> None:
        """Until the end of the answer. A message counts as waiting until the server has taken it."""
        try:
            while True:
                await self._send_queued()
                self._sent.set()
                if self._ended:
                    return
                self._more.clear()
                await self._more.wait()
        except OSError:
            self._leave()
        except Exception as error:  # a server's own; nothing more can be sent by it
            _log.error("sending failed: %s", type(error).__name__)
            self._leave()


def _raw_path(scope: Scope) -> bytes:
    """The path as sent, before any decoding: what a server made of it is not trusted."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        raw = scope["path"].encode()
    return raw.partition(b"?")[0]
