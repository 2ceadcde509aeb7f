"""Measures ways beside each other: one round asks each of them the same, in another order every time.

CPU time is the kernel's count for the way's processes, user and system, the share that they use while nobody
asks taken off. A streamed request costs `a + b * tokens`: two lengths of answers give both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from tests.bench import processes
from tests.bench.gateway_cost import Series, line_through, quantile
from tests.bench.load import Load, LoadFailed, Plan, Result
from tests.bench.peers.engine import Engine
from tests.bench.peers.way import Way

REQUEST = "cpu_per_request"
TOKEN = "cpu_per_token"
STREAM = "cpu_per_streamed_request"
PER_CORE = "requests_per_core"
TTFT_P50 = "ttft_p50"
TTFT_P99 = "ttft_p99"
ADDED_P50 = "ttft_added_p50"
ADDED_P99 = "ttft_added_p99"
WHOLE = "streamed_answer"
IDLE_MEMORY = "memory_idle"
STREAM_MEMORY = "memory_per_stream"
UNITS = {
    REQUEST: "us", TOKEN: "us", STREAM: "us", PER_CORE: "1/s", TTFT_P50: "ms", TTFT_P99: "ms",
    ADDED_P50: "ms", ADDED_P99: "ms", WHOLE: "ms", IDLE_MEMORY: "MB", STREAM_MEMORY: "KB",
}  # fmt: skip

LENGTHS = (16, 128)
INTERVAL_S = 0.02
_CONNECTIONS = 16
_FEW = 8
_LEAST_S = 1e-6
_SOON_S = 1e-6
"""Between tokens of an engine that makes one each time its loop comes round: each has a write of its own."""
_OPEN_S = 60.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    seconds: float = 6.0
    """About so long for each of a round's measurements of a way."""
    rounds: int = 5
    streams: int = 64
    held: int = 256
    """Streams that are open while memory is looked at."""
    idle_s: float = 10.0

    def answers(self, tokens: int) -> int:
        """Streamed answers by each connection; a 99th percentile wants a few hundred of the short ones."""
        return max(1, round(self.seconds / (tokens * INTERVAL_S)))


QUICK = Effort(seconds=1.5, rounds=1, idle_s=3.0)


