"""Bounds on a JSON body, checked before anything is built from it.

The order is by price. Counting a byte value runs in C and bounds depth, containers and items from
above, which is enough for nearly every request. Only where a bound is passed are strings cut out, by
a few passes in C as well, and the exact numbers taken. Then msgspec walks the whole text once without
building its values, so that what is passed on unread is known to be JSON.
"""

from __future__ import annotations

import re

import msgspec

from tradewind.api.problems import Code
from tradewind.api.wire import RequestLimits
from tradewind.gateway.problems import Refused

Fields = dict[str, msgspec.Raw]
"""Top-level members of the body; values are the caller's own bytes."""

MEMBERS = 1_024
"""Members of the body itself; no endpoint has a tenth of that."""

_BLOCK = 64 * 1024
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{},"'))
_UNIFY = bytes.maketrans(b"{}", b"[]")
_NESTING = re.compile(rb"[\[\]]|,+")
_top_level = msgspec.json.Decoder(Fields)
_whole = msgspec.json.Decoder()


def parse_object(body: bytes, limits: RequestLimits) -> Fields:
    """Top-level members of `body`, each as raw JSON.

    Raises Refused: json_too_complex, or invalid_json when it is not a JSON object in UTF-8.
    A member given twice keeps its last value, as the engine's own parser would.
    """
    check_complexity(body, limits)
    try:
        if not body.isascii():
            body.decode()
        fields = _top_level.decode(body)
        if b"\\" in body and (b"\\ud" in body or b"\\uD" in body):
            _whole.decode(body)  # the only pass that refuses half a surrogate pair, which no tokenizer takes
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Refused(Code.INVALID_JSON, "The body is not a JSON object in UTF-8.") from None
    return fields


def check_complexity(body: bytes, limits: RequestLimits) -> None:
    """Raises Refused (json_too_complex) when `body` nests too deep or holds too many values."""
    opened = body.count(b"{") + body.count(b"[")
    if opened <= min(limits.json_depth, limits.json_containers) and (
        body.count(b",") < min(limits.json_items, MEMBERS)
    ):
        return
    structure = _structure(body)
    if structure.count(b"{") + structure.count(b"[") > limits.json_containers:
        raise _too_complex(f"more than {limits.json_containers} objects and arrays")
    if structure.count(b",") > limits.json_items:
        raise _too_complex(f"more than {limits.json_items} values")
    structure = structure.translate(_UNIFY)
    if _deeper_than(structure, limits.json_depth):
        raise _too_complex(f"more than {limits.json_depth} levels")
    if _more_members_than(structure, MEMBERS):
        raise _too_complex(f"more than {MEMBERS} members")


def _structure(body: bytes) -> bytes:
    """Brackets and commas of `body` that are not inside strings.

    Works in blocks: cut at its quotes all at once, a body of little more than quotes would take
    many times its size.
    """
    if b"\\" in body:
        # Pairs of backslashes first: what then stands before a quote does escape it.
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    reduced = body.translate(None, _NOT_STRUCTURE)
    outside = []
    inside = 0
    for start in range(0, len(reduced), _BLOCK):
        pieces = reduced[start : start + _BLOCK].split(b'"')
        outside.append(b"".join(pieces[inside::2]))
        inside ^= (len(pieces) - 1) & 1
    return b"".join(outside)


def _deeper_than(structure: bytes, depth: int) -> bool:
    """Whether brackets nest deeper than `depth`: each pass removes the innermost level and no more.

    What is left over because it was never balanced is no JSON, and the parser says so.
    """
    brackets = structure.translate(None, b",")
    for _ in range(depth):
        shorter = brackets.replace(b"[]", b"")
        if len(shorter) == len(brackets):
            return False
        brackets = shorter
    return b"[]" in brackets


def _more_members_than(structure: bytes, members: int) -> bool:
    """Whether the outermost object has more than `members`: walks the brackets, bounded in number by now."""
    if structure.count(b",") < members:
        return False
    depth = 0
    for match in _NESTING.finditer(structure):
        token = match.group()
        if token == b"[":
            depth += 1
        elif token == b"]":
            depth -= 1
        elif depth == 1:
            members -= len(token)
            if members <= 0:
                return True
    return False


def _too_complex(what: str) -> Refused:
    return Refused(Code.JSON_TOO_COMPLEX, f"The body holds {what}.")
