"""Telemetry of the gateway's hot path: begin a record, pass its ids on, end it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from tradewind.api.steps import Steps
from tradewind.telemetry.context import format_traceparent, parse_traceparent, parse_tracestate
from tradewind.telemetry.metrics import GatewayMetrics, Labels
from tradewind.telemetry.record import RequestRecord
from tradewind.telemetry.sampling import HeadSampler
from tradewind.telemetry.sink import SpanSink

_log = logging.getLogger(__name__)


class RequestTelemetry:
    """One per gateway process. `start`, `traceparent` and `finish` are for its event loop only."""

    def __init__(
        self,
        spans: SpanSink,
        metrics: GatewayMetrics,
        sampler: HeadSampler,
        clock_ns: Callable[[], int] = time.time_ns,
        entropy: Callable[[int], bytes] = os.urandom,
        on_shutdown: Callable[[], None] = lambda: None,
    ) -> None:
        """`entropy(n)` gives n random bytes; the system's, so that a fork cannot repeat ids."""
        self.spans = spans
        self.metrics = metrics
        self._sampler = sampler
        self._clock_ns = clock_ns
        self._entropy = entropy
        self._on_shutdown = on_shutdown

    def configuring(self, labels: Labels) -> Steps[None]:
        """Set the names that may become metric labels, in the first step; forget those that are gone."""
        return self.metrics.configuring(labels)

    def start(
        self,
        path: str,
        operation: str,
        traceparent: bytes | None,
        tracestate: bytes | None,
        method: str = "POST",
    ) -> RequestRecord:
        """Begin a request.

        Args:
            path: path template, never the path as sent.
            operation: `gen_ai.operation.name`, or empty where no model is called.
            traceparent, tracestate: the caller's headers; what is not valid begins a new trace.
        """
        started_ns = self._clock_ns()
        ids = self._entropy(48)
        parent = parse_traceparent(traceparent) if traceparent else None
        if parent is None:
            trace_id, parent_id, state = int.from_bytes(ids[16:32], "big") or 1, None, ""
        else:
            trace_id, parent_id, _ = parent
            state = parse_tracestate(tracestate) if tracestate else ""
        self.metrics.begin()
        return RequestRecord(
            "req_" + ids[:16].hex(),
            trace_id,
            int.from_bytes(ids[32:40], "big") or 1,
            parent_id,
            self._sampler.sampled(trace_id, parent, state, path),
            state,
            int.from_bytes(ids[40:], "big") or 1,
            operation,
            path,
            method,
            started_ns,
            meter=self.metrics,
        )

    def traceparent(self, record: RequestRecord) -> bytes:
        """Value of the upstream request's `traceparent`; `record.trace_state` goes beside it if not empty."""
        return format_traceparent(record.trace_id, record.upstream_span_id, record.sampled)

    def finish(self, record: RequestRecord) -> None:
        """End a request: count its metrics, queue its spans. Never raises; a second call does nothing.

        Of one with something `pending` both is done once that is.
        """
        if record.finished:
            return
        record.finished = True
        if not record.ended_ns:
            record.ended_ns = self._clock_ns()
        self.metrics.end()
        if record.pending is None or record.pending.done():
            self._write(record)
        else:
            record.pending.add_done_callback(lambda _: self._write(record))

    def _write(self, record: RequestRecord) -> None:
        try:
            self.metrics.finish(record)
            if record.sampled:
                self.spans.put(record)
        except Exception:  # telemetry never costs a client its answer
            _log.exception("telemetry of a request failed", extra={"request_id": record.request_id})

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Write queued spans. Blocks: not for the event loop. False when the time was not enough."""
        return self.spans.flush(timeout_s)

    def shutdown(self, timeout_s: float = 5.0) -> None:
        """Flush spans and metrics, then export no more. Blocks: not for the event loop."""
        self.spans.shutdown(timeout_s)
        self._on_shutdown()
