"""Usage read out of JSON answers: every shape, and whatever else may come instead."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import engine_answers
from tradewind.gateway.usage import (
    TAIL_BYTES,
    WHOLE_BYTES,
    Dialect,
    Usage,
    body_usage,
    event_facts,
    tail_usage,
)

SEVEN = engine_answers.PROMPT_TOKENS


@pytest.mark.parametrize(
    ("path", "dialect", "expected"),
    [
        ("/v1/chat/completions", Dialect.OPENAI, Usage(SEVEN, 5, "stop")),
        ("/v1/completions", Dialect.OPENAI, Usage(SEVEN, 5, "stop")),
        ("/v1/embeddings", Dialect.OPENAI, Usage(SEVEN, None, None)),
        ("/v1/rerank", Dialect.OPENAI, Usage(SEVEN, None, None)),
        ("/v1/score", Dialect.OPENAI, Usage(SEVEN, None, None)),
        ("/v1/responses", Dialect.RESPONSES, Usage(SEVEN, 5, "completed")),
        ("/v1/messages", Dialect.ANTHROPIC, Usage(SEVEN, 5, "end_turn")),
        ("/v1/messages/count_tokens", Dialect.ANTHROPIC, Usage(SEVEN, None, None)),
    ],
)
def test_every_endpoint(path: str, dialect: Dialect, expected: Usage) -> None:
    request = {"model": "m", "documents": ["a"], "input": ["a", "b"]}
    assert body_usage(dialect, engine_answers.whole(path, request, 5)) == expected


def test_anthropic_input_tokens_include_those_of_the_cache() -> None:
    body = b'{"usage":{"input_tokens":10,"cache_read_input_tokens":30,"cache_creation_input_tokens":5}}'
    assert body_usage(Dialect.ANTHROPIC, body).input_tokens == 45


def test_a_field_named_usage_inside_the_answer_is_not_taken() -> None:
    body = b'{"tools":[{"parameters":{"usage":{"input_tokens":9}}}],"status":"completed","usage":null}'
    assert body_usage(Dialect.RESPONSES, body) == Usage(None, None, "completed")


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b'{"usage":"many"}', b'{"usage":{"prompt_tokens":"7"}}', b"\xff",
     b'{"a":"\xff"}', b'{"choices":7}', b'{"usage":{"input_tokens":1e400}}', b'{"x":' + b"[" * 100_000],
)  # fmt: skip
def test_what_cannot_be_read_is_unknown(dialect: Dialect, body: bytes) -> None:
    assert body_usage(dialect, body) == Usage()
    facts = event_facts(dialect, body)
    assert facts is None or facts.usage == Usage()


@given(st.binary(max_size=200), st.sampled_from(list(Dialect)))
def test_never_raises(body: bytes, dialect: Dialect) -> None:
    body_usage(dialect, body)
    event_facts(dialect, body)
    tail_usage(body, 1)


def test_of_an_answer_that_only_begins_no_output_is_counted() -> None:
    start = b'{"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":0}}}'
    facts = event_facts(Dialect.ANTHROPIC, start)
    assert facts is not None
    assert facts.usage == Usage(7, None, None)


@pytest.mark.parametrize(
    ("path", "dialect", "expected"),
    [
        ("/v1/embeddings", Dialect.OPENAI, Usage(SEVEN, None, None)),
        ("/v1/score", Dialect.OPENAI, Usage(SEVEN, None, None)),
        ("/v1/responses", Dialect.RESPONSES, Usage(SEVEN, 5, None)),
        ("/v1/messages", Dialect.ANTHROPIC, Usage(SEVEN, 5, None)),
    ],
)
def test_of_a_body_of_many_megabytes_the_end_is_read(path: str, dialect: Dialect, expected: Usage) -> None:
    body = engine_answers.whole(path, {"model": "m", "input": "a"}, 5)
    large = body[:-1].replace(b"{", b'{"padding":"' + b"x" * WHOLE_BYTES + b'",', 1) + b"}"
    assert json.loads(large)
    assert body_usage(dialect, large) == expected


@pytest.mark.parametrize(
    ("tail", "depth", "expected"),
    [
        (b'"usage":{"input_tokens":1,"output_tokens":2}}', 1, Usage(1, 2)),
        (b'"usage" : {"prompt_tokens":1,"completion_tokens":2}, "b": [1, {"c": "}"}]}', 1, Usage(1, 2)),
        (b'x\\"},"usage":{"input_tokens":1},"a":"}{"},"n":3}', 2, Usage(1)),
        (b'","usage":{"input_tokens":1},"a":{"usage":{"input_tokens":2}}}', 1, Usage(1)),
        (b'{"usage":{"input_tokens":2}},"usage":{"input_tokens":1}}', 1, Usage(1)),
        (b'"usage":{"input_tokens":1}}', 2, Usage()),
        (b'\\"usage\\":{\\"input_tokens\\":1}"}', 1, Usage()),
        (b'","usage":null}', 1, Usage()),
        (b'","usage":{"input_tokens":"1"}}', 1, Usage()),
        (b'","usage":{"input_tokens":1', 1, Usage()),
        (b'","usage":' + b'{"usage":' * 20_000, 1, Usage()),
        (b"", 1, Usage()),
    ],
)
def test_usage_is_found_from_the_end_by_its_depth(tail: bytes, depth: int, expected: Usage) -> None:
    assert tail_usage(tail, depth) == expected


JSON = st.recursive(
    st.none() | st.text(max_size=5) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["usage", "a", '"usage":{', "\\"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(JSON, st.integers(0, 300))
def test_wherever_the_tail_begins_it_is_never_wrong(value: object, start: int) -> None:
    """Right, or unknown: what stands before may be anything that JSON can hold."""
    body = json.dumps({"a": value, "usage": {"input_tokens": 3, "output_tokens": 4}, "b": value}).encode()
    found = tail_usage(body[start:], 1)
    assert found in (Usage(3, 4), Usage())
    if start <= body.index(b'"usage": {"input_tokens": 3'):
        assert found == Usage(3, 4)


def test_the_end_of_a_body_is_read_within_milliseconds_whatever_it_holds() -> None:
    for filling in (b"[", b"{", b'"",', b'"usage":{', b"\\\\", b'"'):
        tail = (b'"usage":{' + filling * TAIL_BYTES)[:TAIL_BYTES]
        began = time.process_time()
        tail_usage(tail, 1)
        assert time.process_time() - began < 0.2
