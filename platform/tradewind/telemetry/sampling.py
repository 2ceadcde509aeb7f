"""Decides which requests are traced, by OpenTelemetry's own samplers, without their cost where it can."""

from __future__ import annotations

from opentelemetry.sdk.trace import sampling
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from tradewind.telemetry.context import Parent


class HeadSampler:
    """Wraps the sampler that `OTEL_TRACES_SAMPLER` names (a TracerProvider reads it)."""

    def __init__(self, sampler: sampling.Sampler) -> None:
        self._sampler = sampler
        self._constant: bool | None = None
        if sampler is sampling.ALWAYS_ON:
            self._constant = True
        elif sampler is sampling.ALWAYS_OFF:
            self._constant = False
        # The default, which needs no more than the caller's flag.
        self._parent_or_always = sampler is sampling.DEFAULT_ON

    def sampled(self, trace_id: int, parent: Parent | None, trace_state: str, name: str) -> bool:
        """Whether the request's spans are kept; its flag goes on to the engine."""
        if self._constant is not None:
            return self._constant
        if self._parent_or_always:
            return parent is None or parent.sampled
        context = None
        if parent is not None:
            flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
            state = TraceState.from_header([trace_state])
            caller = SpanContext(parent.trace_id, parent.span_id, True, flags, state)
            context = set_span_in_context(NonRecordingSpan(caller))
        result = self._sampler.should_sample(context, trace_id, name, SpanKind.SERVER)
        return result.decision is sampling.Decision.RECORD_AND_SAMPLE
