"""Every bad request: its status, its code, and no engine that heard of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.unit.gateway.asgi import CHAT, Header, Reply, Stage, config, deployment, route, stage, tenant, user
from tradewind.api.problems import Code
from tradewind.api.wire import RequestLimits, Task, VariantEntry
from tradewind.gateway.endpoints import ENDPOINTS

LIMITS = RequestLimits(
    body_bytes=200_000,
    json_containers=2_000,
    json_items=5_000,
    body_timeout_s=0.05,
    tokenize_bytes=1_000,
)
IMAGE = {"type": "image_url", "image_url": {"url": "https://internal/x.png"}}

# field changes of a chat request -> code
CHAT_FIELDS: dict[str, tuple[dict[str, Any], Code]] = {
    "n over the limit": ({"n": 17}, Code.INVALID_VALUE),
    "n of a billion": ({"n": 10**9}, Code.INVALID_VALUE),
    "n as text": ({"n": "2"}, Code.INVALID_VALUE),
    "n as a float": ({"n": 2.0}, Code.INVALID_VALUE),
    "n as a switch": ({"n": True}, Code.INVALID_VALUE),
    "n of zero": ({"n": 0}, Code.INVALID_VALUE),
    "best_of over the limit": ({"best_of": 17}, Code.INVALID_VALUE),
    "max_tokens over the limit": ({"max_tokens": 131_073}, Code.INVALID_VALUE),
    "max_completion_tokens over the limit": ({"max_completion_tokens": 10**12}, Code.INVALID_VALUE),
    "max_tokens below zero": ({"max_tokens": -1}, Code.INVALID_VALUE),
    "min_tokens over the limit": ({"min_tokens": 10**7}, Code.INVALID_VALUE),
    "top_logprobs over the limit": ({"logprobs": True, "top_logprobs": 21}, Code.INVALID_VALUE),
    "top_logprobs of the whole vocabulary": ({"top_logprobs": -1}, Code.INVALID_VALUE),
    "prompt_logprobs of the whole vocabulary": ({"prompt_logprobs": -1}, Code.INVALID_VALUE),
    "logprobs as text": ({"logprobs": "yes"}, Code.INVALID_VALUE),
    "too many stop strings": ({"stop": ["x"] * 17}, Code.INVALID_VALUE),
    "a stop string too long": ({"stop": "x" * 1025}, Code.INVALID_VALUE),
    "stop of numbers": ({"stop": [1]}, Code.INVALID_VALUE),
    "too many stop tokens": ({"stop_token_ids": [1] * 1025}, Code.INVALID_VALUE),
    "too many bad words": ({"bad_words": ["a"] * 1025}, Code.INVALID_VALUE),
    "too many biases": ({"logit_bias": {str(i): 1 for i in range(1025)}}, Code.INVALID_VALUE),
    "biases as a list": ({"logit_bias": [1]}, Code.INVALID_VALUE),
    "too many tools": ({"tools": [{"type": "function"}] * 129}, Code.INVALID_VALUE),
    "a tool too large": ({"tools": [{"function": {"description": "x" * 70_000}}]}, Code.INVALID_VALUE),
    "tools as an object": ({"tools": {}}, Code.INVALID_VALUE),
    "a pattern bomb in a tool": (
        {"tools": [{"function": {"parameters": {"pattern": "((a{1000}){1000}){1000}"}}}]},
        Code.INVALID_VALUE,
    ),
    "a schema too large": (
        {"response_format": {"type": "json_schema", "json_schema": {"x": "y" * 70_000}}},
        Code.INVALID_VALUE,
    ),
    "a schema with a huge count": (
        {"response_format": {"json_schema": {"schema": {"minItems": 10**9}}}},
        Code.INVALID_VALUE,
    ),
    "response_format as text": ({"response_format": "json"}, Code.INVALID_VALUE),
    "a regex too long": ({"structured_outputs": {"regex": "a" * 4097}}, Code.INVALID_VALUE),
    "a regex bomb": ({"structured_outputs": {"regex": "(a{999}){999}"}}, Code.INVALID_VALUE),
    "a grammar too long": ({"structured_outputs": {"grammar": "a" * 4097}}, Code.INVALID_VALUE),
    "choices too long": ({"structured_outputs": {"choice": ["a" * 100] * 50}}, Code.INVALID_VALUE),
    "choices of numbers": ({"structured_outputs": {"choice": [1]}}, Code.INVALID_VALUE),
    "a regex bomb the old way": ({"guided_regex": "(a{999}){999}"}, Code.INVALID_VALUE),
    "a schema as broken text": ({"structured_outputs": {"json": "{"}}, Code.INVALID_VALUE),
    "structured_outputs as a list": ({"structured_outputs": []}, Code.INVALID_VALUE),
    "patterns of a million tokens to look for": (
        {"repetition_detection": {"max_pattern_size": 10**6, "min_count": 2}},
        Code.INVALID_VALUE,
    ),
    "stream as text": ({"stream": "true"}, Code.INVALID_VALUE),
    "stream as a number": ({"stream": 1}, Code.INVALID_VALUE),
    "stream_options as text": ({"stream": True, "stream_options": "x"}, Code.INVALID_VALUE),
    "include_usage as a number": ({"stream_options": {"include_usage": 1}}, Code.INVALID_VALUE),
    "user as a number": ({"user": 7}, Code.INVALID_VALUE),
    "user too long": ({"user": "u" * 513}, Code.INVALID_VALUE),
    "session_id too long": ({"session_id": "s" * 513}, Code.INVALID_VALUE),
    "messages as text": ({"messages": "hello"}, Code.INVALID_VALUE),
    "no messages": ({"messages": []}, Code.INVALID_VALUE),
    "messages null": ({"messages": None}, Code.MISSING_FIELD),
    "model missing": ({"model": None}, Code.MISSING_FIELD),
    "model empty": ({"model": ""}, Code.INVALID_VALUE),
    "model too long": ({"model": "m" * 257}, Code.INVALID_VALUE),
    "model as a list": ({"model": ["chat"]}, Code.INVALID_VALUE),
    "model unknown": ({"model": "gpt-7"}, Code.MODEL_NOT_FOUND),
    "a chat template": ({"chat_template": "{{ x }}"}, Code.FIELD_NOT_ALLOWED),
    "a chat template inside its arguments": (
        {"chat_template_kwargs": {"chat_template": "{{ x }}"}},
        Code.FIELD_NOT_ALLOWED,
    ),
    "tokenize inside the template's arguments": (
        {"chat_template_kwargs": {"tokenize": False}},
        Code.FIELD_NOT_ALLOWED,
    ),
    "template arguments as text": ({"chat_template_kwargs": "x"}, Code.INVALID_VALUE),
    "kv_transfer_params": ({"kv_transfer_params": {}}, Code.FIELD_NOT_ALLOWED),
    "ec_transfer_params": ({"ec_transfer_params": {}}, Code.FIELD_NOT_ALLOWED),
    "kv_transfer_params among the extras": (
        {"vllm_xargs": {"kv_transfer_params": "x"}},
        Code.FIELD_NOT_ALLOWED,
    ),
    "priority": ({"priority": -100}, Code.FIELD_NOT_ALLOWED),
    "mm_processor_kwargs": ({"mm_processor_kwargs": {"a": 1}}, Code.FIELD_NOT_ALLOWED),
    "media_io_kwargs": ({"media_io_kwargs": {"a": {}}}, Code.FIELD_NOT_ALLOWED),
    "logits_processors": ({"logits_processors": ["os.system"]}, Code.FIELD_NOT_ALLOWED),
    "lora_request": ({"lora_request": {"path": "/etc"}}, Code.FIELD_NOT_ALLOWED),
    "an image by URL": ({"messages": [{"role": "user", "content": [IMAGE]}]}, Code.REMOTE_MEDIA_NOT_ALLOWED),
    "an image by file URL": (
        {"messages": [{"role": "user", "content": [{"image_url": "file:///etc/passwd"}]}]},
        Code.REMOTE_MEDIA_NOT_ALLOWED,
    ),
    "a video by URL with no type": (
        {"messages": [{"role": "user", "content": [{"video_url": {"url": "HTTP://x"}}]}]},
        Code.REMOTE_MEDIA_NOT_ALLOWED,
    ),
    "audio by URL in a tool's message": (
        {"messages": [{"role": "tool", "content": [{"audio_url": {"url": " data:x"}}]}]},
        Code.REMOTE_MEDIA_NOT_ALLOWED,
    ),
    "media named by a uuid": (
        {"messages": [{"role": "user", "content": [{"image_url": None, "uuid": "other-tenants"}]}]},
        Code.FIELD_NOT_ALLOWED,
    ),
}

# path, body -> code; the model is `chat` unless the body says otherwise
OTHER_BODIES: dict[str, tuple[str, dict[str, Any], Code]] = {
    "completions without a prompt": ("/v1/completions", {}, Code.MISSING_FIELD),
    "completions with too many prompts": ("/v1/completions", {"prompt": ["x"] * 257}, Code.INVALID_VALUE),
    "completions of a number": ("/v1/completions", {"prompt": 7}, Code.INVALID_VALUE),
    "rerank of a switch": (
        "/v1/rerank",
        {"model": "scorer", "query": "x", "documents": False},
        Code.INVALID_VALUE,
    ),
    "completions with too many token lists": ("/v1/completions", {"prompt": [[1]] * 257}, Code.INVALID_VALUE),
    "completions with too many answers in all": (
        "/v1/completions",
        {"prompt": ["x"] * 200, "n": 16},
        Code.INVALID_VALUE,
    ),
    "completions with logprobs of the vocabulary": (
        "/v1/completions",
        {"prompt": "x", "logprobs": -1},
        Code.INVALID_VALUE,
    ),
    "completions with huge logprobs": (
        "/v1/completions",
        {"prompt": "x", "logprobs": 10**6},
        Code.INVALID_VALUE,
    ),
    "responses without input": ("/v1/responses", {}, Code.MISSING_FIELD),
    "responses in the background": (
        "/v1/responses",
        {"input": "x", "background": True},
        Code.FIELD_NOT_ALLOWED,
    ),
    "responses on top of another's": (
        "/v1/responses",
        {"input": "x", "previous_response_id": "resp_1"},
        Code.FIELD_NOT_ALLOWED,
    ),
    "responses in a conversation": (
        "/v1/responses",
        {"input": "x", "conversation": "conv_1"},
        Code.FIELD_NOT_ALLOWED,
    ),
    "responses with too many tokens": (
        "/v1/responses",
        {"input": "x", "max_output_tokens": 10**9},
        Code.INVALID_VALUE,
    ),
    "responses with an image by URL": (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}]},
        Code.REMOTE_MEDIA_NOT_ALLOWED,
    ),
    "responses with a file by URL": (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "http://x"}]}]},
        Code.REMOTE_MEDIA_NOT_ALLOWED,
    ),
    "responses with a schema bomb": (
        "/v1/responses",
        {"input": "x", "text": {"format": {"schema": {"pattern": "(a{999}){999}"}}}},
        Code.INVALID_VALUE,
    ),
    "messages without max_tokens": ("/v1/messages", {"messages": [user("x")]}, Code.MISSING_FIELD),
    "messages with too many stop sequences": (
        "/v1/messages",
        {"messages": [user("x")], "max_tokens": 5, "stop_sequences": ["x"] * 17},
        Code.INVALID_VALUE,
    ),
    "messages with an image by URL": (
        "/v1/messages",
        {
            "max_tokens": 5,
            "messages": [
                {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}
            ],
        },
        Code.REMOTE_MEDIA_NOT_ALLOWED,
    ),
    "messages with an image by URL in a tool's result": (
        "/v1/messages",
        {
            "max_tokens": 5,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "content": [{"type": "image", "source": {"url": "http://x"}}]}
                    ],
                }
            ],
        },
        Code.REMOTE_MEDIA_NOT_ALLOWED,
    ),
    "messages with a huge thinking budget": (
        "/v1/messages",
        {"messages": [user("x")], "max_tokens": 5, "thinking": {"type": "enabled", "budget_tokens": 10**9}},
        Code.INVALID_VALUE,
    ),
    "messages with a user too long": (
        "/v1/messages",
        {"messages": [user("x")], "max_tokens": 5, "metadata": {"user_id": "u" * 513}},
        Code.INVALID_VALUE,
    ),
    "count_tokens without messages": ("/v1/messages/count_tokens", {}, Code.MISSING_FIELD),
    "embeddings without input": ("/v1/embeddings", {"model": "embedder"}, Code.MISSING_FIELD),
    "embeddings with too many inputs": (
        "/v1/embeddings",
        {"model": "embedder", "input": ["x"] * 257},
        Code.INVALID_VALUE,
    ),
    "embeddings with a template": (
        "/v1/embeddings",
        {"model": "embedder", "messages": [user("x")], "chat_template": "x"},
        Code.FIELD_NOT_ALLOWED,
    ),
    "rerank without documents": ("/v1/rerank", {"model": "scorer", "query": "x"}, Code.MISSING_FIELD),
    "rerank with too many documents": (
        "/v1/rerank",
        {"model": "scorer", "query": "x", "documents": ["x"] * 257},
        Code.INVALID_VALUE,
    ),
    "rerank with too many parts": (
        "/v1/rerank",
        {"model": "scorer", "query": "x", "documents": {"content": [{}] * 257}},
        Code.INVALID_VALUE,
    ),
    "score without a second text": ("/v1/score", {"model": "scorer", "text_1": "x"}, Code.MISSING_FIELD),
    "score with too many texts": (
        "/v1/score",
        {"model": "scorer", "text_1": "x", "text_2": ["x"] * 257},
        Code.INVALID_VALUE,
    ),
    "tokenize without a text": ("/tokenize", {}, Code.MISSING_FIELD),
    "tokenize of a list": ("/tokenize", {"prompt": ["x"]}, Code.INVALID_VALUE),
    "tokenize of too long a text": ("/tokenize", {"prompt": "x" * 2_000}, Code.INVALID_VALUE),
    "tokenize of too long a conversation": (
        "/tokenize",
        {"messages": [user("x" * 2_000)]},
        Code.INVALID_VALUE,
    ),
    "tokenize of too many tools": (
        "/tokenize",
        {"messages": [user("x")], "tools": [{"type": "function"}] * 100},
        Code.INVALID_VALUE,
    ),
    "tokenize with a switch as text": (
        "/tokenize",
        {"prompt": "x", "return_token_strs": "yes"},
        Code.INVALID_VALUE,
    ),
    "tokenize of an image by URL": (
        "/tokenize",
        {"messages": [{"role": "user", "content": [IMAGE]}]},
        Code.REMOTE_MEDIA_NOT_ALLOWED,
    ),
    "detokenize without tokens": ("/detokenize", {}, Code.MISSING_FIELD),
    "detokenize of text": ("/detokenize", {"tokens": "x"}, Code.INVALID_VALUE),
    "detokenize of half a token": ("/detokenize", {"tokens": [1.5]}, Code.INVALID_VALUE),
    "detokenize of a token below zero": ("/detokenize", {"tokens": [1, -1]}, Code.INVALID_VALUE),
    "detokenize of a token that fits no tokenizer": ("/detokenize", {"tokens": [2**31]}, Code.INVALID_VALUE),
    "embeddings of a chat model": ("/v1/embeddings", {"input": "x"}, Code.UNSUPPORTED_ENDPOINT),
    "chat with an embedding model": (
        CHAT,
        {"model": "embedder", "messages": [user("x")]},
        Code.UNSUPPORTED_ENDPOINT,
    ),
    "score by a chat model": ("/v1/score", {"text_1": "x", "text_2": "y"}, Code.UNSUPPORTED_ENDPOINT),
}

JSON = (b"content-type", b"application/json")
GOOD = json.dumps({"model": "chat", "messages": [user("x")]}).encode()
DEEP = b'{"model":"chat","messages":' + b"[" * 65 + b"]" * 65 + b"}"

# body, further headers -> code
RAW: dict[str, tuple[bytes, list[Header], Code]] = {
    "an empty body": (b"", [], Code.INVALID_JSON),
    "no JSON": (b"hello", [], Code.INVALID_JSON),
    "a JSON list": (b"[]", [], Code.INVALID_JSON),
    "a JSON string": (b'"x"', [], Code.INVALID_JSON),
    "half an object": (GOOD[:-1], [], Code.INVALID_JSON),
    "two objects": (GOOD + GOOD, [], Code.INVALID_JSON),
    "NaN": (GOOD[:-1] + b',"temperature":NaN}', [], Code.INVALID_JSON),
    "not UTF-8": (GOOD.replace(b'"x"', b'"\xff"'), [], Code.INVALID_JSON),
    "half a surrogate pair": (GOOD.replace(b'"x"', b'"\\ud800"'), [], Code.INVALID_JSON),
    "too deep": (DEEP, [], Code.JSON_TOO_COMPLEX),
    "too many objects": (b'{"a":[' + b"{}," * 2_001 + b"{}]}", [], Code.JSON_TOO_COMPLEX),
    "too many values": (b'{"a":[' + b"1," * 5_001 + b"1]}", [], Code.JSON_TOO_COMPLEX),
    "a body over the limit": (b" " * 200_001, [], Code.BODY_TOO_LARGE),
    "a body that says it is over the limit": (
        b"{}",
        [(b"content-length", b"99999999")],
        Code.BODY_TOO_LARGE,
    ),
    "a form": (
        GOOD,
        [(b"content-type", b"application/x-www-form-urlencoded")],
        Code.UNSUPPORTED_MEDIA_TYPE,
    ),
    "text that is JSON": (GOOD, [(b"content-type", b"text/plain")], Code.UNSUPPORTED_MEDIA_TYPE),
    "JSON in another charset": (
        GOOD,
        [(b"content-type", b"application/json; charset=utf-16")],
        Code.UNSUPPORTED_MEDIA_TYPE,
    ),
    "a compressed body": (GOOD, [(b"content-encoding", b"gzip")], Code.UNSUPPORTED_MEDIA_TYPE),
    "headers over the limit": (GOOD, [(b"x-long", b"x" * 40_000)], Code.HEADERS_TOO_LARGE),
    "many small headers": (
        GOOD,
        [(b"x-%d" % i, b"x") for i in range(5_000)],
        Code.HEADERS_TOO_LARGE,
    ),
    "length and chunks": (GOOD, [(b"transfer-encoding", b"chunked")], Code.INVALID_REQUEST),
    "a length of words": (GOOD, [(b"content-length", b"ten")], Code.INVALID_REQUEST),
    "a signed length": (GOOD, [(b"content-length", b"+10")], Code.INVALID_REQUEST),
    "two lengths": (
        GOOD,
        [(b"content-length", b"5"), (b"content-length", b"6")],
        Code.INVALID_REQUEST,
    ),
    "two keys": (
        GOOD,
        [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")],
        Code.INVALID_REQUEST,
    ),
    "two hosts": (GOOD, [(b"host", b"a"), (b"host", b"b")], Code.INVALID_REQUEST),
    "a host with a path": (GOOD, [(b"host", b"a/?x=")], Code.INVALID_REQUEST),
    "a host with a user": (GOOD, [(b"host", b"u@a")], Code.INVALID_REQUEST),
    "an empty host": (GOOD, [(b"host", b"")], Code.INVALID_REQUEST),
}

# method, path -> code
PLACES: dict[str, tuple[str, str, Code]] = {
    "an unknown path": ("GET", "/v2/models", Code.NOT_FOUND),
    "the root": ("GET", "/", Code.NOT_FOUND),
    "a slash too many": ("POST", CHAT + "/", Code.NOT_FOUND),
    "a doubled slash": ("POST", "//v1/chat/completions", Code.NOT_FOUND),
    "an escaped letter": ("POST", "/v1/ch%61t/completions", Code.NOT_FOUND),
    "a dotted path": ("POST", "/v1/x/../chat/completions", Code.NOT_FOUND),
    "another case": ("POST", "/V1/chat/completions", Code.NOT_FOUND),
    "GET on chat": ("GET", CHAT, Code.METHOD_NOT_ALLOWED),
    "PUT on chat": ("PUT", CHAT, Code.METHOD_NOT_ALLOWED),
    "POST on models": ("POST", "/v1/models", Code.METHOD_NOT_ALLOWED),
    "DELETE on a model": ("DELETE", "/v1/models/chat", Code.METHOD_NOT_ALLOWED),
    "a method nobody knows": ("BREW", CHAT, Code.METHOD_NOT_ALLOWED),
    "metrics": ("GET", "/metrics", Code.NOT_FOUND),
    "PUT on a response": ("PUT", "/v1/responses/resp_1", Code.METHOD_NOT_ALLOWED),
    "a response": ("GET", "/v1/responses/resp_1", Code.RESPONSE_NOT_FOUND),
    "a response to delete": ("DELETE", "/v1/responses/resp_1", Code.RESPONSE_NOT_FOUND),
    "a response to cancel": ("POST", "/v1/responses/resp_1/cancel", Code.RESPONSE_NOT_FOUND),
    "what a response was asked": ("GET", "/v1/responses/resp_1/input_items", Code.RESPONSE_NOT_FOUND),
    "a model that is not there": ("GET", "/v1/models/gpt-7", Code.MODEL_NOT_FOUND),
}


def scene() -> Any:
    models = [
        deployment(),
        deployment("embedder", task=Task.EMBED),
        deployment("scorer", task=Task.SCORE),
    ]
    return stage(config(deployments=models, limits=LIMITS))


def expect(reply: Reply, code: Code, scene: Stage) -> None:
    """The code, its status, OpenAI's error object and a request id; the engine heard nothing."""
    assert (reply.code, reply.status) == (code.wire, code.value.status)
    assert reply.complete
    error = reply.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith(".")
    assert reply.header("content-type") == "application/json"
    assert reply.header("content-length") == str(len(reply.body))
    assert (reply.header("x-request-id") or "").startswith("req_")
    assert scene.seen() == 0
    record = scene.records.last
    assert (record.status, record.code) == (code.value.status, code.wire)


