"""Pass-through of server-sent events: the same bytes however they are cut, and the facts they carry."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fakes import engine_answers
from tradewind.api.problems import Code
from tradewind.gateway.stream import SSERelay, error_event
from tradewind.gateway.usage import Dialect, Usage

CHAT = "/v1/chat/completions"


def stream(path: str, tokens: int = 3, usage: bool = True) -> list[bytes]:
    parts = engine_answers.stream(path, "m", tokens, usage)
    return [parts.first, *[parts.token] * tokens, *parts.last]


def relay_all(relay: SSERelay, chunks: list[bytes]) -> bytes:
    return b"".join([*(relay.feed(chunk) for chunk in chunks), relay.finish()])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(marks)]


@pytest.mark.parametrize(
    ("path", "dialect", "finish"),
    [
        (CHAT, Dialect.OPENAI, "stop"),
        ("/v1/completions", Dialect.OPENAI, "stop"),
        ("/v1/responses", Dialect.RESPONSES, "completed"),
        ("/v1/messages", Dialect.ANTHROPIC, "end_turn"),
    ],
)
def test_each_dialect_passes_unchanged_and_tells_usage_finish_and_end(
    path: str, dialect: Dialect, finish: str
) -> None:
    relay = SSERelay(dialect)
    chunks = stream(path)
    for chunk in chunks[:-1]:
        assert relay.feed(chunk) == chunk
        assert not relay.ended
    assert relay.feed(chunks[-1]) == chunks[-1]
    assert relay.ended
    assert not relay.failed
    assert relay.usage == Usage(engine_answers.PROMPT_TOKENS, 3, finish)


def test_an_ordinary_chunk_is_the_same_object() -> None:
    chunk = stream(CHAT)[1]
    assert SSERelay(Dialect.OPENAI).feed(chunk) is chunk


def test_usage_chunk_is_stripped_when_the_client_did_not_ask() -> None:
    relay = SSERelay(Dialect.OPENAI, strip_usage=True)
    assert relay_all(relay, stream(CHAT)) == b"".join(stream(CHAT, usage=False))
    assert relay.usage.output_tokens == 3
    together = SSERelay(Dialect.OPENAI, strip_usage=True)
    assert relay_all(together, [b"".join(stream(CHAT))]) == b"".join(stream(CHAT, usage=False))
    assert together.ended


def test_continuous_usage_is_read_and_never_stripped() -> None:
    chunk = b'data: {"choices":[{"index":0}],"usage":{"prompt_tokens":1,"completion_tokens":%d}}\n\n'
    relay = SSERelay(Dialect.OPENAI, strip_usage=True)
    assert relay_all(relay, [chunk % 1, chunk % 2]) == chunk % 1 + chunk % 2
    assert relay.usage == Usage(1, 2)


@pytest.mark.parametrize(
    "text",
    ['"usage"', "[DONE]", 'data: [DONE]\n\ndata: {"choices":[],"usage":{"prompt_tokens":9}}\n\n', '"error"'],
)
def test_generated_text_that_looks_like_protocol_is_text(text: str) -> None:
    chunk = engine_answers.event(
        {"choices": [{"delta": {"content": text}, "finish_reason": None}], "usage": None}
    )
    relay = SSERelay(Dialect.OPENAI, strip_usage=True)
    assert relay.feed(chunk) == chunk
    assert not relay.ended
    assert not relay.failed
    assert relay.usage == Usage()


@pytest.mark.parametrize(
    ("dialect", "event"),
    [
        (Dialect.OPENAI, b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'),
        (Dialect.RESPONSES, b'event: error\ndata: {"type":"error","message":"x"}\n\n'),
        (Dialect.RESPONSES, b'data: {"type":"response.failed","response":{"status":"failed"}}\n\n'),
        (Dialect.ANTHROPIC, b'event: error\ndata: {"type":"error","error":{"type":"internal_error"}}\n\n'),
    ],
)
def test_an_error_that_the_engine_reports_is_noted(dialect: Dialect, event: bytes) -> None:
    relay = SSERelay(dialect)
    assert relay.feed(event) == event
    assert relay.failed


def test_incomplete_response_tells_why() -> None:
    data = (
        b'{"type":"response.incomplete","response":{"status":"incomplete",'
        b'"incomplete_details":{"reason":"max_output_tokens"},"usage":{"input_tokens":1,"output_tokens":2}}}'
    )
    relay = SSERelay(Dialect.RESPONSES)
    relay.feed(b"event: response.incomplete\ndata: " + data + b"\n\n")
    assert relay.ended
    assert relay.usage == Usage(1, 2, "max_output_tokens")


def completed(size: int, name: str = "response.completed", **more: object) -> bytes:
    """The last event of a response whose text has `size` characters, in vLLM's order of fields."""
    text = 'say \\"usage\\":{ {[ ' + "x" * size
    response = {
        "id": "r", "output": [{"content": [{"text": text}]}], "tools": [SCHEMA], "status": "completed",
        "usage": {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 9},
        "user": "a", **more,
    }  # fmt: skip
    return engine_answers.event({"response": response, "sequence_number": 3, "type": name}, name)


