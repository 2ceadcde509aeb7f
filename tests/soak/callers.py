"""Callers of every kind that go on until they are told to end, in a process of their own.

`python -m tests.soak.callers` reads a `Cast` as one line of JSON and asks; every second it prints what became
of all requests so far as a line of JSON. When its input ends, each caller finishes what it has begun.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from enum import StrEnum
from typing import Final, cast

import httptools
import msgspec
import uvloop

from tests.bench.load import CHAT_PATH

_ANSWER_S: Final = 120.0
_AGAIN_S: Final = 0.5
"""Before a caller that could not connect tries again."""
_RENEWS: Final = 0.1
"""Share of requests after which a caller takes a new connection."""
_SLOW_BYTES: Final = 4_096
_SLOW_S: Final = 0.3
_LARGE: Final = "The ships come home when the wind turns. " * 3_000
_DONE: Final = b"data: [DONE]"
_ERROR: Final = b'data: {"error"'
_TAIL: Final = 512
"""Bytes of the end of an answer in which its last event is looked for."""


class Kind(StrEnum):
    """What a request is like."""

    STREAM = "stream"
    WHOLE = "whole"
    LARGE = "large"
    """A prompt of 120 KB, streamed."""
    LEAVES = "leaves"
    """The caller goes somewhere in the middle."""
    SLOW = "slow"
    """The caller takes a few kilobytes at a time."""
    WRONG = "wrong"
    """No answer but a refusal is due."""


SHARES: Final = {Kind.STREAM: 62, Kind.WHOLE: 10, Kind.LARGE: 3, Kind.LEAVES: 15, Kind.SLOW: 5, Kind.WRONG: 5}
REFUSAL: Final = 404


class Fate(StrEnum):
    """What became of it."""

    ANSWERED = "answered"
    FAILED = "failed"
    """An error event ended the stream."""
    REFUSED = "refused"
    """A status with an error object instead of an answer."""
    LEFT = "left"
    """By the caller's own choice."""
    CUT = "cut"
    """A stream ended, and nothing said why."""
    LOST = "lost"
    """The connection ended before an answer began."""


class Cast(msgspec.Struct):
    """Who asks for what."""

    port: int
    key: str
    callers: int
    host: str = "127.0.0.1"
    model: str = "bench"
    tokens: int = 128
    """Of the longest answers; others are shorter."""
    seed: int = 0


class _Caller(asyncio.Protocol):
    """One connection and the answer that comes on it."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.expect(slow=False, leaves_after=0)

    def expect(self, *, slow: bool, leaves_after: int) -> None:
        self.status, self.size, self.tail = 0, 0, b""
        self.whole = self.left = self.streams = False
        self._slow, self._leaves_after, self._since_pause = slow, leaves_after, 0
        self._parser = httptools.HttpResponseParser(self)
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.streams = value.startswith(b"text/event-stream")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.size += len(body)
        self.tail = (self.tail + body)[-_TAIL:]
        assert self.transport is not None
        if self._leaves_after and self.size >= self._leaves_after:
            self.left = True
            self.transport.abort()
        self._since_pause += len(body)
        if self._slow and self._since_pause >= _SLOW_BYTES:
            self._since_pause = 0
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(_SLOW_S, self._read_on)

    def on_message_complete(self) -> None:
        self.whole = True
        if not self._parser.should_keep_alive():
            self.closed = True
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._end()

    @property
    def fate(self) -> Fate:
        if self.left:
            return Fate.LEFT
        if not self.status:
            return Fate.LOST
        if self.status != 200:
            return Fate.REFUSED if self.whole else Fate.CUT
        if not self.streams:
            return Fate.ANSWERED if self.whole else Fate.CUT
        if _DONE in self.tail and self.whole:
            return Fate.ANSWERED
        return Fate.FAILED if _ERROR in self.tail else Fate.CUT

    def _read_on(self) -> None:
        if self.transport is not None and not self.closed:
            self.transport.resume_reading()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Callers:
    """All callers of one cast."""

    def __init__(self, cast: Cast) -> None:
        self._cast = cast
        self._random = random.Random(cast.seed)
        self.told: Counter[str] = Counter()
        """How many requests by `kind fate`, and `kind refused status`."""
        self._ends = False

    def stop(self) -> None:
        """Begin nothing more."""
        self._ends = True

    async def run(self) -> None:
        """Ask until `stop`."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._cast.callers):
                group.create_task(self._ask_on())

    async def _ask_on(self) -> None:
        caller: _Caller | None = None
        while not self._ends:
            if caller is None or caller.closed or self._random.random() < _RENEWS:
                caller = await self._connect(caller)
                if caller is None:
                    continue
            await self._ask(caller)
        if caller is not None and caller.transport is not None:
            caller.transport.close()

    async def _connect(self, before: _Caller | None) -> _Caller | None:
        if before is not None and before.transport is not None:
            before.transport.close()
        loop = asyncio.get_running_loop()
        try:
            return (await loop.create_connection(_Caller, self._cast.host, self._cast.port))[1]
        except OSError:
            self.told["connection refused"] += 1
            await asyncio.sleep(_AGAIN_S)
            return None

    async def _ask(self, caller: _Caller) -> None:
        kind = self._random.choices(list(SHARES), list(SHARES.values()))[0]
        leaves_after = self._random.randrange(1, 12_000) if kind is Kind.LEAVES else 0
        caller.expect(slow=kind is Kind.SLOW, leaves_after=leaves_after)
        assert caller.transport is not None
        caller.transport.write(self._request(kind))
        try:
            await asyncio.wait_for(caller.ended, _ANSWER_S)
        except TimeoutError:
            self.told[f"{kind} late"] += 1
            caller.transport.abort()
            caller.closed = True
            return
        fate = caller.fate
        status = f" {caller.status}" if fate is Fate.REFUSED else ""
        self.told[f"{kind} {fate}{status}"] += 1

    def _request(self, kind: Kind) -> bytes:
        body = {
            "model": "nobody" if kind is Kind.WRONG else self._cast.model,
            "messages": [{"role": "user", "content": _LARGE if kind is Kind.LARGE else "Count the ships."}],
            "max_tokens": self._random.randrange(8, self._cast.tokens + 1),
            "stream": kind is not Kind.WHOLE,
            "user": f"user-{self._random.randrange(1_000)}",
        }
        data = json.dumps(body).encode()
        head = (
            f"POST {CHAT_PATH} HTTP/1.1\r\nhost: {self._cast.host}:{self._cast.port}\r\n"
            f"authorization: Bearer {self._cast.key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


async def _run(cast: Cast) -> None:
    loop = asyncio.get_running_loop()
    callers = Callers(cast)
    told = loop.run_in_executor(None, sys.stdin.readline)
    told.add_done_callback(lambda _: callers.stop())
    running = asyncio.create_task(callers.run())
    while not running.done():
        await asyncio.wait([running], timeout=1.0)
        print(json.dumps(callers.told), flush=True)
    await running


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.readline(), type=Cast)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(plan))


if __name__ == "__main__":
    main()
