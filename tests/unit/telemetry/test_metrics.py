from __future__ import annotations

import threading

import pytest

from tests.unit.telemetry.builders import MS, SECOND, START, Clock, answered, configure, request, telemetry
from tradewind.telemetry import names
from tradewind.telemetry.cells import Ring
from tradewind.telemetry.metrics import GatewayMetrics, Series
from tradewind.telemetry.names import MetricSpec
from tradewind.telemetry.requests import RequestTelemetry


def series(made: RequestTelemetry, spec: MetricSpec) -> dict[tuple[str, ...], Series]:
    (family,) = [family for family in made.metrics.snapshot() if family.spec is spec]
    return {one.labels: one for one in family.series}


def test_streamed_request_fills_the_histograms() -> None:
    clock = Clock()
    made = telemetry(clock)
    request(made, clock)
    path = ("chat", "chat", "control")
    ttft = series(made, names.TIME_TO_FIRST_TOKEN)[path]
    assert ttft.total == pytest.approx(0.010)
    assert ttft.counts[names.TIME_TO_FIRST_TOKEN.bounds.index(0.01)] == sum(ttft.counts) == 1
    gaps = series(made, names.INTER_TOKEN_LATENCY)[path]
    assert (sum(gaps.counts), gaps.total) == (2, pytest.approx(0.040))
    assert series(made, names.TIME_PER_OUTPUT_TOKEN)[path].total == pytest.approx(0.040 / 4)
    assert series(made, names.REQUEST_DURATION)[*path, ""].total == pytest.approx(0.051)
    assert series(made, names.TOKEN_USAGE)[*path, "input"].total == 12
    assert series(made, names.TOKEN_USAGE)[*path, "output"].total == 5
    assert series(made, names.TENANT_TOKENS)["acme", "output"].value == 5
    assert series(made, names.REQUESTS)[*path, "ok", ""].value == 1
    assert series(made, names.ACTIVE_REQUESTS)[()].value == 0


def test_value_on_a_bound_belongs_below_it() -> None:
    clock = Clock()
    made = telemetry(clock)
    record = made.start("/v1/chat/completions", "chat", None, None)
    clock.forward(10 * MS)
    record.status = 200
    made.finish(record)
    (duration,) = series(made, names.REQUEST_DURATION).values()
    assert duration.counts[0] == 1


def test_unusual_ends_are_counted_by_route_and_variant() -> None:
    clock = Clock()
    made = telemetry(clock)
    record = answered(made.start("/v1/chat/completions", "chat", None, None), clock)
    record.attempts, record.assignment, record.variant = 3, "fallback", "mistral"
    record.code, record.queue_ns, record.cold_start_ns = "cancelled", 40 * MS, 30 * MS
    made.finish(record)
    assert series(made, names.RETRIES)["chat", "mistral"].value == 2
    assert series(made, names.FALLBACKS)["chat", "mistral"].value == 1
    assert series(made, names.DISCONNECTS)["chat", "mistral"].value == 1
    assert series(made, names.QUEUE_DURATION)["chat", "mistral"].total == pytest.approx(0.04)
    assert series(made, names.COLD_START_DURATION)["chat", "mistral"].total == pytest.approx(0.03)
    assert not series(made, names.TIME_TO_FIRST_TOKEN), "only successful answers have one"


def test_no_request_can_make_a_time_series() -> None:
    clock = Clock()
    made = telemetry(clock)
    for number in range(500):
        record = answered(made.start("/v1/chat/completions", "chat", None, None), clock)
        record.operation, record.route = f"op-{number}", f"route-{number}"
        record.variant, record.tenant, record.code = f"v-{number}", f"t-{number}", f"code-{number}"
        record.cells = None
        made.finish(record)
    labels = {labels for spec in names.METRICS for labels in series(made, spec)}
    assert set().union(*labels) <= {"other", "internal", "input", "output", "", "chat", "control"}
    assert series(made, names.REQUESTS)["other", "other", "other", "internal", "other"].value == 500


def test_known_route_with_unknown_variant_keeps_the_route() -> None:
    clock = Clock()
    made = telemetry(clock)
    record = answered(made.start("/v1/chat/completions", "chat", None, None), clock)
    record.variant = "gone"
    made.finish(record)
    assert ("chat", "chat", "other", "ok", "") in series(made, names.REQUESTS)


def test_deployment_is_a_route_of_its_own_name() -> None:
    clock = Clock()
    made = telemetry(clock)
    record = answered(made.start("/v1/chat/completions", "chat", None, None), clock)
    record.route = record.variant = "llama"
    made.finish(record)
    assert ("chat", "llama", "llama", "ok", "") in series(made, names.REQUESTS)


def test_groups_are_bounded_even_if_the_configuration_is_huge() -> None:
    clock = Clock()
    made = telemetry(clock, metrics=GatewayMetrics(clock, max_groups=10))
    configure(made, {f"r{n}": {"v"} for n in range(100)}, set(), set())
    for number in range(100):
        record = made.start("/v1/chat/completions", "chat", None, None)
        record.route, record.variant, record.status = f"r{number}", "v", 200
        made.finish(record)
    counts = series(made, names.REQUESTS)
    assert len(counts) == 11
    assert counts["other", "other", "other", "ok", ""].value == 90


def test_series_of_names_that_are_gone_go_too() -> None:
    clock = Clock()
    made = telemetry(clock)
    request(made, clock)
    made.metrics.set_engine_load("llama", 1, 2, 0.5)
    made.metrics.set_replicas("llama", 2, 0)
    configure(made, {}, {"mistral"}, set())
    left = {spec.name for spec in names.METRICS if series(made, spec)}
    assert left == {names.ACTIVE_REQUESTS.name, names.DROPPED.name}