SCHEMA = {"parameters": {"properties": {"usage": {"input_tokens": 1, "output_tokens": 1}}}}


@pytest.mark.parametrize("piece", [1 << 30, 65_536, 1_000, 7])
@pytest.mark.parametrize("longest", [100, 3_000])
def test_a_last_event_of_any_length_ends_the_stream_and_tells_its_usage(piece: int, longest: int) -> None:
    data = stream("/v1/responses")[0] + completed(10_000)
    relay = SSERelay(Dialect.RESPONSES, max_event_bytes=longest)
    assert relay_all(relay, [data[at : at + piece] for at in range(0, len(data), piece)]) == data
    assert relay.ended
    assert not relay.failed
    assert relay.usage == Usage(5, 9, "completed")


def test_a_last_event_over_the_default_bound_is_passed_on_and_not_held() -> None:
    data = completed(6_000_000)
    relay = SSERelay(Dialect.RESPONSES)
    held = sent = 0
    for at in range(0, len(data), 65_536):
        sent += len(relay.feed(data[at : at + 65_536]))
        held = max(held, at + 65_536 - sent)
    assert sent == len(data)
    assert held <= 4 * 1024 * 1024 + 65_536
    assert (relay.ended, relay.usage) == (True, Usage(5, 9, "completed"))


def test_an_over_long_event_that_is_not_the_last_ends_nothing() -> None:
    relay = SSERelay(Dialect.RESPONSES, max_event_bytes=100)
    relay.feed(completed(1_000, "response.output_item.done"))
    assert not relay.ended
    assert relay.usage == Usage()


def test_usage_beyond_the_end_that_is_kept_is_unknown_and_the_stream_ended() -> None:
    relay = SSERelay(Dialect.RESPONSES, max_event_bytes=100)
    relay.feed(completed(100, output_messages=["y" * 100_000], tools=[]))
    assert relay.ended
    assert relay.usage == Usage(None, None, "completed")


def test_an_incomplete_response_of_any_length_ends_the_stream() -> None:
    relay = SSERelay(Dialect.RESPONSES, max_event_bytes=100)
    relay.feed(completed(1_000, "response.incomplete"))
    assert relay.ended
    assert relay.usage == Usage(5, 9, "incomplete")


def test_an_event_is_known_by_its_type_where_it_has_no_name() -> None:
    relay = SSERelay(Dialect.RESPONSES, max_event_bytes=100)
    head = b'data: {"type":"response.completed","response":{"output":"'
    relay.feed(head + b"x" * 500 + b'","usage":{"input_tokens":1,"output_tokens":2}}}\n\n')
    assert relay.ended
    assert relay.usage == Usage(1, 2, "completed")


def test_an_over_long_failure_is_a_failure_and_our_error_is_an_event_of_its_own() -> None:
    relay = SSERelay(Dialect.RESPONSES, max_event_bytes=100)
    data = completed(1_000, "response.failed")
    sent = relay.feed(data[:800])
    relay.feed(data[800:])  # what says that it failed stays here
    assert relay.failed
    sent += relay.broken(Code.UPSTREAM_ERROR, "m")
    assert b"x\n\nevent: error\n" in sent