@pytest.mark.parametrize("case", CHAT_FIELDS)
async def test_a_chat_field_is_refused(case: str) -> None:
    fields, code = CHAT_FIELDS[case]
    async with scene() as s:
        reply = await s.client.chat(**fields)
        expect(reply, code, s)
        if code is not Code.MODEL_NOT_FOUND:
            assert reply.json["error"]["param"].split(".")[0] in fields


@pytest.mark.parametrize("case", OTHER_BODIES)
async def test_a_body_is_refused(case: str) -> None:
    path, fields, code = OTHER_BODIES[case]
    async with scene() as s:
        reply = await s.client.post(path, {"model": "chat", **fields})
        expect(reply, code, s)
        assert ("type" in reply.json) == path.startswith("/v1/messages")


@pytest.mark.parametrize("case", RAW)
async def test_a_request_is_refused(case: str) -> None:
    body, headers, code = RAW[case]
    async with scene() as s:
        expect(await s.client.post(CHAT, body, headers), code, s)


@pytest.mark.parametrize("case", PLACES)
async def test_a_place_is_refused(case: str) -> None:
    method, path, code = PLACES[case]
    async with scene() as s:
        reply = await s.client.send(method, path, GOOD if method == "POST" else None, [JSON])
        expect(reply, code, s)
        if code is Code.METHOD_NOT_ALLOWED:
            assert reply.header("allow") in (
                "POST, OPTIONS",
                "GET, HEAD, OPTIONS",
                "GET, DELETE, HEAD, OPTIONS",
            )


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
@pytest.mark.parametrize("name", ["chat_template", "kv_transfer_params", "priority", "mm_processor_kwargs"])
async def test_control_fields_are_refused_on_every_endpoint(endpoint: Any, name: str) -> None:
    async with scene() as s:
        reply = await s.client.post(endpoint.path, {"model": "chat", name: {"a": 1}})
        expect(reply, Code.FIELD_NOT_ALLOWED, s)
        assert reply.json["error"]["param"] == name


