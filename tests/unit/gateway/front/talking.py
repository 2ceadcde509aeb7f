"""A listener on loopback whose handler echoes, and bytes to and from it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tradewind.api.wire import RequestLimits
from tradewind.gateway.app import Gateway
from tradewind.gateway.front.context import Context
from tradewind.gateway.front.limits import FrontLimits
from tradewind.gateway.front.listener import Listener
from tradewind.gateway.head import read_head
from tradewind.gateway.problems import ClientGone, Refused, Rendered, render

HOST = b"host: gateway\r\n"
RECEIVE_BUFFER = 64 * 1024
QUIET_S = 0.3
"""How long nothing may come before an answer counts as all there is."""


@dataclass
class Echo:
    """Answers with the method, the path and the body, and remembers every request."""

    limits: RequestLimits = field(default_factory=RequestLimits)
    seen: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    gone: int = 0
    cancelled: int = 0
    hold: asyncio.Event | None = None
    """Answers wait for it."""
    reads: bool = True
    checks: bool = False
    """Heads are checked as the gateway checks them."""

    async def handle(self, context: Context) -> None:
        try:
            if self.checks:
                read_head(context.headers, context.version, self.limits)
            body = await context.body(self.limits) if self.reads else b""
            if self.hold is not None:
                await self.hold.wait()
        except Refused as refused:
            status, headers, text = refuse(refused)
            context.begin(status, headers, len(text), close=refused.close)
            context.end(text)
            return
        except ClientGone:
            self.gone += 1
            return
        except asyncio.CancelledError:
            self.cancelled += 1
            assert context.gone
            raise
        self.seen.append((context.method, context.path, body))
        if context.path == b"/stream":
            context.begin(200, [(b"content-type", b"text/plain")])
            for piece in (b"one ", b"two "):
                context.write(piece)
                await asyncio.sleep(0)
            context.end(b"three")
            return
        text = context.method + b" " + context.path + b" " + body
        context.begin(200, [(b"content-type", b"text/plain")], len(text))
        context.end(text)


def refuse(refused: Refused) -> Rendered:
    return render(refused, "req_1", "openai")


@asynccontextmanager
async def listening(
    echo: Echo, limits: FrontLimits | None = None, clock: list[float] | None = None
) -> AsyncIterator[tuple[Listener, int]]:
    """The listener and its port; `clock` holds the seconds that it believes in."""
    async with _opened(lambda: Listener(echo.handle, refuse, limits, _seconds(clock))) as opened:
        yield opened


@asynccontextmanager
async def heard(
    gateway: Gateway, limits: FrontLimits | None = None, clock: list[float] | None = None
) -> AsyncIterator[tuple[Listener, int]]:
    """A listener in front of a gateway, and its port."""
    async with _opened(lambda: Listener(gateway.handle, gateway.refuse, limits, _seconds(clock))) as opened:
        yield opened


def _seconds(clock: list[float] | None) -> Callable[[], float] | None:
    return None if clock is None else lambda: clock[0]


@asynccontextmanager
async def _opened(make: Callable[[], Listener]) -> AsyncIterator[tuple[Listener, int]]:
    with socket.socket() as sock:
        # Small, so that what can be sent is little more than what is read.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(("127.0.0.1", 0))
        listener = make()
        await listener.start(sock)
        try:
            yield listener, sock.getsockname()[1]
        finally:
            await listener.drain(1)
    await until(lambda: not listener.open)
    assert listener.held == 0


async def talk(port: int, *parts: bytes, pause_s: float = 0.01) -> tuple[bytes, bool]:
    """What comes back for `parts`, sent one after another, and whether the other side closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(pause_s)
            writer.write(part)
        return await hear(reader)
    finally:
        writer.close()


async def hear(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """All that comes until nothing does, and whether the other side closed."""
    heard = b""
    while True:
        try:
            async with asyncio.timeout(QUIET_S):
                data = await reader.read(65_536)
        except TimeoutError:
            return heard, False
        except ConnectionResetError:
            return heard, True
        if not data:
            return heard, True
        heard += data


async def until(condition: Callable[[], object], within_s: float = 30) -> None:
    """Looks every millisecond. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.001)
