"""JSON bounds: a body is accepted exactly when a naive reference says so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.gateway.hostile import parse
from tradewind.api.problems import Code
from tradewind.api.wire import RequestLimits
from tradewind.gateway.limits import MEMBERS, check_complexity
from tradewind.gateway.problems import Refused

SMALL = RequestLimits(json_depth=4, json_containers=12, json_items=20)

texts = st.text(alphabet=st.sampled_from('ab\\"{}[],:\n é😀'), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=25,
)
objects = st.dictionaries(texts, values, max_size=6)


def measure(value: Any, depth: int = 1) -> tuple[int, int, int]:
    """(depth, containers, commas) of a decoded value."""
    if not isinstance(value, list | dict):
        return depth - 1, 0, 0
    deepest, containers, commas = depth, 1, max(0, len(value) - 1)
    for child in value.values() if isinstance(value, dict) else value:
        d, c, k = measure(child, depth + 1)
        deepest, containers, commas = max(deepest, d), containers + c, commas + k
    return deepest, containers, commas


def within(value: Any, limits: RequestLimits) -> bool:
    depth, containers, commas = measure(value)
    return depth <= limits.json_depth and containers <= limits.json_containers and commas <= limits.json_items


def accepted(body: bytes, limits: RequestLimits) -> bool:
    try:
        check_complexity(body, limits)
    except Refused as refused:
        return refused.code is not Code.JSON_TOO_COMPLEX
    return True


@given(objects, st.booleans(), st.sampled_from([None, 1]))
@example({"\\": ["[", "\\\\"]}, True, None)
@settings(max_examples=60, derandomize=True)
def test_a_body_is_accepted_exactly_when_the_reference_accepts_it(
    value: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert accepted(body, SMALL) == within(value, SMALL)


@given(objects)
@settings(max_examples=60, derandomize=True)
def test_members_keep_their_bytes(value: dict[str, Any]) -> None:
    body = json.dumps(value, indent=1).encode()
    fields = parse(body, RequestLimits())
    assert {name: json.loads(bytes(raw)) for name, raw in fields.items()} == value
    assert all(bytes(raw) in body for raw in fields.values())


@given(st.binary(max_size=60) | st.text(alphabet='{}[],:"\\u0da0 1', max_size=60).map(str.encode))
@settings(max_examples=200, derandomize=True)
def test_what_is_accepted_is_an_object_for_the_engines_parser_too(body: bytes) -> None:
    try:
        fields = parse(body, SMALL)
    except Refused:
        return
    assert set(fields) == set(json.loads(body))


@pytest.mark.parametrize("count", [MEMBERS - 1, MEMBERS, MEMBERS + 1])
def test_the_number_of_members_is_bounded(count: int) -> None:
    body = json.dumps({str(i): 0 for i in range(count)}).encode()
    assert accepted(body, RequestLimits()) == (count <= MEMBERS)


def test_members_of_inner_objects_and_items_do_not_count_as_members() -> None:
    body = json.dumps(
        {"logit_bias": {str(i): 0 for i in range(5_000)}, "prompt": list(range(90_000))}
    ).encode()
    assert set(parse(body, RequestLimits())) == {"logit_bias", "prompt"}


@pytest.mark.parametrize("depth", [63, 64, 65])
def test_a_depth_is_exact_even_with_many_brackets_in_texts(depth: int) -> None:
    body = (
        json.dumps({"text": "[{" * 500, "a": 1}).encode()[:-1]
        + b',"b":'
        + b"[" * (depth - 1)
        + b"]" * (depth - 1)
        + b"}"
    )
    assert accepted(body, RequestLimits()) == (depth <= 64)


def test_blocks_do_not_cut_strings_in_two() -> None:
    text = ('"' + "[{," * 7) * 4_000
    body = json.dumps({"a": [text, text], "b": text}).encode()
    assert accepted(body, RequestLimits(json_containers=2, json_items=2))
    assert not accepted(body, RequestLimits(json_containers=1, json_items=2))
    assert not accepted(body, RequestLimits(json_containers=2, json_items=1))


def test_nesting_beyond_the_parsers_own_bound_is_refused_whatever_the_limits() -> None:
    body = b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    with pytest.raises(Refused):
        parse(body, RequestLimits(json_depth=100_000, json_containers=100_000))
