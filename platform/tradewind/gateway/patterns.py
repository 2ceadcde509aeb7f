"""Bounds on structured output: what a grammar compiler would have to expand.

A short regex can be a large automaton: `((a{1000}){1000}){1000}` is 24 characters. So a pattern is
bounded by its length and by its size with every counted repeat written out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from tradewind.api.problems import Code
from tradewind.api.wire import RequestLimits
from tradewind.gateway.problems import Refused

EXPANDED_ATOMS = 100_000
"""Atoms of one pattern after its counted repeats are written out."""
SCHEMA_COUNT = 1_000_000
"""Largest minItems, maxLength and the like in a JSON schema."""

_COUNTS = frozenset(
    (
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "minProperties",
        "maxProperties",
        "minContains",
        "maxContains",
    )
)
_TOKEN = re.compile(r"\\.|\[(?:\\.|[^\]\\])*+(?:\]|\Z)|\{(\d*)(,?)(\d*)\}|.", re.DOTALL)
_decode = msgspec.json.Decoder().decode


def expanded_size(pattern: str) -> int:
    """Atoms of `pattern` with counted repeats written out; linear, and exact enough to refuse by."""
    totals = [0]
    last = 0
    for token in _TOKEN.finditer(pattern):
        text = token.group()
        if text == "(":
            totals.append(0)
            last = 0
        elif text == ")":
            last = max(totals.pop(), 1) if len(totals) > 1 else 1
            totals = totals or [0]
            totals[-1] += last
        elif token.group(2) is not None and (token.group(1) or token.group(3)):
            repeats = max(_digits(token.group(1)), _digits(token.group(3)), 1)
            totals[-1] += last * (repeats - 1)
            last *= repeats
        elif text not in ("*", "+", "?", "|"):
            totals[-1] += 1
            last = 1
        if totals[-1] > EXPANDED_ATOMS:
            return totals[-1]
    return sum(totals)


def _digits(text: str) -> int:
    # Nine digits are past every bound already, and int() of thousands of them is slow.
    return int(text[:9]) if text else 0


def check_pattern(pattern: object, param: str, limits: RequestLimits) -> None:
    """Raises Refused (invalid_value) when a regex or grammar is not text, too long or too large."""
    if not isinstance(pattern, str):
        raise Refused(Code.INVALID_VALUE, f"{param} must be a string.", param=param)
    if len(pattern) > limits.pattern_chars:
        raise Refused(
            Code.INVALID_VALUE, f"{param} is longer than {limits.pattern_chars} characters.", param=param
        )
    if "{" in pattern and expanded_size(pattern) > EXPANDED_ATOMS:
        raise Refused(Code.INVALID_VALUE, f"{param} repeats too much.", param=param)


def check_schema(raw: msgspec.Raw, param: str, limits: RequestLimits) -> None:
    """Raises Refused (invalid_value) when a JSON schema, or a pattern or count in it, is too large."""
    if len(bytes(raw)) > limits.schema_bytes:
        raise Refused(Code.INVALID_VALUE, f"{param} is over {limits.schema_bytes} bytes.", param=param)
    schema = _decode(raw)
    if isinstance(schema, str):  # vLLM also takes a schema as text
        try:
            schema = _decode(schema)
        except (msgspec.MsgspecError, RecursionError):
            raise Refused(Code.INVALID_VALUE, f"{param} is not a JSON schema.", param=param) from None
    check_schema_value(schema, param, limits)


def check_schema_value(schema: object, param: str, limits: RequestLimits) -> None:
    """The same for a schema that is decoded already."""
    for key, value in _members(schema):
        if key == "pattern" and isinstance(value, str):
            check_pattern(value, f"{param}.pattern", limits)
        elif key == "patternProperties" and isinstance(value, dict):
            for pattern in value:
                check_pattern(pattern, f"{param}.patternProperties", limits)
        elif key in _COUNTS and isinstance(value, int | float) and value > SCHEMA_COUNT:
            raise Refused(Code.INVALID_VALUE, f"{param}.{key} is over {SCHEMA_COUNT}.", param=param)


def check_choices(choices: object, param: str, limits: RequestLimits) -> None:
    """Raises Refused (invalid_value) when a list of choices is not one of strings, or too long in sum."""
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise Refused(Code.INVALID_VALUE, f"{param} must be a list of strings.", param=param)
    if sum(map(len, choices)) + len(choices) > limits.pattern_chars:
        raise Refused(
            Code.INVALID_VALUE, f"{param} is longer than {limits.pattern_chars} characters.", param=param
        )


def _members(value: object) -> Iterator[tuple[str, Any]]:
    """Every member of every object within. No recursion: a schema given as text may nest deep."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
