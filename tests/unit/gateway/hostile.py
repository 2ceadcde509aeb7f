"""Bodies that are made to cost a parser as much as a body of the largest size can."""

from __future__ import annotations

from collections.abc import Callable

from tradewind.api.wire import RequestLimits
from tradewind.gateway.endpoints import ENDPOINTS, Endpoint
from tradewind.gateway.limits import Fields, check_complexity, parse_object

SIZE = RequestLimits().body_bytes - 1_024
"""Bytes of a hostile value: the rest of the body fits beside it."""


def _filled(before: bytes, unit: bytes, after: bytes, most: int = 10**9) -> bytes:
    room = SIZE - len(before) - len(after)
    return before + unit * min(room // len(unit), most) + after


_EDGE = 1_000_000
"""Commas that a body may have."""
_MOST = 49_000
"""Containers that a body may have, nearly."""
_SIGNS = 195_000
"""Quotes, backslashes and brackets, nearly."""

VALUES: dict[str, Callable[[], bytes]] = {
    "floats": lambda: _filled(b"[", b"1e300,", b"1]", _EDGE),
    "floats to the brim": lambda: _filled(b"[", b"1e300,", b"1]"),
    "floats beyond a double": lambda: _filled(b"[", b"1e999,", b"1]", _EDGE),
    "long mantissas": lambda: _filled(b"[", b"0." + b"123456789" * 80 + b"e-300,", b"1]"),
    "one long mantissa": lambda: _filled(b"0.", b"1", b"e-300"),
    "integers of 4,300 digits": lambda: _filled(b"[", b"9" * 4_300 + b",", b"1]"),
    "one integer": lambda: _filled(b"1", b"0", b""),
    "small integers": lambda: _filled(b"[", b"1,", b"1]", _EDGE - 2_000),
    "a text": lambda: _filled(b'"', b"x", b'"'),
    "a text of commas": lambda: _filled(b'"', b"x," + b"x" * 4, b'"'),
    "a text of two-byte characters": lambda: _filled(b'"', "é".encode(), b'"'),
    "a text of three-byte characters": lambda: _filled(b'"', "中".encode(), b'"'),
    "a text of four-byte characters": lambda: _filled(b'"', "😀".encode(), b'"'),
    "escapes to the brim": lambda: _filled(b'"', b"\\n", b'"'),
    "escapes": lambda: _filled(b'"', b"x" * 23 + b"\\n", b'"', _SIGNS),
    "quotes in a text": lambda: _filled(b'"', b"x" * 23 + b"," * 4 + b'\\"', b'"', _SIGNS // 2),
    "backslashes": lambda: _filled(b'"', b"x" * 40 + b"\\\\", b'"', _SIGNS // 2),
    "characters as escapes": lambda: _filled(b'"', b"x" * 19 + b"\\u0061", b'"', _SIGNS),
    "surrogate pairs": lambda: _filled(b'"', b"x" * 38 + b"\\ud83d\\ude00", b'"', _SIGNS // 2),
    "half a pair at the end": lambda: _filled(b'"', b"\\ud83d\\ude00", b'\\ud83d"'),
    "small texts": lambda: _filled(b"[", b'"' + b"x" * 49 + b'",', b'""]', _SIGNS // 2),
    "the smallest texts": lambda: _filled(b"[", b'"",', b'""]', _SIGNS // 2),
    "empty objects": lambda: _filled(b"[", b"{},", b"{}]", _MOST),
    "empty lists": lambda: _filled(b"[", b"[],", b"[]]", _MOST),
    "objects in long texts": lambda: _filled(b"[", b'{"":"' + b"x" * 300 + b'"},', b"{}]", _SIGNS // 6),
    "one member many times": lambda: _filled(b"{", b'"a":1,', b'"b":1}', _SIGNS // 2),
    "a wide object": lambda: b"{" + b",".join(b'"%d":1' % i for i in range(_SIGNS // 2)) + b"}",
    "a wide object of floats": lambda: b"{" + b",".join(b'"%d":1e300' % i for i in range(_SIGNS // 2)) + b"}",
    "objects of one member": lambda: _filled(b"[", b'{"url":1},', b"{}]", _SIGNS // 4),
    "deep": lambda: b"[" * 62 + _filled(b'"', b"x", b'"')[: SIZE - 200] + b'"' + b"]" * 62,
    "deep and wide": lambda: b'{"a":[' * 30 + _filled(b"[", b"1,", b"1]", _EDGE - 2_000) + b"]}" * 30,
    "deep objects of texts": lambda: b'[{"a":' * 30 + b'"' + b"x" * (SIZE - 600) + b'"' + b"}]" * 30,
    "deep lists in a wide one": lambda: _filled(b"[", b"[" * 50 + b"]" * 50 + b",", b"1]", _MOST // 50),
    "floats after an object": lambda: _filled(b"[{},", b"1e300,", b"{}]", _EDGE),
    "floats beside a url": lambda: _filled(b'[{"url":"data:","a":[', b"1e300,", b"1]}]", _EDGE),
    "roles": lambda: _filled(b"[", b'{"role":"system"},', b"{}]", _SIGNS // 6),
    "image parts": lambda: _filled(b"[", b'{"image_url":"data:x"},', b"{}]", _SIGNS // 6),
    "one image part of floats": lambda: _filled(b'[{"image_url":[', b"1e300,", b"{}]}]", _EDGE),
    # Each level of blanks is read again, at thrice the price of a text.
    "blanks": lambda: _filled(b"[", b" ", b"1]", SIZE // 2),
    "patterns": lambda: _tools(b'{"pattern":"(a{2}){1}[b]{3}c"},', 2_000),
    "patterns of blocks": lambda: _tools(b'{"pattern":"' + b"{1}" * 1_365 + b'"},', 15),
    "schemas of floats": lambda: _tools(b"1e300,", 10_000),
    "schemas of integers": lambda: _tools(b"1,", 30_000),
    "schemas of long integers": lambda: _tools(b"9" * 399 + b",", 160),
    "schemas of members": lambda: _tools(b'{"":[]},', 7_000),
    "schemas of counts": lambda: _tools(b'{"minItems":1e300},', 3_000),
    "a schema as text": lambda: _as_text(b'{\\"\\":[1e300]},', 4_000),
    "a schema of floats": lambda: b'{"a":[' + b"1e300," * 10_800 + b"1]}",
    "a schema of integers": lambda: b'{"a":[' + b"1," * 32_000 + b"1]}",
    "a schema of patterns": lambda: b'{"a":[' + b'{"pattern":"{1}{1}{1}"},' * 2_700 + b"1]}",
    "a pattern": lambda: b'"' + b"a{1}" * 1_024 + b'"',
    "a regex of escapes": lambda: b'"' + b"\\u0061" * 4_096 + b'"',
    "stops": lambda: b'["' + b"\\u00e9" * 15_000 + b'"]',
}


def _tools(unit: bytes, count: int) -> bytes:
    """A list of tools whose schemas repeat `unit`, of about a mebibyte at most."""
    each = max(1, min(count, 60_000 // len(unit)))
    tool = b'{"function":[' + unit * each + b"1]}"
    return b"[" + b",".join([tool] * min(128, max(1, 1_000_000 // len(tool)))) + b"]"


def _as_text(unit: bytes, count: int) -> bytes:
    return b'"[' + unit * count + b'1]"'


def fields_of(endpoint: Endpoint) -> list[str]:
    """Every field with a rule or a meaning, and one that nobody knows."""
    own = {"model", "cache_salt", "input", "messages", "metadata", "safety_identifier", "unknown"}
    required = (name for group in endpoint.required for name in group)
    return sorted({*endpoint.rules, *endpoint.media, *own, *required})


def body_of(endpoint: Endpoint, field: str, value: bytes) -> bytes:
    """A body that has `value` in `field`, and all else that `endpoint` requires."""
    members = {"model": b'"m"', **{group[0]: b"1" for group in endpoint.required}}
    members.update({name: b'[{"role":"user","content":"url"}]' for name in members if name == "messages"})
    members.update({name: b'"x"' for name in members if name in ("prompt", "input", "query", "documents")})
    members.update({name: b'"x"' for name in members if name.startswith(("text_", "queries"))})
    members[field] = value
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), raw) for name, raw in members.items()) + b"}"


def every_field() -> list[tuple[Endpoint, str]]:
    """Each endpoint with each of its fields."""
    return [(endpoint, field) for endpoint in ENDPOINTS for field in fields_of(endpoint)]


def distinct_fields() -> list[tuple[Endpoint, str]]:
    """The same without fields that the same code looks at in the same way."""
    found: dict[object, tuple[Endpoint, str]] = {}
    for endpoint, field in every_field():
        rule = endpoint.rules.get(field)
        kind = (rule, field in endpoint.media, field == endpoint.system, field if rule is None else "")
        found.setdefault(kind, (endpoint, field))
    return list(found.values())


def parse(body: bytes, limits: RequestLimits) -> Fields:
    """Members of a body that is within its bounds; Refused otherwise."""
    check_complexity(body, limits)
    return parse_object(body)
