"""Asks every replica for its load, twice a second, and tells who does not answer.

One task per replica, so that a slow one delays no other. What counts as failed: a refused connection
at once; silence for `silence_s` (a stopped process holds its port open and says nothing); anything else
(an error status, a body that is not EngineStats) twice in a row. What keeps this side from asking (no file
left, a process that was stopped itself) tells nothing about a replica: its silence counts anew from then on.

Each probe tells the replica what this gateway would have of it, and gets its share of the replica's bound.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import msgspec

from tradewind.api.headers import ENGINE_STATS_PATH, ENGINE_TOKEN, GATEWAY_WANTS
from tradewind.gateway.upstream import (
    ConnectFailed,
    HeadTimeout,
    OutOfResources,
    StreamTimeout,
    Upstream,
    UpstreamError,
    request_head,
)

_BODY_LIMIT = 64 * 1024
_OTHER_FAILURES = 2
_CLOCK_SLACK_S = 0.01  # a probe that was given just the rest of the silence may end a rounding error early


class AdapterStats(msgspec.Struct, frozen=True):
    """How a replica has one LoRA adapter."""

    state: Literal["loading", "ready", "failed"]
    message: str = ""


class EngineStats(msgspec.Struct, frozen=True):
    """GET <prefix>/tradewind/stats of a replica. Unknown fields are ignored."""

    model: str
    family: str = "other"
    task: str = "generate"
    context_length: int | None = None
    running: int = 0
    """Requests being decoded."""
    waiting: int = 0
    """Requests the engine has queued."""
    kv_cache_use: float = 0.0
    """0 to 1."""
    tokens_generated: int = 0
    """Grows only."""
    healthy: bool = True
    """False when the engine itself says that it makes no progress."""
    adapters: dict[str, AdapterStats] = {}
    """By name in the deployment."""
    version: str = ""
    room: int | None = None
    """Requests that the gateway that asked may have on it; None: it does not divide what it takes."""


class FailureReason(StrEnum):
    REFUSED = "refused"
    """Nothing listens there any more."""
    TIMEOUT = "timeout"
    """It listens and does not answer."""
    BAD_ANSWER = "bad_answer"
    """It answers something else than stats, or breaks off."""
    NOT_ASKED = "not_asked"
    """This side could not ask."""


@dataclass(frozen=True, slots=True)
class Target:
    """A replica to probe. `id` is what the callbacks get; `prefix` is the engine's route prefix."""

    id: str
    host: str
    port: int
    prefix: str


class ProbeFailed(Exception):
    """One probe brought no stats."""

    def __init__(self, reason: FailureReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


Fetch = Callable[[Target, float, int], Awaitable[EngineStats]]
"""Asks one replica; it may take so many seconds, and is told how many requests this gateway would have on it.
Raises ProbeFailed."""


def stats_fetch(upstream: Upstream, token: str) -> Fetch:
    """Asks over HTTP with the engine token, as a gateway whose name nobody else has."""
    authentic, name = (ENGINE_TOKEN.encode(), token.encode()), secrets.token_hex(8)
    decoder = msgspec.json.Decoder(EngineStats)

    async def fetch(target: Target, seconds: float, wanted: int) -> EngineStats:
        path = (target.prefix + ENGINE_STATS_PATH).encode()
        headers = [authentic, (GATEWAY_WANTS.encode(), f"{name} {wanted}".encode())]
        head = request_head(b"GET", path, f"{target.host}:{target.port}", headers, 0)
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            response = await upstream.send(
                target.host, target.port, head, b"", first_byte_deadline=deadline, total_deadline=deadline
            )
            body = await response.read_all(_BODY_LIMIT)
            if response.status == 200:
                return decoder.decode(body)
        except ConnectFailed as error:
            raise ProbeFailed(FailureReason.REFUSED if error.refused else FailureReason.TIMEOUT) from error
        except (HeadTimeout, StreamTimeout) as error:
            raise ProbeFailed(FailureReason.TIMEOUT) from error
        except OutOfResources as error:
            raise ProbeFailed(FailureReason.NOT_ASKED) from error
        except (UpstreamError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProbeFailed(FailureReason.BAD_ANSWER) from error
        raise ProbeFailed(FailureReason.BAD_ANSWER)

    return fetch


@dataclass(frozen=True, slots=True)
class Pace:
    """How often replicas are asked, and for how long they may say nothing."""

    interval_s: float = 0.5
    deadline_s: float = 1.0
    """Of one probe."""
    silence_s: float = 1.8
    held_s: float = 0.5
    """A probe that ends this long after it should have shows that this process was held up, not it."""


PACE = Pace()


class LoadProber:
    """Keeps asking the replicas it was last told to `watch`.

    `on_stats(id, stats)` is called for each answer, `on_failure(id, reason)` for each failed probe of a
    replica that counts as failed, the first included; the next `on_stats` means that it is back. A probe that
    could not be made calls it with NOT_ASKED, which is no failure. Both run on the loop and must neither
    block nor raise. `wanted(id)` is what a probe tells. `clock` and `sleep` are the loop's unless given.
    """

    def __init__(
        self,
        fetch: Fetch,
        on_stats: Callable[[str, EngineStats], None],
        on_failure: Callable[[str, FailureReason], None],
        *,
        wanted: Callable[[str], int] = lambda _: 0,
        pace: Pace = PACE,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._fetch = fetch
        self._on_stats = on_stats
        self._on_failure = on_failure
        self._wanted = wanted
        self._pace = pace
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - spreads probes over time, guards nothing
        self._tasks: dict[Target, asyncio.Task[None]] = {}

    def watch(self, targets: Iterable[Target]) -> None:
        """Replaces the set of replicas: new ones are asked at once, the others' probes go on or end."""
        wanted = set(targets)
        for target in self._tasks.keys() - wanted:
            self._tasks.pop(target).cancel()
        for target in wanted - self._tasks.keys():
            self._tasks[target] = asyncio.get_running_loop().create_task(
                self._probe(target), name="load probe"
            )

    async def stop(self) -> None:
        """Ends every probe; no callback is called afterwards."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _probe(self, target: Target) -> None:
        clock, pace = self._clock or asyncio.get_running_loop().time, self._pace
        answered = clock()
        failures = 0
        while True:
            asked = clock()
            left = answered + pace.silence_s - asked
            patience = min(pace.deadline_s, left) if left > 0 else pace.deadline_s
            try:
                stats = await self._fetch(target, patience, self._wanted(target.id))
            except ProbeFailed as failure:
                now = clock()
                if failure.reason is FailureReason.NOT_ASKED or now - asked > patience + pace.held_s:
                    answered, failures = now, 0
                    self._on_failure(target.id, FailureReason.NOT_ASKED)
                    await self._pause()
                    continue
                failures += 1
                silent = now - answered > pace.silence_s - _CLOCK_SLACK_S
                if self._counts(failure.reason, failures, silent=silent):
                    self._on_failure(target.id, failure.reason)
                elif now - asked >= pace.interval_s:
                    continue  # the interval was spent waiting: ask again while there is time
            else:
                answered, failures = clock(), 0
                self._on_stats(target.id, stats)
            await self._pause()

    async def _pause(self) -> None:
        await self._sleep(self._pace.interval_s * self._rng.uniform(0.8, 1.2))

    def _counts(self, reason: FailureReason, failures: int, *, silent: bool) -> bool:
        """Whether a failed probe makes (or finds) the replica failed."""
        if reason is FailureReason.REFUSED:
            return True
        if reason is FailureReason.TIMEOUT:
            return silent
        return failures >= _OTHER_FAILURES
