"""The work queue: keys that ask for a reconcile.

A key is in the queue once, however often it is added (coalescing); it is worked on by one worker at a
time (serialisation), and by at most `workers` keys at once. A failed key comes back after a growing,
jittered delay, while the others go on. Time, sleep and randomness are given, so tests need no waiting.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_DUE_SLACK_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a key may come back, in seconds."""

    first: float = 0.05
    """From a change to the reconcile: what arrives together is worked on together."""
    between: float = 0.2
    """From the start of one reconcile of a key to that of its next."""
    backoff: float = 0.5
    """After the first failure; doubles with each, plus up to half of it at random."""
    backoff_max: float = 60.0


class WorkQueue(Generic[K]):
    """Runs `work(key)` for keys that are due. Use it in one event loop.

    Args:
        work: returns seconds until the key is due again by itself, or None; an exception is a failure,
            told to `failed` before the key is delayed.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        *,
        workers: int = 4,
        pace: Pace | None = None,
        failed: Callable[[K, Exception], None] = lambda _key, _error: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._work = work
        self._workers = workers
        self._pace = pace or Pace()
        self._failed = failed
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._running: set[K] = set()
        self._started: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._changed = asyncio.Event()
        self._draining = False

    def __len__(self) -> int:
        """Keys that wait, whether due or not."""
        return len(self._due)

    @property
    def running(self) -> frozenset[K]:
        """Keys that are worked on now."""
        return frozenset(self._running)

    def depth(self) -> int:
        """Keys that are due and wait for a worker."""
        now = self._clock()
        return sum(due <= now for due in self._due.values())

    def add(self, key: K, after: float | None = None) -> None:
        """Ask for a reconcile after so many seconds (default: the pace's `first`).

        A key that waits keeps the earlier of its times, so a change also ends a failed key's delay.
        """
        now = self._clock()
        delay = self._pace.first if after is None else after
        due = max(now + delay, self._started.get(key, float("-inf")) + self._pace.between)
        if key in self._due and self._due[key] <= due:
            return
        self._put(key, due)

    def forget(self, key: K) -> None:
        """Drop what is remembered of a key that is gone. It may be added again."""
        self._due.pop(key, None)
        self._started.pop(key, None)
        self._failures.pop(key, None)

    async def run(self) -> None:
        """Work until cancelled; cancels what is under way then."""
        async with asyncio.TaskGroup() as group:
            while True:
                key = await self._next()
                self._running.add(key)
                self._started[key] = self._clock()
                group.create_task(self._run_one(key), name=f"reconcile {key}")

    async def drain(self, seconds: float) -> None:
        """Begin nothing more, and wait so long for what is under way."""
        self._draining = True
        deadline = self._clock() + seconds
        while self._running and (left := deadline - self._clock()) > 0:
            self._changed.clear()
            await self._idle(left)

    def _put(self, key: K, due: float) -> None:
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._changed.set()

    async def _next(self) -> K:
        """Waits for a key that is due, is not worked on, and has a worker. Takes it out."""
        while True:
            self._changed.clear()
            wait: float | None = None
            if len(self._running) < self._workers and not self._draining:
                key, wait = self._take()
                if key is not None:
                    return key
            await self._idle(wait)

    async def _idle(self, seconds: float | None) -> None:
        """Until something changed, or so many seconds have passed."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._changed.wait())]
        if seconds is not None:
            waits.append(asyncio.ensure_future(self._sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _take(self) -> tuple[K | None, float | None]:
        """The first due key that no one works on; else seconds until there may be one."""
        now = self._clock()
        held: list[tuple[float, int, K]] = []
        found: K | None = None
        wait: float | None = None
        while self._heap:
            due, _, key = self._heap[0]
            if self._due.get(key) != due:
                heapq.heappop(self._heap)  # added again with another time, or forgotten
                continue
            if due > now + _DUE_SLACK_S:
                wait = due - now
                break
            held.append(heapq.heappop(self._heap))
            if key not in self._running:
                found = key
                held.pop()
                del self._due[key]
                break
        for entry in held:
            heapq.heappush(self._heap, entry)
        return found, wait

    async def _run_one(self, key: K) -> None:
        try:
            again = await self._work(key)
        except Exception as error:  # one key's trouble is not another's
            self._failed(key, error)
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            self._retry(key, self._backoff(failures))
        else:
            self._failures.pop(key, None)
            if again is not None:
                self.add(key, again)
        finally:
            self._running.discard(key)
            self._changed.set()

    def _retry(self, key: K, delay: float) -> None:
        due = self._clock() + delay
        if key not in self._due or self._due[key] > due:
            self._put(key, due)

    def _backoff(self, failures: int) -> float:
        pace = self._pace
        grown = min(pace.backoff_max, pace.backoff * 2.0 ** min(failures - 1, 30))
        return min(pace.backoff_max, grown * (1.0 + self._rng.random() / 2))
