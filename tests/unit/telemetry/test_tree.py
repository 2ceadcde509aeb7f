from __future__ import annotations

import io
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from rich.console import Console

from tests.unit.telemetry.builders import MS, Clock, answered, telemetry
from tradewind.telemetry.localfile import LocalFile, encode
from tradewind.telemetry.record import RequestRecord
from tradewind.telemetry.setup import setup_tracing
from tradewind.telemetry.store import load_trace
from tradewind.telemetry.tree import render_tree

CALLER = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def engine_spans(provider: TracerProvider, traceparent: str, start_ns: int) -> None:
    """What an engine replica does: its own span, and vLLM's below it."""
    propagator = TraceContextTextMapPropagator()
    tracer = provider.get_tracer("engine")
    engine = tracer.start_span(
        "engine", propagator.extract({"traceparent": traceparent}), start_time=start_ns
    )
    context = engine.get_span_context()
    below = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
    inner = tracer.start_span(
        "llm_request", propagator.extract({"traceparent": below}), start_time=start_ns + MS
    )
    inner.set_attributes({"gen_ai.usage.prompt_tokens": 12, "gen_ai.latency.time_in_queue": 0.0001})
    inner.end(start_ns + 40 * MS)
    engine.end(start_ns + 44 * MS)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def serve_one(home: Path, header: bytes | None = CALLER, engine: bool = True) -> RequestRecord:
    """A request through a gateway and an engine that write to files of different names."""
    clock = Clock()
    made = telemetry(clock)
    record = answered(made.start("/v1/chat/completions", "chat", header, None), clock)
    made.finish(record)
    gateway = LocalFile(home / "traces", "tradewind-gateway")
    gateway.write([record])
    gateway.close()
    if engine:
        tracing = setup_tracing("tradewind-engine", home=home)
        engine_spans(tracing.provider, made.traceparent(record).decode(), record.upstream_started_ns + MS)
        tracing.shutdown()
    return record


def drawn(home: Path, request_id: str) -> list[str]:
    trace = load_trace(home, request_id)
    assert trace is not None
    out = io.StringIO()
    Console(file=out, width=240, color_system=None).print(render_tree(trace))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_spans_of_gateway_and_engine_are_one_tree(home: Path) -> None:
    record = serve_one(home)
    assert drawn(home, record.request_id) == [
        f"{record.request_id}  trace 4bf92f3577b34da6a3ce929d0e0e4736  51.0ms",
        "└── POST /v1/chat/completions  +0.00ms  51.0ms  tradewind-gateway  (called from another trace)",
        "    status=200  route=chat  variant=control  assignment=sticky  deployment=llama  tenant=acme  "
        "attempts=1  first chunk s=0.01  input tokens=12  output tokens=5  finish=stop",
        "    ├── auth  +0.00ms  1.0ms  tradewind-gateway",
        "    ├── route  +1.0ms  1.0ms  tradewind-gateway",
        "    ├── admission  +2.0ms  1.0ms  tradewind-gateway",
        "    ├── pick  +3.0ms  1.0ms  tradewind-gateway",
        "    └── upstream  +4.0ms  47.0ms  tradewind-gateway",
        "        attempts=1  host=127.0.0.1  port=30001  first chunk s=0.006",
        "        └── engine  +5.0ms  44.0ms  tradewind-engine",
        "            └── llm_request  +6.0ms  39.0ms  tradewind-engine",
        "                input tokens=12  in queue s=0.0001",
    ]


def test_two_requests_of_one_callers_trace_are_shown_apart_or_together(home: Path) -> None:
    clock = Clock()
    made = telemetry(clock)
    file = LocalFile(home / "traces", "tradewind-gateway")
    records = [answered(made.start("/v1/chat/completions", "chat", CALLER, None), clock) for _ in range(2)]
    for record in records:
        made.finish(record)
    file.write(records)
    file.close()
    one = load_trace(home, records[1].request_id)
    both = load_trace(home, "4bf92f3577b34da6a3ce929d0e0e4736")
    assert one is not None
    assert both is not None
    assert [root.span.span_id for root in one.roots] == [records[1].span_id]
    assert {root.span.span_id for root in both.roots} == {record.span_id for record in records}


def test_missing_parent_is_said(home: Path) -> None:
    tracing = setup_tracing("tradewind-engine", home=home)
    engine_spans(tracing.provider, CALLER.decode(), 1_000 * MS)
    tracing.shutdown()
    lines = drawn(home, "4bf92f3577b34da6a3ce929d0e0e4736")
    assert lines[1].endswith("(parent not on file)")
    assert lines[2].strip().startswith("└── llm_request")


def test_torn_lines_and_foreign_files_are_passed_over(home: Path) -> None:
    record = serve_one(home, engine=False)
    traces = home / "traces"
    (traces / "notes.txt").write_text(record.request_id)
    (traces / "tradewind-gateway-1.jsonl").write_bytes(b"\xff\n" + encode(record)[:-30])
    assert len(drawn(home, record.request_id)) == 9


@pytest.mark.parametrize("wanted", ["req_" + "0" * 32, "0" * 32, "../../etc/passwd", "", "req_"])
def test_unknown_id_is_none(home: Path, wanted: str) -> None:
    serve_one(home, engine=False)
    assert load_trace(home, wanted) is None


def test_no_traces_at_all_is_none(home: Path) -> None:
    assert load_trace(home / "nowhere", "req_" + "0" * 32) is None


def test_span_that_is_its_own_ancestor_does_not_hang(home: Path) -> None:
    trace = "ab" * 16
    line = '["s","{0}","{1:016x}","{2:016x}","loop","INTERNAL",1,2,"unset",{{}},[]]\n'
    (home / "traces").mkdir()
    (home / "traces" / "x-1.jsonl").write_text(line.format(trace, 1, 2) + line.format(trace, 2, 1))
    assert load_trace(home, trace) is None