class Meter:
    """Measures ways in front of one engine. A way that fails is left out from then on, with the reason."""

    def __init__(self, engine: Engine, bare: Way, ways: Sequence[Way], effort: Effort) -> None:
        self._engine, self._effort = engine, effort
        self._bare = bare
        self._ways = [bare, *ways]
        self._since: dict[str, tuple[float, float]] = {}
        self._idle: dict[str, float] = {}
        self._each: dict[str, int] = {}
        self.figures: dict[str, dict[str, Series]] = {way.name: {} for way in self._ways}
        self.failed: dict[str, str] = {}

    def prepare(self, tell: Callable[[str], object]) -> None:
        """Warm every way up and look at its memory; then at the CPU time that all use while nobody asks."""
        for way in self._ways:
            tell(f"{way.name}: warming up, memory")
            self._try(way, self._warm)
            if way is not self._bare:
                self._try(way, self._memory)
        tell("idle CPU time of all")
        for way in self._left():
            self._try(way, self._begin_idle)
        time.sleep(self._effort.idle_s)
        for way in self._left():
            self._try(way, self._end_idle)

    def round(self, turn: int, tell: Callable[[str], object]) -> None:
        """Every figure of every way once; the order moves on by one with each turn."""
        ways = self._left()
        shift = turn % len(ways)
        for way in ways[shift:] + ways[:shift]:
            tell(way.name)
            self._try(way, self._measure)
        base = self.figures[self._bare.name]
        for way in self._left():
            for added, what in ((ADDED_P50, TTFT_P50), (ADDED_P99, TTFT_P99)):
                if way is not self._bare:
                    self._add(way, added, self.figures[way.name][what].values[-1] - base[what].values[-1])

    def _left(self) -> list[Way]:
        return [way for way in self._ways if way.name not in self.failed]

    def _try(self, way: Way, measure: Callable[[Way], None]) -> None:
        """Raises LoadFailed when it is the bare engine that fails: then nothing can be compared."""
        if way.name in self.failed:
            return
        try:
            measure(way)
        except (LoadFailed, ProcessLookupError, psutil.Error) as error:
            if way is self._bare:
                raise
            self.failed[way.name] = str(error)

    def _add(self, way: Way, figure: str, value: float) -> None:
        self.figures[way.name].setdefault(figure, Series(UNITS[figure])).values.append(value)

    def _begin_idle(self, way: Way) -> None:
        self._since[way.name] = (_cpu_s(way), time.monotonic())

    def _end_idle(self, way: Way) -> None:
        used, began = self._since[way.name]
        self._idle[way.name] = (_cpu_s(way) - used) / (time.monotonic() - began)

    def _warm(self, way: Way) -> None:
        """Also finds how many requests fill the time."""
        self._engine.answer(LENGTHS[0])
        plan = way.plan(tokens=LENGTHS[0], stream=False, connections=_CONNECTIONS, requests=_FEW, warmup=1)
        with Load(plan) as load:
            result = load.run()
        rate = result.requests / result.elapsed_s
        self._each[way.name] = max(_FEW, round(rate * self._effort.seconds / _CONNECTIONS))

    def _memory(self, way: Way) -> None:
        held = self._effort.held
        before = _memory(way)
        self._add(way, IDLE_MEMORY, before / 1e6)
        self._engine.answer(round(2 * _OPEN_S), 1.0)
        plan = way.plan(tokens=LENGTHS[1], stream=True, connections=held, requests=1, timeout_s=3 * _OPEN_S)
        with Load(plan) as load:
            load.begin()
            opened = self._engine.until_streams(held, _OPEN_S)
            with_streams = _memory(way)
        if not opened:
            raise LoadFailed(f"{held} streams were not open within {_OPEN_S:.0f} s")
        if not self._engine.until_streams(0, _OPEN_S):
            raise LoadFailed(f"streams went on for {_OPEN_S:.0f} s after their clients had left")
        self._add(way, STREAM_MEMORY, (with_streams - before) / held / 1e3)

    def _measure(self, way: Way) -> None:
        requests = way.plan(
            tokens=LENGTHS[0], stream=False, connections=_CONNECTIONS, requests=self._each[way.name], warmup=2
        )
        used, result = self._cost(way, requests, LENGTHS[0], 0.0)
        if way is not self._bare:
            self._add(way, REQUEST, used / result.requests * 1e6)
            self._add(way, PER_CORE, result.requests / max(used, _LEAST_S))
        self._streams(way)
        alone = way.plan(
            tokens=LENGTHS[1], stream=True, requests=_alone(self._effort.seconds, result), warmup=5
        )
        _, result = self._cost(way, alone, LENGTHS[1], _SOON_S)
        self._add(way, WHOLE, quantile(result.total_s, 0.5) * 1e3)

    def _streams(self, way: Way) -> None:
        costs = []
        for tokens in LENGTHS:
            shape = {"requests": self._effort.answers(tokens), "stagger_s": INTERVAL_S / self._effort.streams}
            plan = way.plan(tokens=tokens, stream=True, connections=self._effort.streams, warmup=1, **shape)
            used, result = self._cost(way, plan, tokens, INTERVAL_S)
            costs.append(used / result.requests)
            if tokens == LENGTHS[0]:
                self._add(way, TTFT_P50, quantile(result.first_s, 0.5) * 1e3)
                self._add(way, TTFT_P99, quantile(result.first_s, 0.99) * 1e3)
        if way is not self._bare:
            token, request = line_through(LENGTHS, (costs[0], costs[1]))
            self._add(way, TOKEN, token * 1e6)
            self._add(way, STREAM, request * 1e6)

    def _cost(self, way: Way, plan: Plan, tokens: int, interval_s: float) -> tuple[float, Result]:
        """CPU seconds of the way for a plan, the idle share taken off; connections are warm by then."""
        self._engine.answer(1)
        with Load(plan) as load:
            self._engine.answer(tokens, interval_s)
            before = _cpu_s(way)
            result = load.run()
            used = _cpu_s(way) - before
        return used - self._idle[way.name] * result.elapsed_s, result


def _alone(seconds: float, result: Result) -> int:
    """How many streamed answers one after the other fill the time: guessed from whole ones, 20 at least.

    A streamed answer of 128 tokens takes some ten times as long as one that is whole.
    """
    each_s = quantile(result.total_s, 0.5) / _CONNECTIONS
    return max(20, min(500, round(seconds / (10 * each_s))))


def _cpu_s(way: Way) -> float:
    return processes.cpu_s(way.pids())


def _memory(way: Way) -> int:
    """Bytes, a page that several of its processes share counted once."""
    return processes.memory([psutil.Process(pid) for pid in way.pids()]).pss
