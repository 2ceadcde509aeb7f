"""Token usage read out of engine answers: OpenAI chat and completions, OpenAI responses, Anthropic messages,
and the pooling endpoints (embeddings, rerank, score).

Reading is tolerant: what is missing, or of another type than expected, is None. Only the few fields
needed are decoded; msgspec skips the rest of a body without building it.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Any

import msgspec


class Dialect(StrEnum):
    """The family of wire shapes that an endpoint speaks."""

    OPENAI = "openai"
    """/v1/chat/completions, /v1/completions, /v1/embeddings, /v1/rerank, /v1/score."""
    RESPONSES = "responses"
    """/v1/responses."""
    ANTHROPIC = "anthropic"
    """/v1/messages and /v1/messages/count_tokens."""


class Usage(msgspec.Struct):
    """Tokens of one answer; None is unknown."""

    input_tokens: int | None = None
    """All prompt tokens, those read from or written to a cache included."""
    output_tokens: int | None = None
    finish_reason: str | None = None
    """As the dialect names it: `stop`, `length`, `end_turn`, `completed`, ..."""

    def update(self, newer: Usage) -> None:
        """Takes over what `newer` knows."""
        if newer.input_tokens is not None:
            self.input_tokens = newer.input_tokens
        if newer.output_tokens is not None:
            self.output_tokens = newer.output_tokens
        if newer.finish_reason is not None:
            self.finish_reason = newer.finish_reason


class _Counts(msgspec.Struct):
    """`usage` of any dialect."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None

    def read(self, finish_reason: str | None) -> Usage:
        inputs = self.prompt_tokens
        if inputs is None and self.input_tokens is not None:
            # Anthropic counts cached tokens beside input_tokens; the other dialects within them.
            cached = (self.cache_creation_input_tokens or 0) + (self.cache_read_input_tokens or 0)
            inputs = self.input_tokens + cached
        outputs = self.completion_tokens if self.completion_tokens is not None else self.output_tokens
        return Usage(inputs, outputs, finish_reason)


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    """A chat or text completion, or one chunk of it; pooling answers are read as one without choices."""

    choices: list[_Choice] | None = None
    usage: _Counts | None = None
    error: Any = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    status: str | None = None
    incomplete_details: _Incomplete | None = None
    usage: _Counts | None = None


class _ResponseEvent(msgspec.Struct):
    type: str = ""
    response: _Response | None = None


class _Delta(msgspec.Struct):
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    stop_reason: str | None = None
    usage: _Counts | None = None
    input_tokens: int | None = None
    """Of a count_tokens answer."""


class _MessageEvent(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    delta: _Delta | None = None
    usage: _Counts | None = None


class Facts(msgspec.Struct):
    """What one stream event says beside its text."""

    usage: Usage
    usage_only: bool = False
    """The chunk that carries nothing but usage (`stream_options.include_usage`)."""
    ended: bool = False
    """This event ends the stream as its protocol demands."""
    failed: bool = False
    """The engine reports an error."""


WHOLE_BYTES = 4 * 1024 * 1024
"""Of more than this only the end is read: no answer may hold up the others."""
TAIL_BYTES = 32 * 1024
"""What is read of the end: 11 ms at worst, if it is nothing but brackets; else under one."""

_NOTHING = _Counts()
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_completion = msgspec.json.Decoder(_Completion)
_response = msgspec.json.Decoder(_Response)
_response_event = msgspec.json.Decoder(_ResponseEvent)
_message = msgspec.json.Decoder(_Message)
_message_event = msgspec.json.Decoder(_MessageEvent)
_json = json.JSONDecoder()
_USAGE_KEY = re.compile(rb'(?<!\\)"usage"\s*:\s*(?=\{)')
_STRUCTURE = re.compile(rb'"usage"\s*:\s*(?=\{)|"(?:[^"\\]|\\.)*+"|[{}\[\]]')


def body_usage(dialect: Dialect, body: bytes) -> Usage:
    """Usage of a JSON answer that was not streamed. Never raises: an unreadable body knows nothing.

    Of one over WHOLE_BYTES only the end is looked at, where vLLM writes it as a rule.
    """
    if len(body) > WHOLE_BYTES:
        return tail_usage(body[-TAIL_BYTES:], 1)
    try:
        if dialect is Dialect.RESPONSES:
            return _of_response(_response.decode(body))
        if dialect is Dialect.ANTHROPIC:
            message = _message.decode(body)
            usage = (message.usage or _NOTHING).read(message.stop_reason)
            if usage.input_tokens is None:
                usage.input_tokens = message.input_tokens
            return usage
        return _of_completion(_completion.decode(body))
    except _UNREADABLE:
        return Usage()


def event_facts(dialect: Dialect, data: bytes) -> Facts | None:
    """Facts of one event's JSON `data`. None when it cannot be read."""
    try:
        if dialect is Dialect.RESPONSES:
            return _of_response_event(_response_event.decode(data))
        if dialect is Dialect.ANTHROPIC:
            return _of_message_event(_message_event.decode(data))
        chunk = _completion.decode(data)
    except _UNREADABLE:
        return None
    usage_only = chunk.usage is not None and chunk.choices == []
    return Facts(_of_completion(chunk), usage_only=usage_only, failed=bool(chunk.error))


def tail_usage(tail: bytes, depth: int) -> Usage:
    """Usage from the last bytes of a JSON object alone; unknown when it is not in them. Never raises.

    `depth` is that of the field `usage`: 1 in the object itself, 2 in an object of it. A field of the same
    name elsewhere, as in the schema of a tool, is told by its depth, counted from the end. Where `tail`
    begins, in a string or not, cannot be known; but `"usage":` with quotes that are not escaped is a field's
    name anywhere.
    """
    first = _USAGE_KEY.search(tail)
    if first is None:
        return Usage()
    level = 0
    found: list[tuple[int, int]] = []
    for match in _STRUCTURE.finditer(tail, first.start()):
        char = match[0]
        if char in b"{[":
            level += 1
        elif char in b"}]":
            level -= 1
        elif char[-1] != 0x22:
            found.append((match.end(), level))
    at = next((end for end, inside in reversed(found) if inside - level == depth), None)
    try:
        value, _ = _json.raw_decode(tail[at:].decode()) if at is not None else ({}, 0)
        return msgspec.convert(value, _Counts).read(None)
    except (ValueError, RecursionError):
        return Usage()


def _of_completion(completion: _Completion) -> Usage:
    finish = completion.choices[-1].finish_reason if completion.choices else None
    return (completion.usage or _NOTHING).read(finish)


def _of_response(response: _Response) -> Usage:
    finish = response.status
    if finish == "incomplete" and response.incomplete_details is not None:
        finish = response.incomplete_details.reason or finish
    return (response.usage or _NOTHING).read(finish)


def _of_response_event(event: _ResponseEvent) -> Facts:
    ended = event.type in ("response.completed", "response.incomplete", "response.failed")
    usage = _of_response(event.response) if ended and event.response is not None else Usage()
    return Facts(usage, ended=ended, failed=event.type in ("response.failed", "error"))


def _of_message_event(event: _MessageEvent) -> Facts:
    finish = event.delta.stop_reason if event.delta is not None else None
    usage = (event.usage or _NOTHING).read(finish)
    if event.message is not None:
        usage = (event.message.usage or _NOTHING).read(finish)
        usage.output_tokens = None  # of an answer that only begins: no count of what it will be
    return Facts(usage, ended=event.type == "message_stop", failed=event.type == "error")
