"""The gateway's metrics: cells that the event loop writes, and one snapshot that both exports read.

Label values come from the current configuration or a fixed table, all else is `other`, and the
number of (operation, route, variant) groups is bounded: no request can make a time series.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, NamedTuple

from tradewind.api.steps import Steps
from tradewind.telemetry import names
from tradewind.telemetry.cells import Counter, Histogram, Ring, StreamCells
from tradewind.telemetry.names import OTHER, MetricSpec
from tradewind.telemetry.outcome import Outcome, code_label
from tradewind.telemetry.record import RequestRecord

MAX_GROUPS: Final = 2_000
"""As OpenTelemetry's own default cardinality limit; more fall into the all-`other` group."""
_NS: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Series:
    """One time series of a metric at one moment. `labels` are in the spec's order, empty = absent."""

    labels: tuple[str, ...]
    start_ns: int
    value: float = 0
    counts: tuple[int, ...] = ()
    """Histogram only: count per bucket, the last one is beyond the last bound."""
    total: float = 0.0
    """Histogram only: sum of the values."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with its series at one moment."""

    spec: MetricSpec
    series: list[Series]


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """Load of a deployment's engines, summed (requests) or averaged (KV cache) over its replicas."""

    running: int
    waiting: int
    kv_cache_use: float


class Labels(NamedTuple):
    """The names that may become labels. Each a whole new set: readers of the old one keep it."""

    routes: Mapping[str, AbstractSet[str]]
    """Variant names by model name; deployments' own names, which are their variant too, included."""
    deployments: AbstractSet[str]
    tenants: AbstractSet[str]


class _Group:
    """The cells of one (operation, route, variant). Those that few requests touch are made on demand."""

    __slots__ = ("codes", "durations", "gaps", "key", "per_token", "start_ns", "stream", "tokens", "ttft")

    def __init__(self, key: tuple[str, str, str], ring: Ring, now_ns: int) -> None:
        self.key = key
        self.start_ns = now_ns
        self.ttft = Histogram(names.TIME_TO_FIRST_TOKEN.bounds, now_ns)
        self.per_token = Histogram(names.TIME_PER_OUTPUT_TOKEN.bounds, now_ns)
        self.gaps = Histogram(names.INTER_TOKEN_LATENCY.bounds, now_ns)
        self.tokens = {kind: Histogram(names.TOKEN_USAGE.bounds, now_ns) for kind in ("input", "output")}
        self.durations: dict[str, Histogram] = {}
        self.codes: dict[tuple[str, str], Counter] = {}
        self.stream = StreamCells(self.gaps, ring)


