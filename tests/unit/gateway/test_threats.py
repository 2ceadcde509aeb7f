"""Tests for each row of the threat table that is the gateway's to defend. Rows 6 and 7: test_auth."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import tracemalloc
from typing import Any

import pytest

from tests.fakes.engine import Fault, Script
from tests.unit.gateway.asgi import (
    CHAT,
    KEY,
    OTHER_KEY,
    TOKEN,
    Reply,
    config,
    deployment,
    route,
    stage,
    tenant,
    user,
)
from tests.unit.gateway.hostile import parse
from tradewind.api.wire import RequestLimits, VariantEntry
from tradewind.gateway.patterns import EXPANDED_ATOMS, expanded_size
from tradewind.gateway.prepare import salt_secret, tenant_salt
from tradewind.gateway.problems import Refused
from tradewind.routing.replica import AdapterReport

CANARY = "canary-prompt-6f1d"


@pytest.mark.parametrize(
    "host", [b"a/?x=", b"a?x", b"a#", b"a\\b", b"a b", b"a@b", b"[::1", b"a:port", b"a:1:2", b""]
)
async def test_row_1_a_host_header_cannot_move_a_request(host: bytes) -> None:
    async with stage() as s:
        reply = await s.client.post(CHAT, {"model": "chat", "messages": [user("x")]}, [(b"host", host)])
        assert (reply.status, reply.code) == (400, "invalid_request")
        assert s.seen() == 0


async def test_row_1_the_raw_path_decides_not_what_a_server_made_of_it() -> None:
    async with stage() as s:
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}"}

        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": CHAT, "query_string": b"",
            "raw_path": b"/sleep", "headers": [(b"host", b"x"), (b"x-api-key", KEY.encode())],
        }  # fmt: skip
        await s.app(scope, receive, send)
        assert sent[0]["status"] == 404


async def test_row_1_a_query_changes_nothing() -> None:
    async with stage() as s:
        reply = await s.client.post(CHAT + "?beta=true&x=/sleep", {"model": "chat", "messages": [user("x")]})
        assert reply.status == 200
        assert s.engine.seen[-1].target == "/engines/llama" + CHAT


async def test_row_2_framing_is_never_relayed() -> None:
    headers = [
        (b"connection", b"keep-alive, x-secret"), (b"x-secret", b"1"), (b"te", b"trailers"),
        (b"upgrade", b"h2c"),
        (b"proxy-authorization", b"x"), (b"expect", b"100-continue"), (b"trailer", b"x"),
    ]  # fmt: skip
    async with stage() as s:
        assert (await s.client.chat(headers)).status == 200
        seen = s.engine.seen[-1]
        assert set(seen.headers) == {
            "host", "content-type", "accept-encoding", "content-length", "traceparent", "x-request-id",
            "x-tradewind-token",
        }  # fmt: skip
        assert seen.headers["content-length"] == str(len(seen.body))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 500_000,
        b'{"a":' + b"[" * 1_500_000 + b"]" * 1_500_000 + b"}",
        b'{"a":[' + b"{}," * 1_000_000 + b"{}]}",
        b'{"a":[' + b"1," * 1_500_000 + b"1]}",
        b'{"a":"' + b'\\"' * 1_500_000,
        b'{"a":"' + b"\\" * 3_000_001,
        b'"' * 3_000_001,
        b"{" + b'"a":1,' * 400_000 + b'"a":1}',
        b"{" + b'"a":1,' * 90_000 + b'"a":1}',
        b'{"a":[' + b'"[[",' * 300_000 + b"1]}",
    ],
    ids=[
        "lists",
        "objects",
        "closed",
        "wide",
        "long",
        "quotes",
        "backslashes",
        "strings",
        "members",
        "fewer members",
        "strings of brackets",
    ],
)
def test_row_3_json_bombs_end_soon_and_cost_little_memory(body: bytes) -> None:
    limits = RequestLimits(json_items=100_000)
    began = time.process_time()
    with pytest.raises(Refused):
        parse(body, limits)
    spent = time.process_time() - began
    tracemalloc.start()
    with pytest.raises(Refused):
        parse(body, limits)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 0.5
    assert peak < 4 * len(body) + 10_000_000


async def test_row_4_a_dripped_body_is_cut_and_its_connection_closed() -> None:
    async with stage(config(limits=RequestLimits(body_timeout_s=0.02))) as s:
        reply = await s.client.send("POST", CHAT, [b"{"], [(b"content-type", b"application/json")], hang=True)
        assert (reply.status, reply.header("connection")) == (408, "close")
        assert s.gateway.active == 0


async def test_row_5_inbound_ids_and_reserved_headers_are_dropped() -> None:
    spoofed = [
        (b"x-request-id", b"evil\r\nx: y"), (b"x-tradewind-token", b"f" * 64),
        (b"x-tradewind-tenant", b"other"), (b"x-tradewind-variant", b"candidate"),
    ]  # fmt: skip
    async with stage() as s:
        reply = await s.client.chat(spoofed)
        seen = s.engine.seen[-1]
        assert reply.status == 200
        assert reply.header("x-request-id") == seen.headers["x-request-id"] == s.records.last.request_id
        assert seen.headers["x-tradewind-token"] == TOKEN
        assert "x-tradewind-tenant" not in seen.headers
        assert reply.header("x-tradewind-variant") == "control"


async def test_row_5_a_reserved_header_is_no_unit_of_assignment() -> None:
    split = route(
        "chat",
        *(VariantEntry(name=name, deployment="llama") for name in "abcdefgh"),
        assign_by=("header:x-tradewind-unit",),
    )
    async with stage(config(routes=[split])) as s:
        for _ in range(3):
            await s.client.chat([(b"x-tradewind-unit", b"me")])
        assert {record.assignment for record in s.records.items} == {"request"}


async def test_row_8_and_13_nothing_but_the_table_is_proxied() -> None:
    paths = [
        "/sleep", "/wake_up", "/collective_rpc", "/update_weights", "/invocations", "/tokenizer_info",
        "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/tradewind/stats", "/server_info",
        "/tradewind/usage/req_0123456789abcdef0123456789abcdef",
        "/reset_prefix_cache", "/docs", "/redoc", "/load", "/pooling", "/classify",
        "/v1/audio/transcriptions", "/v1/responses/resp_1/other", "/v1/responses/",
        "/engines/llama/v1/chat/completions", "/-/routes", "/api/serve/applications/", "/admin", "/config",
    ]  # fmt: skip
    async with stage() as s:
        for path in paths:
            for method in ("GET", "POST"):
                reply = await s.client.send(method, path, b"{}" if method == "POST" else None)
                assert (reply.status, reply.code) == (404, "not_found"), (method, path)
        # Names that vLLM has too, answered here: none of them is handed on.
        for path in ("/metrics", "/ping", "/version", "/health", "/v1/responses/resp_1"):
            for method in ("GET", "POST", "DELETE"):
                await s.client.send(method, path, b"{}" if method == "POST" else None)
        await s.client.send("POST", "/v1/responses/resp_1/cancel", b"{}")
        assert s.seen() == 0


async def test_row_9_the_clients_cache_salt_gives_way_to_the_tenants() -> None:
    settings = config(tenants=[tenant(), tenant("other", "OTHER_KEY")])
    async with stage(settings) as s:
        salts = []
        for key in (KEY, KEY, OTHER_KEY):
            s.client.headers = [(b"host", b"x"), (b"x-api-key", key.encode())]
            assert (await s.client.chat(cache_salt="../../@evil")).status == 200
            salts.append(s.engine.seen[-1].json["cache_salt"])
        assert salts[0] == salts[1] != salts[2]
        assert all(len(salt) == 64 and set(salt) <= set("0123456789abcdef") for salt in salts)
        again = json.loads(bytes(tenant_salt(salt_secret(TOKEN), "acme")))
        assert salts[0] == again, "every gateway replica finds the same salt, or no prefix would be shared"


async def test_row_9_every_endpoint_that_takes_a_salt_gets_one() -> None:
    bodies: dict[str, dict[str, Any]] = {
        CHAT: {"messages": [user("x")]},
        "/v1/completions": {"prompt": "x"},
        "/v1/responses": {"input": "x"},
        "/v1/messages": {"messages": [user("x")], "max_tokens": 1},
        "/v1/messages/count_tokens": {"messages": [user("x")]},
        "/tokenize": {"prompt": "x"},
        "/detokenize": {"tokens": [1]},
    }
    without = {"/v1/messages/count_tokens", "/tokenize", "/detokenize"}
    async with stage() as s:
        for path, body in bodies.items():
            assert (await s.client.post(path, {"model": "chat", "cache_salt": "mine", **body})).status == 200
            assert ("cache_salt" in s.engine.seen[-1].json) == (path not in without)
            assert s.engine.seen[-1].json.get("cache_salt") != "mine"


def test_row_11_a_short_pattern_cannot_become_a_large_automaton() -> None:
    assert expanded_size("((a{1000}){1000}){1000}") > EXPANDED_ATOMS
    assert expanded_size("(a{99999}b{99999})") > EXPANDED_ATOMS
    assert expanded_size(r"\d{4}-\d{2}-\d{2}") == 10
    assert expanded_size("[a-z]{1,64}@[a-z]{1,64}") == 129
    assert expanded_size("a{" + "9" * 100_000 + "}") > EXPANDED_ATOMS


async def test_row_11_a_member_sent_twice_is_checked_as_the_engine_would_read_it() -> None:
    twice = b'{"model":"chat","n":1,"n":1000000000,"messages":[{"role":"user","content":"x"}]}'
    escaped = b'{"model":"chat","n":1,"\\u006e":1000000000,"messages":[{"role":"user","content":"x"}]}'
    harmless = b'{"model":"chat","n":1000000000,"n":2,"messages":[{"role":"user","content":"x"}]}'
    async with stage() as s:
        for body in (twice, escaped):
            assert (await s.client.post(CHAT, body)).code == "invalid_value"
        assert s.seen() == 0
        assert (await s.client.post(CHAT, harmless)).status == 200
        assert s.engine.seen[-1].body.count(b'"n"') == 1
        assert s.engine.seen[-1].json["n"] == 2


async def test_row_12_a_chat_template_never_reaches_an_engine() -> None:
    async with stage() as s:
        for fields in (
            {"chat_template": "{{ 7*7 }}"},
            {"chat_template_kwargs": {"chat_template": "{{ 7*7 }}"}},
        ):
            assert (await s.client.chat(**fields)).code == "field_not_allowed"
        raw = b'{"model":"chat","chat\\u005ftemplate":"{{ 7*7 }}","messages":[{"role":"user","content":"x"}]}'
        assert (await s.client.post(CHAT, raw)).code == "field_not_allowed"
        assert s.seen() == 0


async def test_row_10_an_escaped_key_cannot_hide_a_url() -> None:
    raw = (
        b'{"model":"chat","messages":[{"role":"user","content":'
        b'[{"type":"image_\\u0075rl","image_\\u0075rl":{"\\u0075rl":"http://169.254.169.254/"}}]}]}'
    )
    async with stage() as s:
        assert (await s.client.post(CHAT, raw)).code == "remote_media_not_allowed"
        assert s.seen() == 0


async def test_row_10_inline_media_and_urls_in_texts_pass() -> None:
    data = "data:image/png;base64,AAAA"
    contents: list[Any] = [
        "look at https://example.com/x.png",
        [{"type": "text", "text": "https://example.com"}, {"type": "image_url", "image_url": {"url": data}}],
        [{"image_url": "DATA:image/png;base64,AAAA"}],
    ]
    call = {"function": {"name": "open", "arguments": '{"image_url": "https://example.com"}'}}
    async with stage() as s:
        for content in contents:
            assert (await s.client.chat(messages=[{"role": "user", "content": content}])).status == 200
        messages = [user("x"), {"role": "assistant", "tool_calls": [call]}]
        assert (await s.client.chat(messages=messages)).status == 200
        block = {"type": "tool_use", "id": "1", "name": "open", "input": {"image_url": "https://example.com"}}
        body = {"model": "chat", "max_tokens": 5, "messages": [{"role": "assistant", "content": [block]}]}
        assert (await s.client.post("/v1/messages", body)).status == 200


async def test_row_10_remote_media_can_be_allowed() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    async with stage(config(limits=RequestLimits(remote_media=True))) as s:
        assert (await s.client.chat(messages=[{"role": "user", "content": [part]}])).status == 200


async def test_row_14_adapters_come_from_the_deployment_only() -> None:
    settings = config(
        deployments=[deployment(adapters=("tone",))],
        routes=[route("chat", VariantEntry(name="tone", deployment="llama", adapter="tone"))],
    )
    async with stage(settings) as s:
        s.report("llama", {"tone": AdapterReport("ready"), "other": AdapterReport("ready")})
        assert (await s.client.chat()).status == 200
        assert s.engine.seen[-1].json["model"] == "llama:tone"
        for name in ("llama:../../etc", "llama:other", "../llama", "/models/x", "llama:"):
            assert (await s.client.chat(model=name)).status == 404
        assert (await s.client.chat(lora_request={"lora_path": "/x"})).code == "field_not_allowed"
        assert s.seen() == 1


FAULTS = [
    Script(tokens=3),
    Script(fault=Fault.GARBAGE),
    Script(fault=Fault.UNAVAILABLE),
    Script(fault=Fault.RESET_BEFORE_HEAD),
    Script(fault=Fault.RESET_MID_STREAM, fault_after=1),
]


@pytest.mark.parametrize("script", FAULTS, ids=lambda script: script.fault.value)
async def test_row_17_neither_prompt_nor_key_is_logged_recorded_or_counted(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    replies: list[Reply] = []
    async with stage(script=script) as s:
        for stream in (False, True):
            reply = await s.client.chat(messages=[user(CANARY)], stream=stream, user=CANARY)
            replies.append(reply)
        replies += [
            await s.client.chat(messages=[user(CANARY)], n=CANARY),
            await s.client.chat(messages=[user(CANARY)], chat_template=CANARY),
            await s.client.chat(model=CANARY),
            await s.client.post(CHAT, CANARY.encode()),
            await s.client.get(f"/v1/models/{CANARY}"),
            await s.client.get(f"/{CANARY}"),
        ]
        told = [str(record) for record in s.records.items] + [str(s.metrics.snapshot())]
    told += [
        record.getMessage() + str(record.__dict__) for record in caplog.records if record.name != "asyncio"
    ]
    for text in told:
        assert CANARY not in text
        assert KEY not in text
        assert TOKEN not in text
    for reply in replies:
        assert TOKEN.encode() not in reply.body
        assert KEY.encode() not in reply.body


async def test_row_17_a_bug_is_logged_by_its_place_and_answered_by_its_code(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(CANARY)

    async with stage() as s:
        state = s.gateway._state
        assert state is not None
        monkeypatch.setattr(type(state.table), "resolve", broken)
        reply = await s.client.chat()
        assert (reply.status, reply.code) == (500, "internal_error")
        assert CANARY.encode() not in reply.body
        assert s.records.last.outcome == "internal"
    (logged,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert logged.__dict__["error_type"] == "RuntimeError"
    assert logged.__dict__["request_id"] == reply.header("x-request-id")
    assert CANARY not in str(logged.__dict__)


async def test_other_kinds_of_scope_are_turned_away() -> None:
    async with stage() as s:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        await s.app({"type": "websocket", "path": CHAT}, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1003}]
        await asyncio.sleep(0)
