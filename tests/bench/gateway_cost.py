"""What the gateway itself costs: CPU time of its process and latency added, in front of idle engines.

CPU time is the kernel's count for the gateway's Serve replica process, all threads, over a fixed number
of requests. What it uses while nobody asks (load probes, Serve's health checks and metrics) is measured
for itself and taken off. A streamed request costs `a + b * tokens`; two lengths of answers give both.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.load import Load, Plan, Result, send
from tests.bench.processes import cpu_s
from tests.bench.stage import Stage, bodies

_USERS = [f"user-{number}" for number in range(199)]
_STREAMS = 64
_TOKENS = (16, 128)
_US = 1e6
_MS = 1e3
_ONE_TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    rounds: int = 5
    requests: int = 4000
    """Not streamed, per round, over `connections`."""
    connections: int = 16
    streams: tuple[int, int] = (10, 3)
    """Streamed requests per connection and round, for the two lengths."""
    alone: int = 400
    """Requests one after the other, for latency."""
    idle_s: float = 10.0


QUICK = Effort(rounds=1, requests=1000, streams=(3, 1), alone=100, idle_s=2.0)


@dataclass(slots=True)
class Series:
    """One figure over the rounds."""

    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        """Holds the true median 95 times of 100 (sign test); all there is when the rounds are few."""
        ordered = sorted(self.values)
        count = len(ordered)
        aside, chance = 0, 0.5**count
        while chance + math.comb(count, aside + 1) * 0.5**count <= _ONE_TAIL and aside + 1 < count / 2:
            aside += 1
            chance += math.comb(count, aside) * 0.5**count
        if chance > _ONE_TAIL:
            aside = 0
        return ordered[aside], ordered[-1 - aside]

    def summary(self) -> dict[str, object]:
        """JSON-able."""
        return {
            "unit": self.unit,
            "median": self.median,
            "interval": self.interval,
            "min": min(self.values),
            "max": max(self.values),
            "rounds": self.values,
        }


REQUEST = "gateway_cpu_per_request"
TOKEN = "gateway_cpu_per_streamed_token"
STREAM = "gateway_cpu_per_streamed_request"
IDLE = "gateway_cpu_idle"
ADDED_P50 = "added_latency_p50"
ADDED_P99 = "added_latency_p99"
STREAM_ADDED_P50 = "added_ttft_64_streams_p50"
STREAM_ADDED_P99 = "added_ttft_64_streams_p99"
_UNITS = {
    REQUEST: "us", TOKEN: "us", STREAM: "us", IDLE: "us/s",
    ADDED_P50: "ms", ADDED_P99: "ms", STREAM_ADDED_P50: "ms", STREAM_ADDED_P99: "ms",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Cost:
    """CPU seconds over a run, the idle share taken off."""

    gateway: float
    result: Result


class Meter:
    """Measures on one stage."""

    def __init__(self, stage: Stage, effort: Effort) -> None:
        self._stage = stage
        self._effort = effort
        self.figures = {name: Series(unit) for name, unit in _UNITS.items()}
        self._idle = 0.0

    def measure_idle(self) -> None:
        """CPU seconds per second while nobody asks."""
        gateway, began = self._cpu(), time.monotonic()
        time.sleep(self._effort.idle_s)
        self._idle = (self._cpu() - gateway) / (time.monotonic() - began)
        self._add(IDLE, self._idle * _US)

    def measure_round(self) -> None:
        """Every figure once."""
        self._whole_requests()
        self._streams()
        self._latency()

    def _cpu(self) -> float:
        return cpu_s([self._stage.front.gateway])

    def _add(self, name: str, value: float) -> None:
        self.figures[name].values.append(value)

    def _cost(self, plan: Plan) -> _Cost:
        with Load(plan) as load:
            gateway = self._cpu()
            result = load.run()
            spent = self._cpu() - gateway
        return _Cost(spent - self._idle * result.elapsed_s, result)

    def _whole_requests(self) -> None:
        effort = self._effort
        asked = bodies(tokens=16, stream=False, users=_USERS)
        each = effort.requests // effort.connections
        plan = self._stage.through(
            asked, _USERS, connections=effort.connections, requests=each, warmup=each // 10
        )
        cost = self._cost(plan)
        self._add(REQUEST, cost.gateway / cost.result.requests * _US)

    def _streams(self) -> None:
        """64 streams at once, in two lengths: solve for the cost of a request and of a token."""
        gateway = []
        first: dict[str, Result] = {}
        for tokens, each in zip(_TOKENS, self._effort.streams, strict=True):
            asked = bodies(tokens=tokens, stream=True, users=_USERS)
            shape = {"connections": _STREAMS, "requests": each, "warmup": 1, "stagger_s": 0.02 / _STREAMS}
            cost = self._cost(self._stage.through(asked, _USERS, **shape))
            gateway.append(cost.gateway / cost.result.requests)
            if not first:
                first = {
                    "through": cost.result,
                    "direct": send(self._stage.direct(asked, _USERS, **shape)),
                }
        token, request = line_through(_TOKENS, (gateway[0], gateway[1]))
        self._add(TOKEN, token * _US)
        self._add(STREAM, request * _US)
        self._add(STREAM_ADDED_P50, _added(first["through"].first_s, first["direct"].first_s, 0.5))
        self._add(STREAM_ADDED_P99, _added(first["through"].first_s, first["direct"].first_s, 0.99))

    def _latency(self) -> None:
        """One request after the other, through the platform and to the engine, in turns."""
        asked = bodies(tokens=16, stream=False, users=_USERS)
        through: list[float] = []
        direct: list[float] = []
        for _ in range(2):
            shape = {"requests": self._effort.alone // 2, "warmup": 20}
            through += send(self._stage.through(asked, _USERS, **shape)).total_s
            direct += send(self._stage.direct(asked, _USERS, **shape)).total_s
        self._add(ADDED_P50, _added(through, direct, 0.5))
        self._add(ADDED_P99, _added(through, direct, 0.99))


def _added(through: list[float], direct: list[float], share: float) -> float:
    """Milliseconds between the same quantile of both."""
    return (quantile(through, share) - quantile(direct, share)) * _MS


def line_through(lengths: tuple[int, int], costs: tuple[float, float]) -> tuple[float, float]:
    """(cost of a token, cost of an answer without tokens) of two answers' costs."""
    token = (costs[1] - costs[0]) / (lengths[1] - lengths[0])
    return token, costs[0] - token * lengths[0]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that at most `share` of all lie below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
