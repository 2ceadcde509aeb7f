"""Usage read out of JSON answers: every shape, and whatever else may come instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import engine_answers
from tradewind.gateway.usage import Dialect, Usage, body_usage, event_facts

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