class GatewayMetrics:
    """All metrics of one gateway process. Written by one thread, read by any (see `cells`)."""

    def __init__(
        self,
        clock_ns: Callable[[], int] = time.time_ns,
        dropped: Callable[[], int] = lambda: 0,
        max_groups: int = MAX_GROUPS,
    ) -> None:
        """`dropped` tells how many requests' spans were lost so far."""
        self._clock_ns = clock_ns
        self._dropped = dropped
        self._max_groups = max_groups
        self._start_ns = clock_ns()
        self._active = Counter(self._start_ns)
        self._routes: Mapping[str, AbstractSet[str]] = {}
        self._deployments: AbstractSet[str] = frozenset()
        self._tenants: AbstractSet[str] = frozenset()
        self._groups: dict[tuple[str, str, str], _Group] = {}
        self._rings: dict[tuple[str, str], Ring] = {}
        self._plain: dict[tuple[MetricSpec, tuple[str, ...]], Counter | Histogram] = {}
        self._loads: dict[str, EngineLoad] = {}
        self._replicas: dict[str, tuple[int, int]] = {}
        self._configuration: tuple[str, int] | None = None
        self._left_out: dict[str, int] = {}
        self._refused: int | None = None
        self._watched: dict[MetricSpec, Callable[[], float]] = {}

    def configuring(self, labels: Labels) -> Steps[None]:
        """Set the names that may become labels, in the first step; drop the series of those that are gone."""
        self._routes, self._deployments, self._tenants = labels
        for key in list(self._groups):
            if not self._known(key[1], key[2]):
                del self._groups[key]
            yield
        for pair in list(self._rings):
            if not self._known(*pair):
                del self._rings[pair]
            yield
        for cell in list(self._plain):
            if not self._keep(*cell):
                del self._plain[cell]
            yield
        for by_deployment in (self._loads, self._replicas):
            for name in list(by_deployment):
                if name not in labels.deployments:
                    by_deployment.pop(name, None)
                yield

    def set_configuration(self, revision: str, left_out: Mapping[str, int]) -> None:
        """A configuration came into force now, with so many entries left out by kind; none is refused."""
        self._configuration = (revision, self._clock_ns())
        self._left_out = dict(left_out)
        self._refused = 0

    def set_refused(self) -> None:
        """The configuration that was sent last is refused."""
        self._refused = 1

    def watch(self, spec: MetricSpec, read: Callable[[], float]) -> None:
        """Where to read a value without labels whenever it is shown. Called from any thread."""
        self._watched[spec] = read

    def set_engine_load(self, deployment: str, running: int, waiting: int, kv_cache_use: float) -> None:
        """Latest load of a deployment. Names that are not configured are ignored."""
        if deployment in self._deployments:
            self._loads[deployment] = EngineLoad(running, waiting, kv_cache_use)

    def set_replicas(self, deployment: str, healthy: int, unhealthy: int) -> None:
        """Latest replica counts of a deployment. Names that are not configured are ignored."""
        if deployment in self._deployments:
            self._replicas[deployment] = (healthy, unhealthy)

    def stream_cells(self, record: RequestRecord) -> StreamCells:
        """What the record's chunks write to."""
        return self._group(record).stream

    def begin(self) -> None:
        """A request has begun."""
        self._active.value += 1

    def end(self) -> None:
        """A request that has begun is over."""
        self._active.value -= 1

    def finish(self, record: RequestRecord) -> None:
        """Count a request that has ended (`ended_ns` is set) and of which all is known."""
        group = self._group(record)
        outcome = record.outcome
        code = code_label(record.code)
        counter = group.codes.get((outcome, code))
        if counter is None:
            counter = group.codes[outcome, code] = Counter(self._clock_ns())
        counter.value += 1
        if record.operation:
            duration = group.durations.get(code)
            if duration is None:
                duration = group.durations[code] = Histogram(names.REQUEST_DURATION.bounds, self._clock_ns())
            duration.observe((record.ended_ns - record.started_ns) * _NS)
            self._count_tokens(group, record)
        if record.stream and outcome is Outcome.OK:
            self._time_tokens(group, record)
        if (
            record.queue_ns
            or record.attempts > 1
            or outcome is Outcome.CANCELLED
            or record.assignment == "fallback"
        ):
            self._count_unusual(group, record, outcome)

    def _time_tokens(self, group: _Group, record: RequestRecord) -> None:
        if not record.first_byte_ns:
            return
        group.ttft.observe((record.first_byte_ns - record.started_ns) * _NS)
        last = record.last_chunk_ns
        if record.output_tokens > 1 and last > record.first_byte_ns:
            group.per_token.observe((last - record.first_byte_ns) * _NS / (record.output_tokens - 1))

    def _count_tokens(self, group: _Group, record: RequestRecord) -> None:
        tenant = record.tenant if record.tenant in self._tenants else OTHER
        if record.input_tokens >= 0:
            group.tokens["input"].observe(record.input_tokens)
            self._counter(names.TENANT_TOKENS, (tenant, "input")).value += record.input_tokens
        if record.output_tokens >= 0:
            group.tokens["output"].observe(record.output_tokens)
            self._counter(names.TENANT_TOKENS, (tenant, "output")).value += record.output_tokens
            # Streamed chunks were counted as one token each as they came: put right what they were not.
            counted = record.chunks if record.cells is not None else 0
            group.stream.ring.add(record.ended_ns, record.output_tokens - counted)

    def _count_unusual(self, group: _Group, record: RequestRecord, outcome: Outcome) -> None:
        labels = group.key[1:]
        if record.queue_ns:
            self._histogram(names.QUEUE_DURATION, labels).observe(record.queue_ns * _NS)
        if record.cold_start_ns:
            self._histogram(names.COLD_START_DURATION, labels).observe(record.cold_start_ns * _NS)
        if record.attempts > 1:
            self._counter(names.RETRIES, labels).value += record.attempts - 1
        if record.assignment == "fallback":
            self._counter(names.FALLBACKS, labels).value += 1
        if outcome is Outcome.CANCELLED:
            self._counter(names.DISCONNECTS, labels).value += 1

    def _known(self, route: str, variant: str) -> bool:
        """Whether the labels may (still) be used: all configured, or `other`."""
        if route == OTHER and variant == OTHER:
            return True
        variants = self._routes.get(route)
        return variants is not None and (
            variant in variants or variant in self._deployments or variant == OTHER
        )

    def _keep(self, spec: MetricSpec, labels: tuple[str, ...]) -> bool:
        if spec is names.TENANT_TOKENS:
            return labels[0] in self._tenants or labels[0] == OTHER
        return self._known(labels[0], labels[1])

    def _group(self, record: RequestRecord) -> _Group:
        operation = record.operation if record.operation in names.OPERATIONS else OTHER
        route, variant = record.route, record.variant
        variants = self._routes.get(route)
        if variants is None:
            route = variant = OTHER
        elif variant not in variants and variant not in self._deployments:
            variant = OTHER
        group = self._groups.get((operation, route, variant))
        return group if group is not None else self._new_group((operation, route, variant))

    def _new_group(self, key: tuple[str, str, str]) -> _Group:
        if len(self._groups) >= self._max_groups:
            key = (OTHER, OTHER, OTHER)
            if key in self._groups:
                return self._groups[key]
        now = self._clock_ns()
        ring = self._rings.setdefault(key[1:], Ring(now))
        group = self._groups[key] = _Group(key, ring, now)
        return group

    def _counter(self, spec: MetricSpec, labels: tuple[str, ...]) -> Counter:
        cell = self._plain.get((spec, labels))
        if cell is None:
            cell = self._plain[spec, labels] = Counter(self._clock_ns())
        assert isinstance(cell, Counter)
        return cell

    def _histogram(self, spec: MetricSpec, labels: tuple[str, ...]) -> Histogram:
        cell = self._plain.get((spec, labels))
        if cell is None:
            cell = self._plain[spec, labels] = Histogram(spec.bounds, self._clock_ns())
        assert isinstance(cell, Histogram)
        return cell

    def snapshot(self) -> list[Family]:
        """All series at this moment, families in the order of `names.METRICS`. Callable from any thread."""
        found: dict[MetricSpec, list[Series]] = {spec: [] for spec in names.METRICS}
        for spec, series in self._read():
            found[spec].append(series)
        return [Family(spec, series) for spec, series in found.items()]

    def _read(self) -> Iterator[tuple[MetricSpec, Series]]:
        yield names.ACTIVE_REQUESTS, Series((), self._start_ns, self._active.value)
        yield names.DROPPED, Series((), self._start_ns, self._dropped())
        # list(dict.items()) is one C call: the loop's thread cannot change the dict in the middle of it.
        for group in list(self._groups.values()):
            yield from _read_group(group)
        for (spec, labels), cell in list(self._plain.items()):
            yield spec, _series(labels, cell)
        now = self._clock_ns()
        for key, ring in list(self._rings.items()):
            yield names.OUTPUT_TOKEN_RATE, Series(key, self._start_ns, ring.rate(now))
        yield from self._read_engines()
        yield from self._read_health(now)

    def _read_health(self, now: int) -> Iterator[tuple[MetricSpec, Series]]:
        if (taken := self._configuration) is not None:
            revision, since = taken
            yield names.CONFIG_AGE, Series((revision,), self._start_ns, max(0, now - since) * _NS)
        if (refused := self._refused) is not None:
            yield names.CONFIG_REFUSED, Series((), self._start_ns, refused)
        for kind, count in list(self._left_out.items()):
            yield names.CONFIG_LEFT_OUT, Series((kind,), self._start_ns, count)
        for spec, read in list(self._watched.items()):
            yield spec, Series((), self._start_ns, read())

    def _read_engines(self) -> Iterator[tuple[MetricSpec, Series]]:
        for name, load in list(self._loads.items()):
            yield names.ENGINE_REQUESTS, Series((name, "running"), self._start_ns, load.running)
            yield names.ENGINE_REQUESTS, Series((name, "waiting"), self._start_ns, load.waiting)
            yield names.KV_CACHE_USE, Series((name,), self._start_ns, load.kv_cache_use)
        for name, (healthy, unhealthy) in list(self._replicas.items()):
            yield names.REPLICAS, Series((name, "healthy"), self._start_ns, healthy)
            yield names.REPLICAS, Series((name, "unhealthy"), self._start_ns, unhealthy)


def _read_group(group: _Group) -> Iterator[tuple[MetricSpec, Series]]:
    for (outcome, code), counter in list(group.codes.items()):
        yield names.REQUESTS, _series((*group.key, outcome, code), counter)
    for code, duration in list(group.durations.items()):
        yield names.REQUEST_DURATION, _series((*group.key, code), duration)
    cells = [(names.TIME_TO_FIRST_TOKEN, group.ttft), (names.TIME_PER_OUTPUT_TOKEN, group.per_token),
             (names.INTER_TOKEN_LATENCY, group.gaps)]  # fmt: skip
    for spec, cell in cells:
        series = _series(group.key, cell)
        if any(series.counts):
            yield spec, series
    for kind, cell in group.tokens.items():
        series = _series((*group.key, kind), cell)
        if any(series.counts):
            yield names.TOKEN_USAGE, series


def _series(labels: tuple[str, ...], cell: Counter | Histogram) -> Series:
    if isinstance(cell, Counter):
        return Series(labels, cell.start_ns, cell.value)
    values = list(cell.values)
    return Series(labels, cell.start_ns, counts=tuple(int(n) for n in values[:-1]), total=float(values[-1]))
