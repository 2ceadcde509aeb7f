"""Server-sent events passed through: the engine's bytes, whole events only, watched but hardly touched.

A chunk of whole events with nothing noteworthy in it - nearly every one - costs a few C-level
searches and goes on as the same object. Events are cut only where a chunk ends inside one, so that a
stream which breaks can be ended by an error event instead of half a line of JSON.

The markers below are JSON text with its quotes. Inside a JSON string quotes are escaped, so generated
text can look like a marker only as a whole string value; it is then parsed once and found harmless.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from tradewind.api.problems import Code
from tradewind.gateway.usage import TAIL_BYTES, WHOLE_BYTES, Dialect, Facts, Usage, event_facts, tail_usage

_BOUNDARY = re.compile(rb"\n\r?\n")
_PARTIAL_BOUNDARY = re.compile(rb"\n\r?\Z")
_PARTIAL_BOUNDARY_BYTES = 2
_ENDS = (b"\n\n", b"\n\r\n")
_DONE = b"[DONE]"
_MARKERS: dict[Dialect, tuple[bytes, ...]] = {
    Dialect.OPENAI: (b'"usage"', b'"finish_reason":"', b'"finish_reason": "', _DONE, b'"error"'),
    Dialect.RESPONSES: (b'"response.completed"', b'"response.incomplete"', b'"response.failed"', b'"error"'),
    Dialect.ANTHROPIC: (b'"message_', b'"error"'),
}


@dataclass(frozen=True, slots=True)
class _Ordinary:
    """The form of events that carry a token and nothing else, told by their first and last bytes."""

    newlines: int
    start: bytes
    ends: tuple[bytes, ...]

    def matches(self, event: bytes) -> bool:
        return (
            event.count(b"\n") == self.newlines and event.endswith(self.ends) and event.startswith(self.start)
        )


_ORDINARY = {
    Dialect.OPENAI: _Ordinary(
        2,
        b'data: {"id":',
        (
            b'"finish_reason":null}]}\n\n',
            b'"finish_reason":null,"token_ids":null}]}\n\n',
            b'"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}\n\n',
        ),
    ),
    Dialect.RESPONSES: _Ordinary(3, b"event: response.output_text.delta\ndata: {", (b"}\n\n",)),
    Dialect.ANTHROPIC: _Ordinary(3, b"event: content_block_delta\ndata: {", (b"}\n\n",)),
}
_HEAD_BYTES = 256
_NAMED = re.compile(rb'event: *([\w.]+)\r?\ndata: *|data: *\{"type": *"([\w.]+)"')
"""The first bytes of an event that say what it is, as vLLM's do."""
_LAST = {
    b"response.completed": Facts(Usage(finish_reason="completed"), ended=True),
    b"response.incomplete": Facts(Usage(finish_reason="incomplete"), ended=True),
    b"response.failed": Facts(Usage(finish_reason="failed"), ended=True, failed=True),
}
"""The events that hold a whole answer, so that they may be of any length, and what each says by its name."""
_ANTHROPIC_TYPES = {"timeout_error": "timeout_error", "rate_limit_error": "rate_limit_error"}


def error_event(code: Code, message: str, dialect: Dialect) -> bytes:
    """The event that ends a stream which broke after its first byte, in the client's dialect.

    No `[DONE]` or `message_stop` may follow it. `message` is for clients: no internal text.
    """
    error: dict[str, object] = {"message": message, "type": code.value.type, "param": None, "code": code.wire}
    if dialect is Dialect.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(code.value.type, "api_error")
        data: dict[str, object] = {
            "type": "error",
            "error": {"type": kind, "message": message, "code": code.wire},
        }
    elif dialect is Dialect.RESPONSES:
        data = {"type": "error", "code": code.wire, "message": message, "param": None, "error": error}
    else:
        data = {"error": error}
    name = b"" if dialect is Dialect.OPENAI else b"event: error\n"
    return name + b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


