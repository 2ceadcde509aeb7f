"""What a variant and the gateway write into a body, and what they leave alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.gateway.asgi import CHAT, config, deployment, route, stage, user
from tradewind.api.wire import Overrides, Task, VariantEntry

PROMPT = "Answer like a pirate. »«"


async def engine_body(
    path: str, body: dict[str, Any] | bytes, overrides: Overrides | None = None
) -> dict[str, Any]:
    """What the engine received for `body`, sent to a route with `overrides`."""
    variant = VariantEntry(name="v", deployment="llama", overrides=overrides or Overrides())
    async with stage(config(routes=[route("chat", variant)])) as s:
        reply = await s.client.post(path, body if isinstance(body, bytes) else {"model": "chat", **body})
        assert reply.status == 200, reply.body
        received: dict[str, Any] = s.engine.seen[-1].json
        return received


async def test_overrides_win_over_the_client() -> None:
    overrides = Overrides(
        temperature=0.0, top_p=0.5, top_k=7, seed=1, presence_penalty=0.1, frequency_penalty=0.2
    )
    sent = {"messages": [user("x")], "temperature": 1.5, "top_k": 1, "min_p": 0.1}
    received = await engine_body(CHAT, sent, overrides)
    assert received["temperature"] == 0.0
    assert (received["top_p"], received["top_k"], received["seed"]) == (0.5, 7, 1)
    assert (received["presence_penalty"], received["frequency_penalty"]) == (0.1, 0.2)
    assert received["min_p"] == 0.1


@pytest.mark.parametrize(
    ("path", "body", "field", "dropped"),
    [
        (CHAT, {"messages": [user("x")], "max_tokens": 9}, "max_completion_tokens", "max_tokens"),
        ("/v1/completions", {"prompt": "x", "max_tokens": 9}, "max_tokens", None),
        ("/v1/responses", {"input": "x", "max_output_tokens": 9}, "max_output_tokens", None),
        ("/v1/messages", {"messages": [user("x")], "max_tokens": 9}, "max_tokens", None),
    ],
)
async def test_max_tokens_goes_where_the_endpoint_has_it(
    path: str, body: dict[str, Any], field: str, dropped: str | None
) -> None:
    received = await engine_body(path, body, Overrides(max_tokens=5))
    assert received[field] == 5
    assert dropped is None or dropped not in received


async def test_an_endpoint_gets_no_field_that_it_does_not_know() -> None:
    overrides = Overrides(seed=1, temperature=0.1, max_tokens=5, system_prompt=PROMPT)
    received = await engine_body("/v1/messages/count_tokens", {"messages": [user("x")]}, overrides)
    assert set(received) == {"model", "messages", "system"}
    received = await engine_body("/v1/messages", {"messages": [user("x")], "max_tokens": 9}, overrides)
    assert "seed" not in received


CONVERSATIONS: dict[str, tuple[list[Any], list[Any]]] = {
    "none": ([user("x")], [user("x")]),
    "system": ([{"role": "system", "content": "Be dull."}, user("x")], [user("x")]),
    "developer": ([{"role": "developer", "content": "Be dull."}, user("x")], [user("x")]),
    "two": ([{"role": "system", "content": "a"}, {"content": "b", "role": "system"}, user("x")], [user("x")]),
    "later": (
        [user("x"), {"role": "system", "content": "b"}],
        [user("x"), {"role": "system", "content": "b"}],
    ),
    "odd": ([7, user("x")], [7, user("x")]),
    "only": ([{"role": "system", "content": "a"}], []),
}


@pytest.mark.parametrize("case", CONVERSATIONS)
async def test_a_system_prompt_takes_the_place_of_the_clients_in_chat(case: str) -> None:
    messages, rest = CONVERSATIONS[case]
    received = await engine_body(CHAT, {"messages": messages}, Overrides(system_prompt=PROMPT))
    assert received["messages"] == [{"role": "system", "content": PROMPT}, *rest]


async def test_a_system_prompt_goes_into_the_field_of_its_dialect() -> None:
    overrides = Overrides(system_prompt=PROMPT)
    received = await engine_body("/v1/responses", {"input": "x", "instructions": "Be dull."}, overrides)
    assert received["instructions"] == PROMPT
    sent = {"messages": [user("x")], "max_tokens": 5, "system": [{"type": "text", "text": "Be dull."}]}
    received = await engine_body("/v1/messages", sent, overrides)
    assert received["system"] == PROMPT
    received = await engine_body("/v1/completions", {"prompt": "x"}, overrides)
    assert received["prompt"] == "x"


async def test_the_fallback_keeps_the_variants_overrides_but_not_its_adapter() -> None:
    variant = VariantEntry(
        name="v", deployment="llama", adapter="tone", overrides=Overrides(system_prompt=PROMPT)
    )
    settings = config(
        deployments=[deployment(adapters=("tone",)), deployment("spare")],
        routes=[route("chat", variant, fallback=("spare",))],
    )
    async with stage(settings, replicas={"llama": 0}) as s:
        assert (await s.client.chat()).status == 200
        received = s.engines["spare"][0].seen[-1].json
        assert received["model"] == "spare"
        assert received["messages"][0]["content"] == PROMPT


async def test_what_nobody_looks_at_passes_byte_for_byte() -> None:
    odd = '{"x":1.0E+2,"y":"\\u00e9\\/","z":[ 1 , 2 ],"big":123456789012345678901234567890}'
    tools = '[{"type": "function", "function": {"name": "f", "parameters": {"type":"object"}}}]'
    messages = '[ {"role":"user",  "content":"na\\u00efve \\ud83d\\ude00 \U0001f600"} ]'
    raw = f'{{"future_field": {odd}, "model":"chat", "messages": {messages}, "tools": {tools}}}'.encode()
    async with stage() as s:
        assert (await s.client.post(CHAT, raw)).status == 200
        received = s.engine.seen[-1].body.decode()
        for part in (odd, tools, messages):
            assert part in received


async def test_request_ids_and_salts_of_the_client_are_dropped() -> None:
    received = await engine_body(CHAT, {"messages": [user("x")], "request_id": "mine", "cache_salt": "mine"})
    assert "request_id" not in received
    assert received["cache_salt"] != "mine"


async def test_responses_are_not_stored() -> None:
    assert (await engine_body("/v1/responses", {"input": "x", "store": True}))["store"] is False
    assert (await engine_body("/v1/responses", {"input": "x"}))["store"] is False


GOOD: dict[str, dict[str, Any]] = {
    "tools": {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": "auto",
    },
    "a schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    },
    "a JSON object": {"response_format": {"type": "json_object"}},
    "logprobs": {"logprobs": True, "top_logprobs": 20},
    "everything at its bound": {"n": 16, "max_tokens": 131_072, "stop": ["x" * 1_024] * 16, "min_tokens": 0},
    "structured": {"structured_outputs": {"regex": r"\d{3}", "choice": None}},
    "choices": {"structured_outputs": {"choice": ["yes", "no"]}},
    "a schema as text": {"structured_outputs": {"json": json.dumps({"type": "object"})}},
    "template variables": {"chat_template_kwargs": {"enable_thinking": False}},
    "plugins": {"vllm_xargs": {"mine": 1}},
    "an unlimited thinking budget": {"thinking_token_budget": -1},
    "an empty stop": {"stop": []},
    "repetition": {
        "repetition_detection": {"max_pattern_size": 20, "min_count": 3, "min_pattern_size": None}
    },
    "bias": {"logit_bias": {"1": -100}},
    "unknown": {"some_future_field": {"a": [1]}},
}


@pytest.mark.parametrize("case", GOOD)
async def test_a_good_field_passes(case: str) -> None:
    received = await engine_body(CHAT, {"messages": [user("x")], **GOOD[case]})
    for name, value in GOOD[case].items():
        assert received[name] == value


POOLING: dict[str, tuple[str, dict[str, Any]]] = {
    "one text": ("/v1/embeddings", {"input": "x"}),
    "texts": ("/v1/embeddings", {"input": ["x"] * 256}),
    "tokens": ("/v1/embeddings", {"input": list(range(5_000))}),
    "token lists": ("/v1/embeddings", {"input": [[1, 2], [3]]}),
    "a chat": ("/v1/embeddings", {"messages": [user("x")]}),
    "documents": ("/v1/rerank", {"query": "x", "documents": ["x"] * 256, "top_n": 3}),
    "an object": ("/v1/rerank", {"query": "x", "documents": {"content": [{"type": "text", "text": "x"}]}}),
    "a pair": ("/v1/score", {"text_1": "x", "text_2": "y"}),
    "queries": ("/v1/score", {"queries": "x", "documents": ["y", "z"]}),
    "data": ("/v1/score", {"data_1": "x", "data_2": ["y", "z"]}),
}


@pytest.mark.parametrize("case", POOLING)
async def test_pooling_requests_pass(case: str) -> None:
    path, body = POOLING[case]
    task = Task.EMBED if path == "/v1/embeddings" else Task.SCORE
    async with stage(config(deployments=[deployment(task=task)])) as s:
        reply = await s.client.post(path, {"model": "chat", **body})
        assert reply.status == 200
        received = s.engine.seen[-1].json
        assert {name: received[name] for name in body} == body
        assert len(received["cache_salt"]) == 64
        assert s.records.last.operation == path.removeprefix("/v1/")


async def test_an_embedding_model_scores_too() -> None:
    async with stage(config(deployments=[deployment(task=Task.EMBED)])) as s:
        reply = await s.client.post("/v1/score", {"model": "chat", "text_1": "x", "text_2": "y"})
        assert reply.status == 200
