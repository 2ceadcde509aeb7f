"""Takes content out of spans that other libraries make, before they go anywhere.

Instrumentations differ in what they write: exceptions carry messages (which may quote a prompt),
some spans carry messages outright. The gateway's own spans cannot hold content; these are the rest.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Status

_CONTENT: Final = (
    "gen_ai.prompt",
    "gen_ai.completion",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.tool.definitions",
    "gen_ai.retrieval.query.text",
    "gen_ai.retrieval.documents",
    "exception.message",
    "exception.stacktrace",
    "http.request.header.",
    "http.response.header.",
    "url.query",
    "url.full",
    "http.url",
    "http.target",
)
"""Names, and beginnings of names, of attributes that hold content or credentials."""


def scrub(span: ReadableSpan) -> ReadableSpan:
    """`span` without content: the same object when it holds none, else a copy."""
    attributes = span.attributes or {}
    clean = not any(name.startswith(_CONTENT) for name in attributes)
    if clean and not span.events and not span.links and not span.status.description:
        return span
    return ReadableSpan(
        span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={name: value for name, value in attributes.items() if not name.startswith(_CONTENT)},
        events=[_scrub_event(event) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _scrub_event(event: Event) -> Event:
    kept = {name: value for name, value in (event.attributes or {}).items() if not name.startswith(_CONTENT)}
    return Event(event.name, kept, event.timestamp)
