"""Reads traces back from the local files: spans of several processes, put together as one tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tradewind.telemetry import names
from tradewind.telemetry.localfile import decode, service_of, spans_of
from tradewind.telemetry.spans import SpanData

_TRACES: Final = "traces"
_ID: Final = re.compile(r"(req_)?[0-9a-f]{32}")


@dataclass(slots=True)
class SpanNode:
    """A span and what happened within it, in order of time."""

    span: SpanData
    children: list[SpanNode] = field(default_factory=list)
    orphan: bool = False
    """Its parent is in no file: a process that died, a file that was pruned, or a caller elsewhere."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans of one request (or, asked for by trace id, of one trace)."""

    trace_id: int
    request_id: str
    """Empty when it was asked for by trace id."""
    roots: list[SpanNode]

    @property
    def start_ns(self) -> int:
        """When the first span began."""
        return min(root.span.start_ns for root in self.roots)

    @property
    def end_ns(self) -> int:
        """When the last span ended."""
        return max(node.span.end_ns for node in self.nodes())

    def nodes(self) -> Iterator[SpanNode]:
        """All spans, each before its children."""
        waiting = list(reversed(self.roots))
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))


def load_trace(home: Path, request_id: str) -> Trace | None:
    """The trace of a request, from the files under `home`.

    Args:
        request_id: as in `x-request-id`, or a trace id in hex.

    Returns:
        None when no file knows it: never made, not sampled, rotated away, or not written yet (spans
        are on file within a second of the request's end).
    """
    if not _ID.fullmatch(request_id):
        return None
    found = [span for span in _search(home / _TRACES, request_id) if _answers(span, request_id)]
    if not found:
        return None
    trace_id = found[0].trace_id
    spans = {
        span.span_id: span
        for span in _search(home / _TRACES, f"{trace_id:032x}")
        if span.trace_id == trace_id
    }
    roots = _assemble(spans)
    if not request_id.startswith("req_"):
        return Trace(trace_id, "", roots) if roots else None
    # One trace may hold several requests of a caller: show this one.
    wanted = {span.span_id for span in found}
    own = [node for node in Trace(trace_id, "", roots).nodes() if node.span.span_id in wanted]
    return Trace(trace_id, request_id, own) if own else None


def _answers(span: SpanData, wanted: str) -> bool:
    if wanted.startswith("req_"):
        return span.attributes.get(names.REQUEST_ID) == wanted
    return span.trace_id == int(wanted, 16)


def _search(directory: Path, text: str) -> Iterator[SpanData]:
    """Spans on lines that hold `text`."""
    needle = text.encode("ascii")
    try:
        files = sorted(directory.iterdir())
    except FileNotFoundError:
        return
    for path in files:
        named = service_of(path.name)
        if named is None:
            continue
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue  # rotated or pruned since
        for raw in _lines_with(content, needle):
            line = decode(raw)
            if line is not None:
                yield from spans_of(line, named[0])


def _lines_with(content: bytes, needle: bytes) -> Iterator[bytes]:
    at = content.find(needle)
    while at >= 0:
        start = content.rfind(b"\n", 0, at) + 1
        end = content.find(b"\n", at)
        end = len(content) if end < 0 else end
        yield content[start:end]
        at = content.find(needle, end)


def _assemble(spans: dict[int, SpanData]) -> list[SpanNode]:
    nodes = {span_id: SpanNode(span) for span_id, span in spans.items()}
    roots: list[SpanNode] = []
    for node in sorted(nodes.values(), key=lambda node: (node.span.start_ns, -node.span.end_ns)):
        parent = nodes.get(node.span.parent_id) if node.span.parent_id is not None else None
        if parent is None or parent is node:
            node.orphan = node.span.parent_id is not None
            roots.append(node)
        else:
            parent.children.append(node)
    return roots
