"""Builders for telemetry tests: a clock that is told the time, sinks that keep, requests that happened."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

from opentelemetry.sdk.trace import sampling

from tradewind.api.steps import at_once
from tradewind.telemetry.metrics import GatewayMetrics, Labels
from tradewind.telemetry.record import RequestRecord
from tradewind.telemetry.requests import RequestTelemetry
from tradewind.telemetry.sampling import HeadSampler
from tradewind.telemetry.sink import Item

SECOND = 1_000_000_000
MS = 1_000_000
START = 1_700_000_000 * SECOND
CANARY = "canary-7f3a-do-not-leak"


class Clock:
    """Nanoseconds that move only when told."""

    def __init__(self, now_ns: int = START) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def forward(self, ns: int) -> int:
        self.now_ns += ns
        return self.now_ns


class KeepingSink:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.dropped = 0

    def put(self, item: Item) -> None:
        self.items.append(item)

    def flush(self, timeout_s: float = 5.0) -> bool:
        return True

    def shutdown(self, timeout_s: float = 5.0) -> None:
        pass


def counting_entropy() -> Callable[[int], bytes]:
    """Bytes that differ from call to call and are the same in every run."""
    words = ((number * 0x9E3779B97F4A7C15 % (1 << 64)).to_bytes(8, "big") for number in range(1, 1 << 30))
    return lambda n: b"".join(itertools.islice(words, n // 8))


def telemetry(
    clock: Clock | None = None,
    sink: KeepingSink | None = None,
    sampler: sampling.Sampler = sampling.DEFAULT_ON,
    metrics: GatewayMetrics | None = None,
) -> RequestTelemetry:
    """A gateway's telemetry with route `chat` (control, candidate), two deployments and one tenant."""
    clock = clock or Clock()
    made = RequestTelemetry(
        sink or KeepingSink(),
        metrics or GatewayMetrics(clock),
        HeadSampler(sampler),
        clock,
        counting_entropy(),
    )
    configure(made, {"chat": {"control", "candidate"}}, {"llama", "mistral"}, {"acme"})
    return made


def configure(
    made: RequestTelemetry, routes: Mapping[str, set[str]], deployments: set[str], tenants: set[str]
) -> None:
    """Take over names, at once; a deployment is a route of its own name too."""
    own = {name: {name} for name in deployments}
    at_once(made.configuring(Labels(own | dict(routes), deployments, tenants)))


def answered(record: RequestRecord, clock: Clock, chunks: int = 3) -> RequestRecord:
    """Let `record` go through all phases and stream an answer: 10 ms to the first chunk, 20 ms between."""
    for name in ("auth", "route", "admission", "pick"):
        began = clock.now_ns
        record.phases.append((name, began, clock.forward(MS)))
    record.route, record.variant, record.deployment = "chat", "control", "llama"
    record.tenant, record.assignment, record.stream = "acme", "sticky", True
    record.request_model, record.replica, record.attempts = "chat", "127.0.0.1:30001", 1
    record.upstream_started_ns = clock.now_ns
    record.chunk(clock.forward(6 * MS))
    for _ in range(chunks - 1):
        record.chunk(clock.forward(20 * MS))
    record.status, record.finish_reason = 200, "stop"
    record.input_tokens, record.output_tokens = 12, chunks + 2
    clock.forward(MS)
    return record


def request(made: RequestTelemetry, clock: Clock, traceparent: bytes | None = None) -> RequestRecord:
    """One streamed chat request, finished."""
    record = answered(made.start("/v1/chat/completions", "chat", traceparent, None), clock)
    made.finish(record)
    return record