def test_the_configurations_age_grows_and_a_new_one_begins_anew() -> None:
    clock = Clock()
    made = telemetry(clock)
    assert not series(made, names.CONFIG_AGE)
    assert not series(made, names.CONFIG_REFUSED)
    made.metrics.set_configuration("r1", {"route": 2})
    clock.forward(90 * SECOND)
    made.metrics.set_refused()
    assert {labels: one.value for labels, one in series(made, names.CONFIG_AGE).items()} == {("r1",): 90}
    assert series(made, names.CONFIG_REFUSED)[()].value == 1
    assert series(made, names.CONFIG_LEFT_OUT)[("route",)].value == 2
    made.metrics.set_configuration("r2", {"route": 0})
    assert {labels: one.value for labels, one in series(made, names.CONFIG_AGE).items()} == {("r2",): 0}
    assert series(made, names.CONFIG_REFUSED)[()].value == 0
    assert series(made, names.CONFIG_LEFT_OUT)[("route",)].value == 0


def test_what_is_watched_is_read_when_it_is_shown() -> None:
    made, age = telemetry(), [3.0, 4.0]
    assert not series(made, names.DISCOVERY_AGE)
    made.metrics.watch(names.DISCOVERY_AGE, lambda: age.pop(0))
    assert [series(made, names.DISCOVERY_AGE)[()].value for _ in range(2)] == [3.0, 4.0]


def test_engine_load_of_known_deployments_is_shown() -> None:
    made = telemetry()
    made.metrics.set_engine_load("llama", 3, 4, 0.25)
    made.metrics.set_engine_load("unknown", 9, 9, 0.9)
    made.metrics.set_replicas("llama", 2, 1)
    requests = series(made, names.ENGINE_REQUESTS)
    assert {labels: one.value for labels, one in requests.items()} == {
        ("llama", "running"): 3,
        ("llama", "waiting"): 4,
    }
    assert series(made, names.KV_CACHE_USE)[("llama",)].value == 0.25
    assert series(made, names.REPLICAS)["llama", "unhealthy"].value == 1


def test_running_stream_counts_in_the_rate_and_its_end_corrects_it() -> None:
    clock = Clock()
    made = telemetry(clock)
    record = made.start("/v1/chat/completions", "chat", None, None)
    record.route, record.variant, record.stream = "chat", "control", True
    for _ in range(20):
        record.chunk(clock.forward(SECOND))
    assert series(made, names.OUTPUT_TOKEN_RATE)["chat", "control"].value == pytest.approx(20 / 19)
    record.status, record.output_tokens = 200, 38
    made.finish(record)
    assert series(made, names.OUTPUT_TOKEN_RATE)["chat", "control"].value == pytest.approx(38 / 19)


def test_rate_forgets_what_is_older_than_a_minute() -> None:
    ring = Ring(START)
    ring.add(START, 600)
    assert ring.rate(START + 59 * SECOND) == pytest.approx(600 / 59)
    assert ring.rate(START + 60 * SECOND) == 0
    ring.add(START + 64 * SECOND, 60)  # the slot of the first second again
    assert ring.rate(START + 64 * SECOND) == 1.0


def test_correction_below_zero_shows_no_negative_rate() -> None:
    ring = Ring(START)
    ring.add(START, -5)
    assert ring.rate(START + SECOND) == 0


def test_whole_answer_has_no_time_to_first_token() -> None:
    clock = Clock()
    made = telemetry(clock)
    record = answered(made.start("/v1/embeddings", "embeddings", None, None), clock, chunks=1)
    record.stream, record.output_tokens = False, -1
    made.finish(record)
    assert not series(made, names.TIME_TO_FIRST_TOKEN)
    assert ("embeddings", "chat", "control", "input") in series(made, names.TOKEN_USAGE)
    assert ("embeddings", "chat", "control", "output") not in series(made, names.TOKEN_USAGE)


def test_clock_set_back_makes_no_negative_gap() -> None:
    clock = Clock()
    made = telemetry(clock)
    record = made.start("/v1/chat/completions", "chat", None, None)
    record.route, record.variant, record.stream = "chat", "control", True
    record.chunk(clock.forward(SECOND))
    record.chunk(clock.forward(-SECOND // 2))
    assert series(made, names.INTER_TOKEN_LATENCY)["chat", "chat", "control"].total == 0


def test_paths_without_a_model_have_no_model_metrics() -> None:
    clock = Clock()
    made = telemetry(clock)
    record = made.start("/v1/models", "", None, None, "GET")
    record.status = 200
    made.finish(record)
    assert not series(made, names.REQUEST_DURATION)
    assert series(made, names.REQUESTS)["other", "other", "other", "ok", ""].value == 1


def test_reader_in_another_thread_sees_whole_numbers_that_only_grow() -> None:
    clock = Clock()
    made = telemetry(clock)
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            one = series(made, names.INTER_TOKEN_LATENCY).get(("chat", "chat", "control"))
            seen.append(sum(one.counts) if one else 0)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(2_000):
        request(made, clock)
        if number % 100 == 0:  # new series while the reader goes through them
            configure(made, {"chat": {"control"}, f"r{number}": {"v"}}, {"llama"}, {"acme"})
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert sum(series(made, names.INTER_TOKEN_LATENCY)["chat", "chat", "control"].counts) == 4_000
