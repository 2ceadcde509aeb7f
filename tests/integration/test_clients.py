"""Real SDKs against real engines through the whole platform."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.integration.conftest import ARCHITECTURES
from tests.integration.platform import Platform, wait_for

pytestmark = pytest.mark.engine

MODEL = "smollm2-bf16"
HELLO: list[dict[str, str]] = [{"role": "user", "content": "What is the capital of France?"}]
RUNNING = "tradewind_engine_requests"
USED = "gen_ai_client_token_usage_sum"


@pytest.fixture
def client(platform: Platform) -> Iterator[OpenAI]:
    with platform.openai() as sdk:
        yield sdk


@pytest.fixture
def claude(platform: Platform) -> Iterator[Anthropic]:
    with Anthropic(base_url=platform.base, api_key=platform.key, max_retries=0) as sdk:
        yield sdk


def test_models_lists_routes_and_deployments_with_context_length_and_family(client: OpenAI) -> None:
    listed = {entry.id: entry.model_dump() for entry in client.models.list()}
    assert {"chat", "smollm2-bf16", "smollm2-fp32", *ARCHITECTURES, "tiny-embedding"} == set(listed)
    assert listed["chat"]["context_length"] == listed["smollm2-bf16"]["context_length"] == 2048
    assert {listed[name]["family"] for name in ARCHITECTURES} == {"llama", "mistral", "deepseek"}
    assert client.models.retrieve("tiny-deepseek").model_dump()["family"] == "deepseek"


@pytest.mark.parametrize("model", ["chat", MODEL, *ARCHITECTURES])
def test_every_architecture_answers_whole_and_streamed(client: OpenAI, model: str) -> None:
    options = {"model": model, "messages": HELLO, "max_tokens": 8, "temperature": 0, "user": "user-1"}
    whole = client.chat.completions.create(**options)
    assert whole.usage.completion_tokens <= 8
    chunks = list(client.chat.completions.create(**options, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert all(chunk.usage is None for chunk in chunks)
    if model in {"chat", MODEL}:
        assert "Paris" in text


def test_usage_comes_with_a_stream_that_asks_for_it(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=4, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage.completion_tokens == 4
    assert chunks[-1].choices == []


def test_several_choices_stop_and_logprobs_pass_through(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=6, n=2, logprobs=True, top_logprobs=2, stop=["zzz"], seed=1
    )
    assert len(answer.choices) == 2
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2


def test_structured_output_is_valid_json_of_the_schema(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}},
        "required": ["city", "big"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=64,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"city", "big"}


def test_a_named_tool_is_called_with_arguments_of_its_schema(client: OpenAI) -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    }
    function = {"name": "weather", "parameters": parameters, "strict": True}
    tool = {"type": "function", "function": function}
    answer = client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=96,
        temperature=0,
        tools=[tool],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    call = answer.choices[0].message.tool_calls[0].function
    assert call.name == "weather"
    assert set(json.loads(call.arguments)) == {"city"}


CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
FORCED: dict[str, Any] = {
    "required": "required",
    "named": {"type": "function", "function": {"name": "weather"}},
}
CLAUDES: dict[str, Any] = {"any": {"type": "any"}, "tool": {"type": "tool", "name": "weather"}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
CLAUDES_TOOL = {"name": "weather", "input_schema": CITY}


@pytest.mark.parametrize("choice", FORCED)
def test_a_forced_tool_has_arguments_of_its_schema_without_strict(client: OpenAI, choice: str) -> None:
    options = {
        "model": MODEL,
        "messages": HELLO,
        "max_tokens": 96,
        "temperature": 0,
        "tools": [TOOL],
        "tool_choice": FORCED[choice],
        "parallel_tool_calls": False,
    }
    (call,) = client.chat.completions.create(**options).choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city"}
    parts = ""
    for chunk in client.chat.completions.create(**options, stream=True):
        for part in chunk.choices[0].delta.tool_calls or ():
            parts += part.function.arguments or ""
    assert set(json.loads(parts)) == {"city"}


def test_so_has_one_of_a_response(client: OpenAI) -> None:
    answer = client.responses.create(
        model=MODEL,
        input="What is the weather in Oslo?",
        max_output_tokens=96,
        temperature=0,
        tools=[{"type": "function", "name": "weather", "parameters": CITY}],
        tool_choice={"type": "function", "name": "weather"},
        parallel_tool_calls=False,
    )
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert set(json.loads(call.arguments)) == {"city"}


@pytest.mark.parametrize("choice", CLAUDES)
def test_so_has_one_of_anthropics_messages(claude: Anthropic, choice: str) -> None:
    options = {
        "model": MODEL,
        "messages": HELLO,
        "max_tokens": 96,
        "extra_body": {"temperature": 0},
        "tools": [CLAUDES_TOOL],
        "tool_choice": {**CLAUDES[choice], "disable_parallel_tool_use": True},
    }
    whole = claude.messages.create(**options)
    (block,) = [block for block in whole.content if block.type == "tool_use"]
    assert set(block.input) == {"city"}
    assert whole.stop_reason == "tool_use"
    with claude.messages.stream(**options) as stream:
        final = stream.get_final_message()
    (block,) = [block for block in final.content if block.type == "tool_use"]
    assert set(block.input) == {"city"}


def test_tools_of_a_model_whose_deployment_reads_no_calls_are_refused_with_what_it_lacks(
    client: OpenAI, claude: Anthropic
) -> None:
    options = {"model": "tiny-llama", "messages": HELLO, "max_tokens": 8}
    for choice in ("auto", *FORCED.values()):
        with pytest.raises(openai.BadRequestError, match="toolCallParser") as raised:
            client.chat.completions.create(**options, tools=[TOOL], tool_choice=choice)
        assert raised.value.code == "tools_not_enabled"
    for choice in CLAUDES.values():
        with pytest.raises(anthropic.BadRequestError, match="toolCallParser"):
            claude.messages.create(**options, tools=[CLAUDES_TOOL], tool_choice=choice)


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_is_only_itself_is_a_bad_request_that_is_tried_once(
    client: OpenAI, stream: bool
) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"$ref": "#"}}}
    with pytest.raises(openai.BadRequestError, match="no answer") as raised:
        client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=8, response_format=schema, stream=stream
        )
    assert raised.value.code == "grammar_rejected"


def test_completions_whole_and_streamed(client: OpenAI) -> None:
    options = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 5, "temperature": 0}
    whole = client.completions.create(**options)
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**options, stream=True))
    assert whole.choices[0].text == streamed
    assert whole.model == MODEL


def test_responses_whole_and_streamed(client: OpenAI) -> None:
    options = {"model": MODEL, "input": "What is the capital of France?", "max_output_tokens": 16}
    assert client.responses.create(**options, temperature=0).output_text
    events = list(client.responses.create(**options, stream=True))
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.output_tokens > 0


def test_anthropic_messages_whole_streamed_and_counted(claude: Anthropic) -> None:
    options = {"model": "chat", "messages": HELLO, "max_tokens": 16}
    whole = claude.messages.create(**options)
    assert whole.content[0].text
    assert whole.usage.output_tokens > 0
    with claude.messages.stream(**options) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text
    assert final.stop_reason in {"end_turn", "max_tokens"}
    counted = claude.messages.count_tokens(model="chat", messages=HELLO)
    assert counted.input_tokens == whole.usage.input_tokens


def test_anthropic_errors_are_its_own_exceptions(platform: Platform, claude: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        claude.messages.create(model="nope", messages=HELLO, max_tokens=1)
    assert missing.value.body["error"]["code"] == "model_not_found"
    assert missing.value.body["type"] == "error"
    with (
        Anthropic(base_url=platform.base, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model="chat", messages=HELLO, max_tokens=1)


def test_embeddings_rerank_and_score(client: OpenAI, platform: Platform) -> None:
    answer = client.embeddings.create(model="tiny-embedding", input=["one", "two"], encoding_format="float")
    assert [len(entry.embedding) for entry in answer.data] == [128, 128]
    with platform.http() as raw:
        body = {"model": "tiny-embedding", "query": "one", "documents": ["one", "two", "three"]}
        ranked = raw.post("/v1/rerank", json=body).json()["results"]
        assert ranked[0]["index"] == 0
        score = {"model": "tiny-embedding", "text_1": "one", "text_2": ["one", "two"]}
        assert raw.post("/v1/score", json=score).json()["data"][0]["score"] == pytest.approx(1.0, abs=0.02)


def test_paths_of_other_servers_answer_as_their_own(platform: Platform) -> None:
    ranking = {"model": "tiny-embedding", "query": "one", "documents": ["one", "two", "three"]}
    pair = {"model": "tiny-embedding", "text_1": "one", "text_2": "two"}
    with platform.http() as raw:
        for body, first, *others in (
            (ranking, "/v1/rerank", "/rerank", "/v2/rerank"),
            (pair, "/v1/score", "/score"),
        ):
            own = raw.post(first, json=body).json()
            for path in others:
                answer = raw.post(path, json=body).json()
                assert answer.keys() == own.keys()
                assert answer.get("results") == own.get("results")
                assert answer.get("data") == own.get("data")


@pytest.mark.parametrize("model", [MODEL, *ARCHITECTURES, "tiny-embedding"])
def test_a_text_becomes_tokens_and_the_tokens_the_text(platform: Platform, model: str) -> None:
    with platform.http() as raw:
        told = raw.post(
            "/tokenize", json={"model": model, "prompt": "Hello", "add_special_tokens": False}
        ).json()
        assert told["count"] == len(told["tokens"]) > 0
        back = raw.post("/detokenize", json={"model": model, "tokens": told["tokens"]}).json()
        assert back["prompt"].strip() == "Hello"


def test_the_tokens_of_a_conversation_are_those_it_costs(platform: Platform, client: OpenAI) -> None:
    with platform.http() as raw:
        told = raw.post("/tokenize", json={"model": MODEL, "messages": HELLO}).json()
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=1)
    assert told["count"] == answer.usage.prompt_tokens


@pytest.mark.parametrize("token", [49_152, 10**9, 2**31 - 1])
def test_a_token_that_nobody_has_is_no_fault_of_the_engine(platform: Platform, token: int) -> None:
    with platform.http() as raw:
        for model in (MODEL, "tiny-mistral"):
            answer = raw.post("/detokenize", json={"model": model, "tokens": [1, token]})
            assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"model": "nope"}, openai.NotFoundError, "model_not_found"),
        ({"n": 10**9}, openai.BadRequestError, "invalid_value"),
        ({"max_tokens": -1}, openai.BadRequestError, "invalid_value"),
        ({"max_tokens": 100_000}, openai.BadRequestError, "context_length_exceeded"),
        ({"model": "tiny-embedding"}, openai.BadRequestError, "unsupported_endpoint"),
        ({"extra_body": {"chat_template": "{{ 1 }}"}}, openai.BadRequestError, "field_not_allowed"),
        ({"temperature": -1}, openai.BadRequestError, "engine_rejected"),
    ],
)
def test_errors_are_the_sdk_exceptions_with_stable_codes(
    client: OpenAI, change: dict[str, object], error: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(error) as raised:
        client.chat.completions.create(**{"model": MODEL, "messages": HELLO, "max_tokens": 4} | change)
    assert raised.value.code == code
    assert raised.value.request_id.startswith("req_")


def test_a_wrong_key_is_an_authentication_error(platform: Platform) -> None:
    with (
        platform.openai(api_key="tw-wrong") as stranger,
        pytest.raises(openai.AuthenticationError) as raised,
    ):
        stranger.models.list()
    assert raised.value.code == "invalid_api_key"


LONG = 1500
"""Tokens that nobody waits for: most of a minute on two cores."""
ENDLESS = {"model": MODEL, "messages": HELLO, "max_tokens": LONG, "extra_body": {"ignore_eos": True}}


def running(platform: Platform) -> float:
    """Requests in the engine, in the gateway's figures."""
    return platform.metric(RUNNING, **{"tradewind.deployment": MODEL, "tradewind.state": "running"})


