from __future__ import annotations

import asyncio

import pytest
from opentelemetry.sdk.trace import sampling
from opentelemetry.trace import SpanKind

from tests.unit.telemetry.builders import CANARY, MS, Clock, KeepingSink, answered, request, telemetry
from tradewind.telemetry import names
from tradewind.telemetry.metrics import GatewayMetrics
from tradewind.telemetry.record import RequestRecord
from tradewind.telemetry.spans import request_spans

CALLER = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CALLER_UNSAMPLED = CALLER[:-1] + b"0"


def test_callers_trace_goes_on_to_the_engine() -> None:
    made = telemetry()
    record = made.start("/v1/chat/completions", "chat", CALLER, b"vendor=1")
    assert f"{record.trace_id:032x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert record.parent_id == 0x00F067AA0BA902B7
    assert record.trace_state == "vendor=1"
    expected = f"00-{record.trace_id:032x}-{record.upstream_span_id:016x}-01"
    assert made.traceparent(record) == expected.encode()


@pytest.mark.parametrize("header", [None, b"", b"00-zz", CALLER + b"-x", b"00-" + b"0" * 32 + CALLER[35:]])
def test_invalid_traceparent_begins_a_new_trace_and_drops_tracestate(header: bytes | None) -> None:
    record = telemetry().start("/v1/chat/completions", "chat", header, b"vendor=1")
    assert record.parent_id is None
    assert record.trace_id
    assert record.trace_state == ""
    assert record.sampled


def test_ids_differ_between_and_within_requests() -> None:
    made = telemetry()
    records = [made.start("/v1/models", "", None, None) for _ in range(50)]
    assert len({record.request_id for record in records}) == 50
    assert all(record.request_id.startswith("req_") and len(record.request_id) == 36 for record in records)


@pytest.mark.parametrize(
    ("sampler", "header", "kept"),
    [
        (sampling.DEFAULT_ON, None, True),
        (sampling.DEFAULT_ON, CALLER, True),
        (sampling.DEFAULT_ON, CALLER_UNSAMPLED, False),
        (sampling.ALWAYS_ON, CALLER_UNSAMPLED, True),
        (sampling.ALWAYS_OFF, CALLER, False),
        (sampling.ParentBasedTraceIdRatio(0.0), None, False),
        (sampling.ParentBasedTraceIdRatio(0.0), CALLER, True),
        (sampling.ParentBasedTraceIdRatio(1.0), CALLER_UNSAMPLED, False),
        (sampling.TraceIdRatioBased(1.0), CALLER_UNSAMPLED, True),
    ],
)
def test_sampling_is_the_samplers_and_metrics_do_not_depend_on_it(
    sampler: sampling.Sampler, header: bytes | None, kept: bool
) -> None:
    clock, sink = Clock(), KeepingSink()
    made = telemetry(clock, sink, sampler)
    record = request(made, clock, header)
    assert record.sampled is kept
    assert sink.items == ([record] if kept else [])
    assert made.traceparent(record).endswith(b"-01" if kept else b"-00")
    (requests,) = [family.series for family in made.metrics.snapshot() if family.spec is names.REQUESTS]
    assert [series.value for series in requests] == [1]


def test_spans_of_a_streamed_request_form_one_chain() -> None:
    clock = Clock()
    record = request(telemetry(clock), clock, CALLER)
    ids = iter(range(1, 10))
    server, *phases, upstream = request_spans(record, lambda: next(ids))
    assert server.name == "POST /v1/chat/completions"
    assert server.kind is SpanKind.SERVER
    assert server.parent_id == record.parent_id
    assert [span.name for span in phases] == ["auth", "route", "admission", "pick"]
    assert {span.parent_id for span in [*phases, upstream]} == {server.span_id}
    assert {span.kind for span in phases} == {SpanKind.INTERNAL}
    assert upstream.kind is SpanKind.CLIENT
    assert upstream.span_id == record.upstream_span_id
    assert upstream.events == ((names.EVENT_FIRST_CHUNK, record.first_byte_ns),)
    assert all(span.end_ns >= span.start_ns for span in [server, *phases, upstream])


