"""No body of the largest size holds the loop for long, whatever is in which field."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.gateway.hostile import VALUES, body_of, distinct_fields, every_field
from tradewind.api.wire import (
    DeploymentEntry,
    GatewayConfig,
    Overrides,
    RequestLimits,
    RouteEntry,
    VariantEntry,
)
from tradewind.gateway.endpoints import CHAT, EMBEDDINGS, ENDPOINTS, MESSAGES, Endpoint
from tradewind.gateway.prepare import check_request, render_body
from tradewind.gateway.problems import Refused
from tradewind.routing.table import CompiledVariant, RouteTable

LIMITS = RequestLimits()
SALT = msgspec.Raw(b'"salt"')
BUDGET_MS = 45
"""Of a core where `yardstick` takes YARD_MS: 20 ms are wanted of a quiet one, and what a neighbour does to
memory makes passes over it twice as dear without the yardstick's seeing it. A value that costs by the number
of its parts, which is what froze a gateway, took seconds."""
YARD_MS = 5.2
_TEXT = b"x" * LIMITS.body_bytes
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]"))


def yardstick() -> float:
    """Seconds of CPU for one pass over the largest body and a loop of Python."""
    began = time.thread_time()
    _TEXT.translate(None, _ALL_BUT_BRACKETS)
    for _ in range(60_000):
        pass
    return time.thread_time() - began


def variant() -> CompiledVariant:
    """One that sets all there is to set."""
    overrides = Overrides(temperature=0.5, max_tokens=5, system_prompt="Be brief.")
    entry = VariantEntry(name="v", deployment="m", overrides=overrides)
    table = RouteTable.build(
        GatewayConfig(
            revision="r",
            deployments=(DeploymentEntry(name="m", app="m", prefix="/m", family="llama"),),
            routes=(RouteEntry(model="chat", variants=(entry,)),),
        )
    )
    return table.routes["chat"].variants[0]


VARIANT = variant()


def run(body: bytes, endpoint: Endpoint) -> bytes | Refused:
    """What becomes of a body: the engine's, or why not."""
    try:
        return render_body(check_request(body, endpoint, LIMITS), VARIANT, SALT)
    except Refused as refused:
        return refused


def cost(body: bytes, endpoint: Endpoint) -> float:
    """Milliseconds of CPU, in those of a core where the yardstick takes YARD_MS; the best of a few."""
    best = float("inf")
    for _ in range(4):
        began = time.thread_time()
        run(body, endpoint)
        spent = time.thread_time() - began
        if spent * 1e3 < BUDGET_MS:
            return spent * 1e3
        best = min(best, spent / yardstick() * YARD_MS)
    return best


def test_numbers_where_one_is_wanted_hold_nothing_up() -> None:
    body = b'{"model":"m","messages":[{"role":"user"}],"n":[' + b"1e300," * 999_000 + b"1]}"
    assert len(body) < LIMITS.body_bytes
    assert cost(body, CHAT) < BUDGET_MS
    refused = run(body, CHAT)
    assert isinstance(refused, Refused)
    assert (refused.code.wire, refused.param) == ("invalid_value", "n")


@pytest.mark.parametrize("kind", VALUES)
def test_no_value_in_any_field_holds_the_loop(kind: str) -> None:
    value = VALUES[kind]()
    costs = {}
    for endpoint, field in distinct_fields():
        body = body_of(endpoint, field, value)
        assert len(body) <= LIMITS.body_bytes
        costs[endpoint.path, field] = cost(body, endpoint)
    assert {where: spent for where, spent in costs.items() if spent > BUDGET_MS} == {}


@pytest.mark.parametrize(
    "field",
    ["messages", "n", "stop", "tools", "response_format", "user", "logit_bias", "stream", "unknown"],
)
def test_many_fields_share_what_one_may_cost(field: str) -> None:
    # Members that are dropped or passed on unread beside the one under test.
    rest = b",".join(b'"m%d":[%s1]' % (i, b"1e300," * 900) for i in range(1_000))
    own = b'[{"content":["url",1e300]}]'
    members = {"model": b'"m"', "messages": b"[{}]", field: own}
    body = b"{" + rest + b"".join(b',"%s":%s' % (k.encode(), v) for k, v in members.items()) + b"}"
    assert cost(body, CHAT) < BUDGET_MS