def generated(platform: Platform) -> int:
    """Tokens that the engine has made since it started; only grows."""
    return int(platform.engine_stats(MODEL)["tokens_generated"])


def made_until_free(platform: Platform, before: int) -> int:
    """Tokens beyond `before` when the engine has nothing to do any more.

    An answer that nobody stopped has LONG of them, however busy the machine is; seconds would not tell.
    """
    wait_for(lambda: platform.engine_stats(MODEL)["running"] == 0, "the engine free again", 300)
    return generated(platform) - before


def counted(platform: Platform) -> float:
    """Output tokens of that model's requests, in the gateway's figures."""
    return platform.metric(USED, **{"tradewind.variant": MODEL, "gen_ai.token.type": "output"})


def test_a_client_that_goes_away_frees_the_engine(platform: Platform, client: OpenAI) -> None:
    before, known = generated(platform), counted(platform)
    stream = client.chat.completions.create(**ENDLESS, stream=True)
    next(iter(stream))
    wait_for(lambda: running(platform) == 1, "the request in the engine", 60)
    stream.close()
    made = made_until_free(platform, before)
    assert 0 < made < LONG / 2
    wait_for(lambda: running(platform) == 0, "the gateway to know", 60)
    wait_for(lambda: counted(platform) == known + made, "what was made to be counted", 60)


def test_a_client_timeout_frees_the_engine_too(platform: Platform, client: OpenAI) -> None:
    made = 0
    for patience_s in (2.0, 8.0, 32.0):  # a busy machine may not have begun when the first one ends
        before, known = generated(platform), counted(platform)
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=patience_s).chat.completions.create(**ENDLESS)
        made = made_until_free(platform, before)
        if made:
            break
    assert 0 < made < LONG / 2
    wait_for(lambda: counted(platform) == known + made, "what was made to be counted", 60)
