"""W3C trace context, read strictly: what is not valid is as if it were not there.

https://www.w3.org/TR/trace-context/. The header comes from outside, so nothing of it is passed on
that was not parsed: ids become integers, tracestate is bounded and printable.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_TRACEPARENT: Final = re.compile(
    rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]*)?"
)
_TRACESTATE: Final = re.compile(rb"[\x20-\x2b\x2d-\x7e]+(,[\x20-\x2b\x2d-\x7e]+){0,31}")
_MAX_TRACESTATE: Final = 512
_MAX_TRACEPARENT: Final = 128


class Parent(NamedTuple):
    """The caller's span."""

    trace_id: int
    span_id: int
    sampled: bool


def parse_traceparent(header: bytes) -> Parent | None:
    """The parent that `header` names, or None when it is not valid in every particular."""
    match = _TRACEPARENT.fullmatch(header) if len(header) <= _MAX_TRACEPARENT else None
    if match is None:
        return None
    version, trace, span, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    if not trace_id or not span_id:
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & 1))


def parse_tracestate(header: bytes | None) -> str:
    """`header` as it may be passed on: at most 512 printable characters and 32 members, else empty."""
    if not header or len(header) > _MAX_TRACESTATE or not _TRACESTATE.fullmatch(header):
        return ""
    return header.decode("ascii").strip()


def format_traceparent(trace_id: int, span_id: int, sampled: bool) -> bytes:
    """The header's value for a request made under span `span_id`."""
    return b"00-%032x-%016x-%b" % (trace_id, span_id, b"01" if sampled else b"00")
