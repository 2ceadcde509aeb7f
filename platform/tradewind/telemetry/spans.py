"""The spans of a request, made from its record: one description, used for OTLP and for reading files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from tradewind.telemetry import names
from tradewind.telemetry.outcome import Outcome
from tradewind.telemetry.record import RequestRecord

Value = str | bool | int | float | list[str] | list[int] | list[float] | list[bool]
StatusName = Literal["unset", "ok", "error"]

_MAX_TEXT: Final = 256
_NS: Final = 1e-9
_MS: Final = 1e-6
_SERVER_FAULTS: Final = frozenset({Outcome.INTERNAL, Outcome.UPSTREAM_ERROR, Outcome.TIMEOUT})
_STATUS: Final = {"unset": StatusCode.UNSET, "ok": StatusCode.OK, "error": StatusCode.ERROR}


@dataclass(frozen=True, slots=True)
class SpanData:
    """One span. Times are nanoseconds since the epoch; `parent_id` None is a root."""

    trace_id: int
    span_id: int
    parent_id: int | None
    name: str
    kind: SpanKind
    start_ns: int
    end_ns: int
    attributes: dict[str, Value]
    status: StatusName = "unset"
    events: tuple[tuple[str, int], ...] = field(default=())
    service: str = names.GATEWAY_SERVICE
    remote_parent: bool = False


def request_spans(record: RequestRecord, new_id: Callable[[], int]) -> list[SpanData]:
    """The server span of a finished request and its children: phases, then the upstream try.

    Args:
        new_id: ids for the phases, which nothing outside ever names.
    """
    spans = [_server_span(record)]
    for name, start, end in record.phases:
        spans.append(
            SpanData(
                record.trace_id, new_id(), record.span_id, name, SpanKind.INTERNAL, start, max(start, end), {}
            )
        )
    if record.upstream_started_ns:
        spans.append(_upstream_span(record))
    return spans


def _server_span(record: RequestRecord) -> SpanData:
    attributes: dict[str, Value] = {
        names.HTTP_METHOD: record.method,
        names.HTTP_ROUTE: record.path,
        names.REQUEST_ID: record.request_id,
        names.OUTCOME: record.outcome.value,
    }
    if record.status:
        attributes[names.HTTP_STATUS] = record.status
    if record.operation:
        attributes[names.OPERATION] = record.operation
        attributes[names.PROVIDER_NAME] = names.PROVIDER
        attributes[names.REQUEST_STREAM] = record.stream
    for name, text in (
        (names.REQUEST_MODEL, record.request_model),
        (names.RESPONSE_MODEL, record.deployment if record.first_byte_ns else ""),
        (names.ROUTE, record.route),
        (names.VARIANT, record.variant),
        (names.DEPLOYMENT, record.deployment),
        (names.TENANT, record.tenant),
        (names.ASSIGNMENT, record.assignment),
        (names.ERROR_TYPE, record.code),
    ):
        if text:
            attributes[name] = text[:_MAX_TEXT]
    _add_first_chunk(attributes, record, record.started_ns)
    _add_answer(attributes, record)
    if record.attempts:
        attributes[names.ATTEMPTS] = record.attempts
    if record.queue_ns:
        attributes[names.QUEUE_MS] = round(record.queue_ns * _MS, 3)
    if record.cold_start_ns:
        attributes[names.COLD_START_MS] = round(record.cold_start_ns * _MS, 3)
    return SpanData(
        record.trace_id, record.span_id, record.parent_id, f"{record.method} {record.path}", SpanKind.SERVER,
        record.started_ns, max(record.started_ns, record.ended_ns), attributes, _server_status(record),
        remote_parent=record.parent_id is not None,
    )  # fmt: skip


def _server_status(record: RequestRecord) -> StatusName:
    """As the HTTP conventions say: a client's mistake is no error of the server's span."""
    return "error" if record.status >= 500 or record.outcome in _SERVER_FAULTS else "unset"


def _upstream_span(record: RequestRecord) -> SpanData:
    attributes: dict[str, Value] = {}
    if record.operation:
        attributes[names.OPERATION] = record.operation
        attributes[names.PROVIDER_NAME] = names.PROVIDER
    if record.deployment:
        attributes[names.REQUEST_MODEL] = record.deployment[:_MAX_TEXT]
    if record.replica:
        host, _, port = record.replica.rpartition(":")
        attributes[names.SERVER_ADDRESS] = host
        if port.isdecimal():
            attributes[names.SERVER_PORT] = int(port)
    if record.attempts:
        attributes[names.ATTEMPTS] = record.attempts
    _add_first_chunk(attributes, record, record.upstream_started_ns)
    failed = record.outcome in _SERVER_FAULTS
    if failed:
        attributes[names.ERROR_TYPE] = record.code or record.outcome.value
    start = record.upstream_started_ns
    return SpanData(
        record.trace_id, record.upstream_span_id, record.span_id, names.SPAN_UPSTREAM, SpanKind.CLIENT,
        start, max(start, record.ended_ns), attributes, "error" if failed else "unset",
        events=((names.EVENT_FIRST_CHUNK, record.first_byte_ns),) if record.first_byte_ns else (),
    )  # fmt: skip


def _add_first_chunk(attributes: dict[str, Value], record: RequestRecord, start_ns: int) -> None:
    if record.first_byte_ns:
        attributes[names.TIME_TO_FIRST_CHUNK] = round((record.first_byte_ns - start_ns) * _NS, 6)


def _add_answer(attributes: dict[str, Value], record: RequestRecord) -> None:
    """Usage, on the server span only: backends add usage up over spans."""
    if record.stream and record.chunks:
        attributes[names.CHUNKS] = record.chunks
    if record.input_tokens >= 0:
        attributes[names.INPUT_TOKENS] = record.input_tokens
    if record.output_tokens >= 0:
        attributes[names.OUTPUT_TOKENS] = record.output_tokens
    if record.finish_reason:
        attributes[names.FINISH_REASONS] = [record.finish_reason[:_MAX_TEXT]]


def readable_spans(
    record: RequestRecord, resource: Resource, scope: InstrumentationScope, new_id: Callable[[], int]
) -> list[ReadableSpan]:
    """The request's spans as OpenTelemetry's exporters take them."""
    flags = TraceFlags(TraceFlags.SAMPLED)
    state = TraceState.from_header([record.trace_state]) if record.trace_state else None
    return [
        ReadableSpan(
            span.name,
            context=SpanContext(span.trace_id, span.span_id, False, flags, state),
            parent=None
            if span.parent_id is None
            else SpanContext(span.trace_id, span.parent_id, span.remote_parent, flags, state),
            resource=resource,
            attributes=span.attributes,
            events=[Event(name, timestamp=at_ns) for name, at_ns in span.events],
            kind=span.kind,
            status=Status(_STATUS[span.status]),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=scope,
        )
        for span in request_spans(record, new_id)
    ]