class SSERelay:
    """Passes one stream on and notes what its last events say.

    What `feed` and `finish` return adds up to the same bytes however the input was cut: all of it, but
    for the usage-only chunk when `strip_usage` is set (the gateway asked for it, the client did not).
    An event over `max_event_bytes` is passed on without being held: known by its first bytes, its usage read
    from its last.
    """

    __slots__ = (
        "_carried", "_carry", "_dialect", "_markers", "_max", "_ordinary", "_passed", "_strip", "ended",
        "failed", "slow", "usage",
    )  # fmt: skip

    def __init__(
        self, dialect: Dialect, *, strip_usage: bool = False, max_event_bytes: int = WHOLE_BYTES
    ) -> None:
        self._dialect = dialect
        self._markers = _MARKERS[dialect]
        self._ordinary = _ORDINARY[dialect]
        self._strip = strip_usage
        self._max = max_event_bytes
        self._carry: list[bytes] = []  # pieces of one event that is not whole yet
        self._carried = 0
        self._passed: _Passed | None = None  # the part of an over-long event that went on
        self.usage = Usage()
        self.ended = False
        """The stream's own end was seen: `[DONE]`, `message_stop`, `response.completed`."""
        self.failed = False
        """The engine itself reported an error in the stream."""
        self.slow = 0
        """Chunks that were not passed on at sight."""

    def feed(self, chunk: bytes) -> bytes:
        """Bytes to send on now; may be empty, and is usually `chunk` itself."""
        if not self._carried and self._passed is None:
            if self._ordinary.matches(chunk):
                return chunk
            if chunk.endswith(_ENDS) and not any(marker in chunk for marker in self._markers):
                return chunk
        return self._cut(chunk)

    def finish(self) -> bytes:
        """The rest, when the engine's message ended cleanly but inside an event."""
        rest = b"".join(self._carry)
        self._carry, self._carried = [], 0
        return rest

    def broken(self, code: Code, message: str) -> bytes:
        """The bytes that end a stream which broke: what was held of an event is dropped."""
        self._carry, self._carried = [], 0
        close = b"\n\n" if self._passed is not None or self.failed else b""
        return close + error_event(code, message, self._dialect)

    def _cut(self, chunk: bytes) -> bytes:
        """The way of a chunk that ends inside an event, or that holds something to look at."""
        self.slow += 1
        if self._carried:
            last = self._carry[-1]
            tail = last[-2:] if len(last) > 1 else b"".join(self._carry[-2:])[-2:]
            if _BOUNDARY.search(tail + chunk) is None:
                return self._hold(chunk)
            chunk = b"".join((*self._carry, chunk))
            self._carry, self._carried = [], 0
        out: list[bytes] = []
        start = 0
        for match in _BOUNDARY.finditer(chunk):
            event = chunk[start : match.end()]
            start = match.end()
            if self._passed is None:
                out.append(self._watch(event, match.end() - match.start()))
                continue
            self._passed.add(event)
            self._conclude(self._passed.head, bytes(self._passed.tail))
            self._passed = None
            out.append(event)
        if start < len(chunk):
            out.append(self._hold(chunk[start:]))
        return b"".join(out)

    def _hold(self, part: bytes) -> bytes:
        """Keeps the beginning of an event; returns what need not or must not wait."""
        lead = b""
        if not self._carried and self._passed is None:  # blank lines between events belong to none
            stripped = part.lstrip(b"\r\n")
            lead, part = part[: len(part) - len(stripped)], stripped
        if part:
            self._carry.append(part)
            self._carried += len(part)
        if self._passed is None:
            if self._carried <= self._max + _PARTIAL_BOUNDARY_BYTES:
                return lead
            self._passed = _Passed()
        held = b"".join(self._carry)
        partial = _PARTIAL_BOUNDARY.search(held)
        sent = partial.start() if partial else len(held)
        self._carry, self._carried = ([held[sent:]], len(held) - sent) if partial else ([], 0)
        self._passed.add(held[:sent])
        return lead + held[:sent]

    def _watch(self, event: bytes, terminator: int) -> bytes:
        """Reads one whole event; returns it, or only the blank lines before it when it is to be dropped."""
        body = event.lstrip(b"\r\n")
        if len(body) - terminator > self._max:
            self._conclude(body[:_HEAD_BYTES], body)
            return event
        if self._ordinary.matches(body):
            return event
        if not any(marker in body for marker in self._markers):
            return event
        data = b"\n".join(line[5:].strip() for line in body.splitlines() if line.startswith(b"data:"))
        if data == _DONE:
            self.ended = True
            return event
        facts = event_facts(self._dialect, data)
        if facts is None:
            return event
        self.usage.update(facts.usage)
        self.ended |= facts.ended
        self.failed |= facts.failed
        return event[: len(event) - len(body)] if self._strip and facts.usage_only else event

    def _conclude(self, head: bytes, tail: bytes) -> None:
        """Notes what the ends of an over-long event say."""
        named = _NAMED.match(head)
        facts = _LAST.get(named[1] or named[2]) if named and self._dialect is Dialect.RESPONSES else None
        if facts is not None:
            self.usage.update(facts.usage)
            self.usage.update(tail_usage(tail[-TAIL_BYTES:], 2))
            self.ended |= facts.ended
            self.failed |= facts.failed


class _Passed:
    """Both ends of an event that goes on in parts."""

    __slots__ = ("head", "tail")

    def __init__(self) -> None:
        self.head = b""
        self.tail = bytearray()
        """At least the last TAIL_BYTES, at most twice as many and one part."""

    def add(self, part: bytes) -> None:
        """Takes the next part."""
        if len(self.head) < _HEAD_BYTES:
            self.head = (self.head + part)[:_HEAD_BYTES]
        self.tail += part[-TAIL_BYTES:]
        if len(self.tail) > 2 * TAIL_BYTES:
            del self.tail[:-TAIL_BYTES]
