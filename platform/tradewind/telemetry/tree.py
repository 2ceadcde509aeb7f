"""Shows a trace as a tree: what happened, when, for how long, and the facts that matter."""

from __future__ import annotations

from typing import Final

from rich.text import Text
from rich.tree import Tree

from tradewind.telemetry import names
from tradewind.telemetry.spans import SpanData
from tradewind.telemetry.store import SpanNode, Trace

_SHOWN: Final = {
    names.HTTP_STATUS: "status",
    names.ERROR_TYPE: "error",
    names.ROUTE: "route",
    names.VARIANT: "variant",
    names.ASSIGNMENT: "assignment",
    names.DEPLOYMENT: "deployment",
    names.TENANT: "tenant",
    names.ATTEMPTS: "attempts",
    names.QUEUE_MS: "queued ms",
    names.COLD_START_MS: "cold start ms",
    names.SERVER_ADDRESS: "host",
    names.SERVER_PORT: "port",
    names.TIME_TO_FIRST_CHUNK: "first chunk s",
    names.INPUT_TOKENS: "input tokens",
    names.OUTPUT_TOKENS: "output tokens",
    names.FINISH_REASONS: "finish",
    # vLLM's own names on `llm_request`.
    "gen_ai.usage.prompt_tokens": "input tokens",
    "gen_ai.usage.completion_tokens": "output tokens",
    "gen_ai.latency.time_in_queue": "in queue s",
    "gen_ai.latency.time_in_model_prefill": "prefill s",
    "gen_ai.latency.time_in_model_decode": "decode s",
    "gen_ai.latency.time_to_first_token": "first token s",
}
"""Attribute -> what the tree calls it, in the order shown."""
_COLOURS: Final = {names.GATEWAY_SERVICE: "cyan", names.ENGINE_SERVICE: "magenta"}


def render_tree(trace: Trace) -> Tree:
    """A rich tree, offsets counted from the trace's first span."""
    head = Text(trace.request_id or "trace", style="bold")
    head.append(f"  trace {trace.trace_id:032x}  {_ms(trace.end_ns - trace.start_ns)}", style="dim")
    tree = Tree(head)
    waiting = [(tree, root, True) for root in reversed(trace.roots)]
    while waiting:
        branch, node, top = waiting.pop()
        below = branch.add(_line(node, trace.start_ns, top))
        waiting.extend((below, child, False) for child in reversed(node.children))
    return tree


def _line(node: SpanNode, start_ns: int, top: bool) -> Text:
    span = node.span
    line = Text()
    line.append(span.name, style="bold red" if span.status == "error" else "bold")
    line.append(f"  +{_ms(span.start_ns - start_ns)}  {_ms(span.end_ns - span.start_ns)}", style="green")
    line.append(f"  {span.service}", style=_COLOURS.get(span.service, "yellow"))
    if node.orphan:
        # A caller that sent a traceparent keeps its spans elsewhere: that is no loss.
        remote = top and span.remote_parent
        line.append("  (called from another trace)" if remote else "  (parent not on file)", style="yellow")
    facts = _facts(span)
    if facts:
        line.append("\n" + facts, style="dim")
    return line


def _facts(span: SpanData) -> str:
    return "  ".join(
        f"{short}={_value(span.attributes[name])}"
        for name, short in _SHOWN.items()
        if name in span.attributes
    )


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)


def _ms(duration_ns: int) -> str:
    """Milliseconds with three digits that mean something; seconds from 10 s on."""
    ms = duration_ns / 1e6
    if ms >= 10_000:
        return f"{ms / 1000:.1f}s"
    return f"{ms:.0f}ms" if ms >= 100 else f"{ms:.1f}ms" if ms >= 1 else f"{ms:.2f}ms"