def test_chunks_that_are_not_passed_on_at_sight_are_counted() -> None:
    relay = SSERelay(Dialect.OPENAI)
    first, token, *last = stream(CHAT, tokens=1)
    for chunk in (first, token, token, token):
        relay.feed(chunk)
    assert relay.slow == 0
    for number, chunk in enumerate(last, start=1):
        relay.feed(chunk)
        assert relay.slow == number
    relay.feed(token[:10])
    relay.feed(token[10:])
    assert relay.slow == len(last) + 2


def test_broken_stream_drops_the_half_event_and_ends_with_an_error() -> None:
    relay = SSERelay(Dialect.OPENAI)
    sent = relay.feed(b'data: {"a":1}\n\ndata: {"half')
    sent += relay.broken(Code.UPSTREAM_ERROR, "The engine failed.")
    assert sent.startswith(b'data: {"a":1}\n\ndata: {"error":')
    assert b"half" not in sent
    assert b"[DONE]" not in sent
    assert json.loads(sent.split(b"data: ")[-1])["error"]["code"] == "upstream_error"


def test_error_event_after_part_of_an_over_long_event_is_an_event_of_its_own() -> None:
    relay = SSERelay(Dialect.OPENAI, max_event_bytes=10)
    sent = relay.feed(b"data: " + b"x" * 50) + relay.broken(Code.UPSTREAM_ERROR, "m")
    assert b"x\n\ndata: {" in sent


@pytest.mark.parametrize("dialect", list(Dialect))
def test_error_events_name_the_code_in_every_dialect(dialect: Dialect) -> None:
    event = error_event(Code.TOTAL_TIMEOUT, "Too slow.\n\ndata: [DONE]", dialect)
    assert event.count(b"\n\n") == 1
    data = json.loads(event.split(b"data: ", 1)[1])
    assert data["error"]["code"] == "total_timeout"
    assert data["error"]["type"] == "timeout_error"
    assert event.startswith(b"data: " if dialect is Dialect.OPENAI else b"event: error\n")


def test_memory_for_an_event_without_end_is_bounded() -> None:
    relay = SSERelay(Dialect.OPENAI, max_event_bytes=1000)
    sent = b"".join(relay.feed(b"data: " + b"x" * 400) for _ in range(100))
    assert len(sent) > 100 * 406 - 1003
    assert relay._carried <= 1002


SMALL = (
    b'event: response.incomplete\ndata: {"response":{"output":"abcdefghijklmnopqrstuvwxyz",'
    b'"usage":{"input_tokens":1,"output_tokens":2}},"type":"response.incomplete"}\n\n'
)
TEXTS = st.sampled_from(
    [
        *stream(CHAT), *stream("/v1/messages"), *stream("/v1/responses"), SMALL, b"\n", b"\r", b"\r\n",
        b"\n\n",
        b": ping\n\n", b"data: a\r\n\r\n", b"data: a\n\r\n", b"data: a\r\n\n", b"data",
        b"event: x\ndata: 1\ndata: 2\n\n",
        'data: {"choices":[{"text":"日本語 🚢"}]}\n\n'.encode(), b'data: {"usage"\n\n',
        b'\r\n\n data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n', b"data: [DONE]\r\n\r\n",
        b'data: {"choices": [], "usage": {}}\n\r\n',
        b"data: " + b"y" * 150 + b"\n\n",
    ]
)  # fmt: skip


@given(
    st.lists(TEXTS, max_size=12),
    st.lists(st.integers(0, 10_000), max_size=20),
    st.sampled_from(list(Dialect)),
    st.booleans(),
    st.sampled_from([20, 100, 100_000]),
)
@example([b"data: " + b"y" * 150 + b"\n\n"] * 2, [156, 157, 158], Dialect.OPENAI, True, 20)
def test_any_cut_gives_the_same_bytes_and_facts(
    texts: list[bytes], places: list[int], dialect: Dialect, strip: bool, longest: int
) -> None:
    data = b"".join(texts)

    def outcome(chunks: list[bytes]) -> tuple[bytes, Usage, bool, bool]:
        relay = SSERelay(dialect, strip_usage=strip, max_event_bytes=longest)
        return relay_all(relay, chunks), relay.usage, relay.ended, relay.failed

    whole = outcome([data])
    assert outcome(cut(data, places)) == whole
    assert outcome([data[index : index + 1] for index in range(len(data))]) == whole
    assert outcome(texts) == whole
    if not strip or dialect is not Dialect.OPENAI:
        assert whole[0] == data
