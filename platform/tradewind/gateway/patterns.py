"""Bounds on structured output: what a grammar compiler would have to expand.

A short regex can be a large automaton: `((a{1000}){1000}){1000}` is 24 characters. So a pattern is
bounded by its length and by its size with every counted repeat written out.

Schemas are the one thing that the gateway builds in memory, so what they may hold is counted first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from tradewind.api.problems import Code
from tradewind.api.wire import RequestLimits
from tradewind.gateway.problems import Refused

EXPANDED_ATOMS = 100_000
"""Atoms of one pattern after its counted repeats are written out."""
SCHEMA_COUNT = 1_000_000
"""Largest minItems, maxLength and the like in a JSON schema."""

SCHEMA_VALUES = 50_000
"""Values in the schemas of one field: a tree of more would take long to build and to walk."""
PATTERNS = 16
"""Patterns with repeats in one schema are together within this many times the size of one."""

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
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 400
# Python's own float is a hundred times faster with 1e300 than the decoder's, and takes 1e999.
_decode = msgspec.json.Decoder(float_hook=float).decode


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


def too_long(param: str, limits: RequestLimits) -> Refused:
    """What a caller reads of a pattern over the bound."""
    return _invalid(param, f"is longer than {limits.pattern_chars} characters")


def _invalid(param: str, what: str) -> Refused:
    return Refused(Code.INVALID_VALUE, f"{param} {what}.", param=param)


def check_pattern(pattern: str, param: str, limits: RequestLimits) -> None:
    """Raises Refused (invalid_value) when a regex or grammar is too long or too large."""
    if len(pattern) > limits.pattern_chars:
        raise too_long(param, limits)
    if "{" in pattern and expanded_size(pattern) > EXPANDED_ATOMS:
        raise _invalid(param, "repeats too much")


def check_schema(raw: msgspec.Raw, param: str, limits: RequestLimits, most_bytes: int) -> None:
    """Raises Refused (invalid_value) when JSON schemas, or a pattern or count in them, are too large."""
    text = bytes(raw) if len(memoryview(raw)) <= most_bytes else None
    if text is None:
        raise _invalid(param, f"is over {most_bytes} bytes")
    schema = _tree(text, param)
    if isinstance(schema, str):  # vLLM also takes a schema as text
        schema = _tree(schema.encode(), param)
    _check_members(schema, param, limits)


def _tree(text: bytes, param: str) -> object:
    if text.count(b",") + text.count(b"[") + text.count(b"{") > SCHEMA_VALUES:
        raise _invalid(param, f"holds more than {SCHEMA_VALUES} values")
    if _LONG_NUMBER in text.translate(_DIGITS):
        raise _invalid(param, "holds a number of over 400 digits")
    try:
        return _decode(text)
    except (msgspec.MsgspecError, RecursionError):
        raise _invalid(param, "is not a JSON schema") from None


def _check_members(schema: object, param: str, limits: RequestLimits) -> None:
    left = PATTERNS * limits.pattern_chars
    for key, value in _members(schema):
        if key == "pattern" and isinstance(value, str):
            found: Iterable[str] = (value,)
        elif key == "patternProperties" and isinstance(value, dict):
            found = value
        else:
            if key in _COUNTS and isinstance(value, int | float) and value > SCHEMA_COUNT:
                raise _invalid(f"{param}.{key}", f"is over {SCHEMA_COUNT}")
            continue
        for pattern in found:
            left -= len(pattern) + 16 if "{" in pattern else 1
            if left < 0:
                raise _invalid(f"{param}.{key}", "is one pattern with repeats too many")
            check_pattern(pattern, f"{param}.{key}", limits)


def _members(value: object) -> Iterator[tuple[str, Any]]:
    """Every member of every object within. No recursion: a schema given as text may nest deep."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending.extend(child for child in item.values() if isinstance(child, dict | list))
        elif isinstance(item, list):
            pending.extend(child for child in item if isinstance(child, dict | list))