def test_attributes_are_those_of_the_table() -> None:
    clock = Clock()
    record = answered(telemetry(clock).start("/v1/chat/completions", "chat", None, None), clock)
    record.queue_ns, record.cold_start_ns, record.code = 3 * MS, 2 * MS, "upstream_error"
    record.ended_ns = clock.now_ns
    spans = request_spans(record, lambda: 1)
    assert set().union(*(span.attributes for span in spans)) == set(names.ATTRIBUTES)
    server, upstream = spans[0].attributes, spans[-1].attributes
    assert server[names.OPERATION] == "chat"
    assert server[names.REQUEST_MODEL] == "chat"
    assert server[names.RESPONSE_MODEL] == "llama"
    assert server[names.INPUT_TOKENS] == 12
    assert server[names.OUTPUT_TOKENS] == 5
    assert server[names.FINISH_REASONS] == ["stop"]
    assert server[names.TIME_TO_FIRST_CHUNK] == pytest.approx(0.010)
    assert server[names.QUEUE_MS] == 3.0
    assert upstream[names.TIME_TO_FIRST_CHUNK] == pytest.approx(0.006)
    assert upstream[names.REQUEST_MODEL] == "llama"
    assert (upstream[names.SERVER_ADDRESS], upstream[names.SERVER_PORT]) == ("127.0.0.1", 30001)
    assert spans[0].status == spans[-1].status == "error"


def test_refused_request_has_only_what_happened_and_is_no_server_error() -> None:
    clock = Clock()
    made = telemetry(clock)
    record = made.start("/v1/chat/completions", "chat", None, None)
    record.phases.append(("auth", clock.now_ns, clock.forward(MS)))
    record.status, record.code = 401, "invalid_api_key"
    made.finish(record)
    server, auth = request_spans(record, lambda: 1)
    assert (server.status, auth.name) == ("unset", "auth")
    assert server.attributes[names.ERROR_TYPE] == "invalid_api_key"
    assert names.ROUTE not in server.attributes


def test_long_model_name_is_cut() -> None:
    clock = Clock()
    made = telemetry(clock)
    record = made.start("/v1/chat/completions", "chat", None, None)
    record.request_model, record.status, record.code = "x" * 10_000, 404, "model_not_found"
    made.finish(record)
    assert request_spans(record, lambda: 1)[0].attributes[names.REQUEST_MODEL] == "x" * 256


def test_second_finish_counts_nothing() -> None:
    clock, sink = Clock(), KeepingSink()
    made = telemetry(clock, sink)
    record = request(made, clock)
    made.finish(record)
    assert len(sink.items) == 1


async def test_a_record_with_something_pending_is_written_once_when_that_is_known() -> None:
    clock, sink = Clock(), KeepingSink()
    made = telemetry(clock, sink)
    record = answered(made.start("/v1/chat/completions", "chat", None, None), clock)
    record.pending = asyncio.get_running_loop().create_future()
    made.finish(record)
    made.finish(record)
    ended = clock.now_ns
    clock.forward(500 * MS)
    record.output_tokens = 77
    assert sink.items == []
    record.pending.set_result(None)
    await asyncio.sleep(0)
    assert sink.items == [record]
    assert record.ended_ns == ended
    families = {family.spec: family.series for family in made.metrics.snapshot()}
    assert [one.total for one in families[names.TOKEN_USAGE] if one.labels[-1] == "output"] == [77]
    assert families[names.ACTIVE_REQUESTS][0].value == 0


def test_finish_never_raises() -> None:
    class Broken(GatewayMetrics):
        def finish(self, record: RequestRecord) -> None:
            raise RuntimeError(CANARY)

    clock = Clock()
    made = telemetry(clock, metrics=Broken(clock))
    made.finish(made.start("/v1/chat/completions", "chat", None, None))


def test_record_has_no_place_for_content() -> None:
    texts = {"request_id", "trace_state", "operation", "path", "method", "route", "variant", "deployment",
             "tenant", "assignment", "request_model", "replica", "code", "finish_reason"}  # fmt: skip
    hints = RequestRecord.__annotations__
    assert {name for name, kind in hints.items() if kind == "str"} == texts
    record = telemetry().start("/v1/chat/completions", "chat", None, None)
    with pytest.raises(AttributeError):
        record.prompt = CANARY  # type: ignore[attr-defined]
