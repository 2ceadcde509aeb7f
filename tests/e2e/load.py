"""Streamed questions at a steady rate, by a client that never asks twice, and what became of each.

with under_load(url, key) as load:
    load.until(20)          # answers
    ...                     # something fails
assert load.told == {"answered": 240}
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.bed.images import say

RATE = 3.0
"""Requests that begin in a second."""
TOKENS = 8
LIMIT_S = 120.0
"""How long one answer may take."""
MOST = 4_000
"""Requests of one load: a test that hangs does not go on for ever."""
LATE_S = 5.0
"""A caller that was held up for so long between its connection and its request says nothing of who answers:
the gateway closes a connection without a request after 15 s."""
LATE_SHARE = 0.1
"""Where more than that were held up, the load was none."""


@dataclass(frozen=True)
class Fate:
    """What became of one request."""

    began: float
    """Seconds since the load began."""
    took: float
    what: str
    """answered: to its end; failed: an error event ended the stream; cut: nothing did; lost: no answer began;
    late: as lost, and the caller itself was `LATE_S` late; a number: the status of a refusal."""
    said: str = ""


@dataclass
class Load:
    """Requests that go on in a thread of their own until `stop`."""

    url: str
    key: str
    model: str = "chat"
    rate: float = RATE
    tokens: int = TOKENS
    kept: int = 0
    """How many callers keep their connection between requests and take turns; 0: a connection each time."""
    fates: list[Fate] = field(default_factory=list)
    _ends: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _started: float = field(default_factory=time.monotonic)
    _callers: list[httpx.AsyncClient] = field(default_factory=list)

    def start(self) -> None:
        """Begin to ask."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask_on()), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more, and wait for the answers that are due."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join(LIMIT_S + 30)
            assert not self._thread.is_alive(), "a request had no end"

    @property
    def told(self) -> dict[str, int]:
        """How many requests had which fate."""
        return dict(Counter(fate.what for fate in self.fates))

    @property
    def unhappy(self) -> list[Fate]:
        """Those that were not answered to the end, in order."""
        return [fate for fate in sorted(self.fates, key=lambda fate: fate.began) if fate.what != "answered"]

    def now(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started

    def until(self, answers: int, timeout_s: float = 120.0) -> None:
        """Wait for so many more answers, whatever else happens to others. Raises AssertionError."""
        wanted, deadline = self._answers() + answers, time.monotonic() + timeout_s
        while self._answers() < wanted:
            assert time.monotonic() < deadline, f"no {answers} answers in {timeout_s:.0f} s: {self.summary()}"
            time.sleep(0.1)

    def longest_gap_s(self, since: float = 0.0) -> float:
        """The longest time in which no answer ended, from `since` (seconds of the load) on."""
        ends = [since, *sorted(f.began + f.took for f in self.fates if f.what == "answered")]
        ends = [end for end in ends if end >= since]
        return max((after - before for before, after in itertools.pairwise(ends)), default=0.0)

    def summary(self) -> str:
        """One line for a person, and a line for each of the first that went wrong."""
        lines = [f"{len(self.fates)} requests: {self.told}"]
        lines += [f"  at {f.began:.1f} s, {f.took:.1f} s long: {f.what} {f.said}" for f in self.unhappy[:12]]
        return "\n".join(lines)

    def _answers(self) -> int:
        return sum(fate.what == "answered" for fate in self.fates)

    async def _ask_on(self) -> None:
        # What starts in the cluster uses every core, and callers are elsewhere as a rule.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -10)
        self._callers = [_caller(httpx.Limits(keepalive_expiry=None)) for _ in range(self.kept)]
        running: set[asyncio.Task[None]] = set()
        number = 0
        while not self._ends.is_set() and number < MOST:
            task = asyncio.create_task(self._ask(number))
            running.add(task)
            task.add_done_callback(running.discard)
            number += 1
            await asyncio.sleep(max(0.0, number / self.rate - self.now()))
        await asyncio.gather(*running)
        for caller in self._callers:
            await caller.aclose()

    async def _ask(self, number: int) -> None:
        began = self.now()
        what, said = await self._fate(number)
        self.fates.append(Fate(began, self.now() - began, what, said))

    async def _fate(self, number: int) -> tuple[str, str]:
        body = {
            "model": self.model,
            "stream": True,
            "max_tokens": self.tokens,
            "messages": [{"role": "user", "content": f"Count from {number}."}],
        }
        if self.kept:
            return await self._sent(self._callers[number % self.kept], body)
        # A connection each: one that is kept ends in the very gateway that a test takes away.
        async with _caller(httpx.Limits()) as caller:
            return await self._sent(caller, body)

    async def _sent(self, caller: httpx.AsyncClient, body: dict[str, Any]) -> tuple[str, str]:
        headers = {"authorization": f"Bearer {self.key}"}
        fate, steps = ("lost", ""), _Steps()
        try:
            async with caller.stream(
                "POST",
                f"{self.url}/v1/chat/completions",
                json=body,
                headers=headers,
                extensions={"trace": steps.note},
            ) as answer:
                if answer.status_code != httpx.codes.OK:
                    return str(answer.status_code), (await answer.aread()).decode(errors="replace")[:300]
                # To its end, or the connection could not be kept.
                async for line in answer.aiter_lines():
                    if line == "data: [DONE]":
                        fate = "answered", ""
                    elif line.startswith("data: ") and "error" in json.loads(line[6:]):
                        fate = "failed", line[6:300]
                    elif fate[0] == "lost":
                        fate = "cut", "the connection ended"
        except httpx.HTTPError as error:
            what = "late" if fate[0] == "lost" and steps.held_up_s > LATE_S else fate[0]
            return fate if what in ("answered", "failed") else (what, repr(error))
        return fate


class _Steps:
    """When one request connected, and when it was sent."""

    def __init__(self) -> None:
        self._connected = 0.0
        self.held_up_s = 0.0
        """From the connection to the end of the request, however far it came."""

    async def note(self, event: str, info: Mapping[str, Any]) -> None:
        """What httpx calls as a request goes on."""
        if event == "connection.connect_tcp.complete":
            self._connected = time.monotonic()
        elif self._connected and event.startswith("http11.send_request"):
            self.held_up_s = time.monotonic() - self._connected


def _caller(limits: httpx.Limits) -> httpx.AsyncClient:
    # Without `verify` each would read the machine's certificates, which takes 30 ms; nothing here is HTTPS.
    return httpx.AsyncClient(timeout=LIMIT_S, trust_env=False, limits=limits, verify=False)


@contextmanager
def under_load(
    url: str, key: str, *, model: str = "chat", rate: float = RATE, tokens: int = TOKENS, kept: int = 0
) -> Iterator[Load]:
    """Requests go on within; ten have been answered before it begins, and all have ended after it."""
    load = Load(url, key, model, rate, tokens, kept)
    load.start()
    try:
        load.until(10)
        yield load
    finally:
        load.stop()
        say(load.summary())


def nothing_lost(load: Load, *, may_fail: bool = False) -> None:
    """Every request was answered; where `may_fail`, an error event may have ended streams that had begun.

    Raises:
        AssertionError: with what became of the others.
    """
    late = load.told.get("late", 0)
    assert late <= LATE_SHARE * len(load.fates), load.summary()
    excused = {"late", "failed"} if may_fail else {"late"}
    bad = [fate for fate in load.unhappy if fate.what not in excused]
    assert bad == [], load.summary()
    print(f"{load.told}; longest time without an answer {load.longest_gap_s():.1f} s")
