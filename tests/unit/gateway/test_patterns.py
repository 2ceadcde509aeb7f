"""The size of patterns, and what of a JSON schema is looked at."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradewind.api.wire import RequestLimits
from tradewind.gateway.patterns import EXPANDED_ATOMS, check_pattern, check_schema, expanded_size
from tradewind.gateway.problems import Refused

LIMITS = RequestLimits()

SIZES = {
    "": 0,
    "abc": 3,
    "a*b+c?": 3,
    "[abc]{3}": 3,
    r"\d{2,5}": 5,
    "a{4,}": 4,
    "a{,4}": 4,
    "(ab){3}": 6,
    "((ab){3}c){2}": 14,
    "(a|bc){2}": 6,
    "a{2}{3}": 6,
    r"\{9999\}": 6,
    "[{9999}]": 1,
    "x{}": 2,
    "{5}": 0,
    "(((": 0,
    ")))": 3,
    "[": 1,
}


@pytest.mark.parametrize("pattern", SIZES)
def test_the_size_of_a_pattern(pattern: str) -> None:
    assert expanded_size(pattern) == SIZES[pattern]


@given(st.text(alphabet="ab()[]{}|*+?\\,0123456789", max_size=60))
@settings(max_examples=300, derandomize=True)
def test_any_text_has_a_size(pattern: str) -> None:
    assert expanded_size(pattern) >= 0


PLAIN = st.recursive(
    st.sampled_from("abc"),
    lambda part: (
        st.builds("{}{}".format, part, part)
        | st.builds("({}){{{}}}".format, part, st.integers(min_value=1, max_value=4))
    ),
    max_leaves=6,
)


@given(PLAIN)
@settings(max_examples=100, derandomize=True)
def test_the_size_is_the_length_of_what_a_plain_pattern_matches(pattern: str) -> None:
    size = expanded_size(pattern)
    written_out = pattern
    while found := re.search(r"\(([^()]*)\)\{(\d+)\}", written_out):
        written_out = written_out[: found.start()] + found[1] * int(found[2]) + written_out[found.end() :]
    assert size == len(written_out)


@pytest.mark.parametrize(
    "pattern",
    ["(" * 4_000, "[" * 4_000, "{" * 4_000, "(a{9})" * 600, "[a" * 2_000, "\\" * 4_001],
    ids=str.__len__,
)
def test_reading_a_pattern_takes_no_time(pattern: str) -> None:
    began = time.process_time()
    expanded_size(pattern)
    assert time.process_time() - began < 0.2


REFUSED: dict[str, Any] = {
    "a pattern bomb": {"properties": {"a": {"pattern": "(a{999}){999}"}}},
    "a pattern bomb as a name": {"patternProperties": {"(a{999}){999}": {}}},
    "a pattern too long": {"pattern": "a" * 4_097},
    "a huge list": {"type": "array", "minItems": 10**9},
    "a huge text": {"items": [{"maxLength": 10**12}]},
    "a huge count as a float": {"maxItems": 1e12},
    "a bomb in a schema that is text": json.dumps({"pattern": "(a{999}){999}"}),
    "text that is no schema": "{",
    "too large": {"description": "x" * 70_000},
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_schema_is_refused(case: str) -> None:
    with pytest.raises(Refused) as caught:
        check_schema(msgspec.Raw(json.dumps(REFUSED[case]).encode()), "s", LIMITS, LIMITS.schema_bytes)
    assert caught.value.code.wire == "invalid_value"


def test_an_ordinary_schema_passes() -> None:
    schema = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "pattern": r"^[A-Z]{2}\d{6}$"},
            "pattern": {"type": "string", "maxLength": 2_000},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 20},
        },
        "required": ["id"],
    }
    check_schema(msgspec.Raw(json.dumps(schema).encode()), "s", LIMITS, LIMITS.schema_bytes)


def test_a_pattern_at_the_bound_passes() -> None:
    check_pattern(f"a{{{EXPANDED_ATOMS}}}", "p", LIMITS)
    with pytest.raises(Refused):
        check_pattern(f"a{{{EXPANDED_ATOMS + 1}}}", "p", LIMITS)