def image(megabytes: int) -> str:
    return "data:image/png;base64," + "iVBORw0KGgo+/A0c" * (megabytes * 65_536)


SCHEMA = {
    "type": "object",
    "properties": {
        f"field_{i}": {
            "type": "string",
            "description": "What it is, in a few words, and what it is not.",
            "pattern": r"^[A-Z]{2}\d{6}$",
            "maxLength": 20,
            "enum": ["a", "b", "c"],
        }
        for i in range(12)
    },
    "required": ["field_0"],
}
TURN = [
    {"role": "user", "content": [{"type": "text", "text": "Hello, url!"}]},
    {"role": "assistant", "content": "Hi"},
]

HONEST: dict[str, tuple[Endpoint, dict[str, Any]]] = {
    "a prompt of 220 KB": (CHAT, {"messages": [{"role": "user", "content": "A word, or two. " * 14_000}]}),
    "a prompt of code": (CHAT, {"messages": [{"role": "user", "content": 'x = {"a": [1, 2]}\n' * 12_000}]}),
    "a prompt in Chinese": (CHAT, {"messages": [{"role": "user", "content": "你好，世界。" * 12_000}]}),
    "images of 8 MB": (
        CHAT,
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": image(4)}}] * 2},
            ]
        },
    ),
    "an image in a tool's result": (
        MESSAGES,
        {
            "max_tokens": 5,
            "messages": [
                {"role": "assistant", "content": [{"type": "tool_use", "input": {"url": "https://x/y"}}]},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "content": [
                                {"type": "image", "source": {"type": "base64", "data": image(8)[22:]}}
                            ],
                        }
                    ],
                },
            ],
        },
    ),
    "2,000 messages": (CHAT, {"messages": TURN * 1_000}),
    "128 tools": (
        CHAT,
        {
            "messages": TURN,
            "tools": [
                {"type": "function", "function": {"name": f"f{i}", "parameters": SCHEMA}} for i in range(128)
            ],
        },
    ),
    "token ids": (EMBEDDINGS, {"input": [list(range(512))] * 256}),
}


@pytest.mark.parametrize("case", HONEST)
@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "as it is"])
def test_honest_requests_pass_and_cost_little(case: str, ascii_only: bool) -> None:
    endpoint, fields = HONEST[case]
    body = json.dumps({"model": "m", **fields}, ensure_ascii=ascii_only).encode()
    rendered = run(body, endpoint)
    assert isinstance(rendered, bytes), rendered.message
    seen = json.loads(rendered)
    for name in fields.keys() - {"messages", "max_tokens"}:
        assert seen[name] == fields[name]
    assert cost(body, endpoint) < BUDGET_MS


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just(10**30)
texts = st.text(max_size=12) | st.sampled_from(
    ["data:x", "https://x", "{", '{"pattern":"("}', "1e999", "[[", "base64"]
)
words = ["url", "uuid", "type", "source", "image_url", "content", "input", "role", "json", "regex", "choice"]
keys = st.text(max_size=6) | st.sampled_from([*words, "pattern", "patternProperties", "maxItems"])
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
raw_anything = anything.map(lambda value: json.dumps(value).encode()) | st.sampled_from(
    [
        b"1e999",
        b"-1e999",
        b"9" * 5_000,
        b"[1e999]",
        b'{"a":' + b"9" * 5_000 + b"}",
        b'"\\ud83d"',
        b"[" * 70,
        b'{"url":}',
    ]
)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.path)
@given(data=st.data())
@settings(max_examples=150, derandomize=True, deadline=None)
def test_any_value_in_any_field_is_refused_or_passed_on_as_json(
    endpoint: Endpoint, data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from([field for owner, field in every_field() if owner is endpoint]))
    value = data.draw(raw_anything)
    outcome = run(body_of(endpoint, field, value), endpoint)
    if isinstance(outcome, Refused):
        assert 400 <= outcome.code.value.status < 500
    else:
        assert json.loads(outcome, parse_int=str)["model"] == VARIANT.upstream_model
