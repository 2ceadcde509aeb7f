"""What each request has used, by the id that the gateway gave it: asked for when an answer was cut.

A stream tells its usage in its last event, and an answer that was cut has none. But the engine knows at any
moment what it has made for a request. That is kept here while the request runs and for a while after; it
costs an engine a few microseconds per request and nothing per token, for what counts is vLLM's own count.

Which request the engine is at work for is told by a context variable, not by vLLM's request ids: only some
endpoints make those of the caller's `x-request-id`, and one request may become several (`n`, lists of
prompts).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tradewind.api.headers import REQUEST_ID

if TYPE_CHECKING:
    from tradewind.engine.app import ASGIApp, Receive, Scope, Send

KEPT = 10_000
"""Requests remembered after their end; some 3 MB."""
KEPT_S = 600.0
"""For so long, as an engine may be done with an answer long before a slow reader is cut."""
SETTLE_S = 0.8
"""Longest wait for a request that still runs: its abort may be on the way."""
_LOOK_S = 0.01

_HEADER = REQUEST_ID.encode()
_GATEWAYS_ID = re.compile(rb"req_[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class RequestUsage:
    """What `GET <prefix>/tradewind/usage/<id>` answers. None: nothing of that kind was begun."""

    input_tokens: int | None
    """All tokens of the prompts, from a cache or not; counted when the engine took the request."""
    output_tokens: int | None
    running: bool
    """There may be more to come."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CountedSequence:
    """One sequence in the engine."""

    prompt_tokens: int
    """0 when a sequence beside it has the same prompt, and counts it."""
    produced: Callable[[], int] | None
    """Tokens so far. None: it makes none (an embedding, a score)."""
    running: Callable[[], bool]


class _Entry:
    """One request: its sequences, or once nothing runs any more their sums."""

    __slots__ = ("ended", "open", "replaced", "sequences", "sums")

    def __init__(self) -> None:
        self.sequences: list[CountedSequence] = []
        self.sums: tuple[int | None, int | None] | None = None
        self.open = True
        self.replaced = False
        self.ended = 0.0

    def read(self) -> RequestUsage:
        if self.sums is not None:
            return RequestUsage(*self.sums, running=False)
        making = [each.produced() for each in self.sequences if each.produced is not None]
        return RequestUsage(
            sum(each.prompt_tokens for each in self.sequences) if self.sequences else None,
            sum(making) if making else None,
            running=self.open or any(each.running() for each in self.sequences),
        )

    def settle(self) -> None:
        """Keep the sums alone, when they are final: a sequence holds on to what vLLM knows of it."""
        usage = self.read()
        if not usage.running:
            self.sums = (usage.input_tokens, usage.output_tokens)
            self.sequences = []


_current: ContextVar[_Entry | None] = ContextVar("tradewind_request", default=None)


class UsageLog:
    """Usage of the requests that run or ended lately, bounded in number and time. For one event loop."""

    def __init__(
        self, *, kept: int = KEPT, kept_s: float = KEPT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kept = kept
        self._kept_s = kept_s
        self._clock = clock
        self._running: dict[str, _Entry] = {}
        self._ended: dict[str, _Entry] = {}  # oldest first

    def __len__(self) -> int:
        """Requests that it knows of."""
        return len(self._running) + len(self._ended)

    def counting(self, app: ASGIApp) -> ASGIApp:
        """The ASGI application `app`, with the sequences that it starts counted for the request they are for.

        Only of requests whose `x-request-id` is a gateway's.
        """

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            request = _gateways_id(scope)
            if request is None:
                await app(scope, receive, send)
                return
            entry = self._begin(request)
            token = _current.set(entry)
            try:
                await app(scope, receive, send)
            finally:
                _current.reset(token)
                self._end(request, entry)

        return counted

    def add(self, sequence: CountedSequence) -> None:
        """A sequence begins, in the context of the request that it is for."""
        entry = _current.get()
        if entry is not None:
            entry.sequences.append(sequence)

    def read(self, request: str) -> RequestUsage | None:
        """What the request has used so far. None: never heard of it, or too long ago."""
        entry = self._running.get(request)
        if entry is None:
            entry = self._ended.get(request)
            if entry is None or self._clock() - entry.ended > self._kept_s:
                return None
        return entry.read()

    async def settled(self, request: str, within_s: float = SETTLE_S) -> RequestUsage | None:
        """As `read`, but waits for a request that runs to end, `within_s` at most."""
        deadline = self._clock() + within_s
        while True:  # looked at now and then: vLLM drops a sequence without telling anyone
            usage = self.read(request)
            if usage is None or not usage.running or self._clock() >= deadline:
                return usage
            await asyncio.sleep(_LOOK_S)

    def _begin(self, request: str) -> _Entry:
        """The same id again is a request that was sent a second time: only that one's answer counts."""
        before = self._running.get(request)
        if before is not None:
            before.replaced = True
        self._ended.pop(request, None)
        entry = self._running[request] = _Entry()
        return entry

    def _end(self, request: str, entry: _Entry) -> None:
        entry.open = False
        if entry.replaced:
            return
        entry.settle()
        entry.ended = now = self._clock()
        del self._running[request]
        self._ended[request] = entry
        while self._ended:
            oldest = next(iter(self._ended))
            if len(self._ended) <= self._kept and now - self._ended[oldest].ended <= self._kept_s:
                break
            del self._ended[oldest]


def _gateways_id(scope: Scope) -> str | None:
    for name, value in scope.get("headers", ()):
        if name == _HEADER:
            return value.decode("ascii") if _GATEWAYS_ID.fullmatch(value) else None
    return None