async def test_a_missing_host_is_refused_in_http_1_1_only() -> None:
    async with scene() as s:
        s.client.headers = [pair for pair in s.client.headers if pair[0] != b"host"]
        expect(await s.client.post(CHAT, GOOD), Code.INVALID_REQUEST, s)
        assert (await s.client.post(CHAT, GOOD, http_version="1.0")).status == 200


async def test_a_body_that_drips_is_cut_at_its_deadline() -> None:
    async with scene() as s:
        reply = await s.client.send("POST", CHAT, GOOD[:10], [JSON], hang=True)
        expect(reply, Code.REQUEST_TIMEOUT, s)
        assert reply.header("connection") == "close"


async def test_a_body_that_grows_is_cut_at_its_limit() -> None:
    async with scene() as s:
        reply = await s.client.send("POST", CHAT, [b" " * 100_000] * 30, [JSON])
        expect(reply, Code.BODY_TOO_LARGE, s)


async def test_a_client_that_leaves_while_it_sends_is_forgotten() -> None:
    async with scene() as s:
        gone = asyncio.Event()
        gone.set()
        reply = await s.client.send("POST", CHAT, GOOD[:10], [JSON], hang=True, gone=gone)
        assert reply.status == 0
        assert s.records.last.outcome == "cancelled"


async def test_more_requests_than_the_gateway_takes_get_503() -> None:
    limits = RequestLimits(concurrent_requests=1)
    async with stage(config(limits=limits)) as s:
        s.gateway.directory.update(s.config.deployments[0], [])
        gone = asyncio.Event()
        waiting = asyncio.create_task(s.client.post(CHAT, GOOD, gone=gone))
        async with asyncio.timeout(5):
            while not s.gateway.admission.load("llama").waiting:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)
        reply = await s.client.post(CHAT, GOOD)
        expect(reply, Code.NO_CAPACITY, s)
        assert reply.header("retry-after") == "1"
        gone.set()
        await waiting


async def test_null_means_absent() -> None:
    fields = dict.fromkeys(("n", "stop", "tools", "chat_template", "priority", "kv_transfer_params", "user"))
    async with scene() as s:
        assert (await s.client.chat(**fields, stream=None)).status == 200
        sent = s.engine.seen[-1].json
        assert {"chat_template", "priority", "kv_transfer_params"}.isdisjoint(sent)


async def test_a_gateway_without_configuration_says_so() -> None:
    from tests.unit.gateway.asgi import Client, make_gateway

    gateway, records, _, upstream = make_gateway()
    client = Client(gateway)
    for reply in (await client.chat(), await client.get("/v1/models")):
        assert (reply.status, reply.code) == (503, "model_unavailable")
    assert len(records.items) == 2
    await upstream.close()


async def test_every_variant_of_a_route_must_fit_the_endpoint() -> None:
    mixed = route(
        "mixed", VariantEntry(name="a", deployment="embedder"), VariantEntry(name="b", deployment="embedder")
    )
    models = [deployment("embedder", task=Task.EMBED)]
    async with stage(config(deployments=models, routes=[mixed], tenants=[tenant()])) as s:
        expect(await s.client.chat(model="mixed"), Code.UNSUPPORTED_ENDPOINT, s)
        assert (await s.client.post("/v1/embeddings", {"model": "mixed", "input": "x"})).status == 200
