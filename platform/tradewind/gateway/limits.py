"""Bounds on a JSON body, checked before anything is built from it.

A body costs what it makes the parsers do, not what it weighs: so everything here is a few passes in C
over its bytes, and what those passes cost beyond a copy is bounded by counting syntax first. The order is
by price. Nearly every request ends at the counts; only where a bound is passed are strings cut out and
the exact numbers taken. Then msgspec walks the whole text once without building its values, so that what
is passed on unread is known to be JSON, whole surrogate pairs included.
"""

from __future__ import annotations

import codecs
import re

import msgspec

from tradewind.api.problems import Code
from tradewind.api.wire import RequestLimits
from tradewind.gateway.problems import Refused

Fields = dict[str, msgspec.Raw]
"""Top-level members of the body; values are the caller's own bytes."""

MEMBERS = 1_024
"""Members of the body itself; no endpoint has a tenth of that."""

SYNTAX = 600_000
"""Quotes, backslashes and brackets of a body, those within texts included; each costs a parser some 10 ns."""

COMMAS = 2_000_000
"""The same for commas, which cost less."""

_SHORT = 16 * 1024
_BLOCK = 64 * 1024
_NOT_SYNTAX = bytes(set(range(256)) - set(b'[]{}"\\'))
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{},"'))
# What may follow a backslash is kept with it: `\n"` must not become `\"`.
_NOT_ESCAPED = bytes(set(range(256)) - set(b'[]{},"\\/bfnrtu'))
_UNIFY = bytes.maketrans(b"{}", b"[]")
_LEAF = re.compile(rb"\[,*\]")
_NESTING = re.compile(rb"[\[\]]|,+")
_top_level = msgspec.json.Decoder(Fields)


def parse_object(body: bytes) -> Fields:
    """Top-level members of `body`, each as raw JSON.

    `body` has passed `check_complexity`. Raises Refused: invalid_json when it is not a JSON object in UTF-8.
    A member given twice keeps its last value, as the engine's own parser would.
    """
    try:
        if not body.isascii():
            _check_utf8(body)
        return _top_level.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Refused(Code.INVALID_JSON, "The body is not a JSON object in UTF-8.") from None


def _check_utf8(body: bytes) -> None:
    """Raises UnicodeDecodeError. In blocks, which stay in the processor's cache, unlike the whole text."""
    view = memoryview(body)
    start = 0
    while start < len(body):
        end = start + _BLOCK
        _, read = codecs.utf_8_decode(view[start:end], "strict", end >= len(body))
        start += read


def check_complexity(body: bytes, limits: RequestLimits) -> int:
    """Raises Refused (json_too_complex) when `body` nests too deep or holds too many values.

    Returns how many values it has at most, each object and list counted as three more.
    """
    # Counting thrice is cheaper than taking out, until a body is long.
    syntax = body if len(body) <= _SHORT else body.translate(None, _NOT_SYNTAX)
    opened = syntax.count(b"{") + syntax.count(b"[")
    commas = body.count(b",")
    most = max(SYNTAX, 4 * limits.json_containers)
    if syntax is not body and len(syntax) > most:
        raise _too_complex(f"more than {most} quotes, backslashes and brackets")
    if commas > max(COMMAS, 2 * limits.json_items):
        raise _too_complex(f"more than {max(COMMAS, 2 * limits.json_items)} commas")
    if opened <= min(limits.json_depth, limits.json_containers) and commas < min(limits.json_items, MEMBERS):
        return commas + 3 * opened
    found = structure(body)
    opened = found.count(b"{") + found.count(b"[")
    commas = found.count(b",")
    if opened > limits.json_containers:
        raise _too_complex(f"more than {limits.json_containers} objects and arrays")
    if commas > limits.json_items:
        raise _too_complex(f"more than {limits.json_items} values")
    found = found.translate(_UNIFY)
    if _deeper_than(found, limits.json_depth):
        raise _too_complex(f"more than {limits.json_depth} levels")
    if _more_members_than(found, MEMBERS):
        raise _too_complex(f"more than {MEMBERS} members")
    return commas + 3 * opened


def structure(body: bytes) -> bytes:
    """Brackets and commas of `body` that are not inside strings.

    Works in blocks: cut at its quotes all at once, a body of little more than quotes would take
    many times its size.
    """
    if b"\\" in body:
        # Pairs of backslashes first: what then stands before a quote does escape it.
        body = body.translate(None, _NOT_ESCAPED).replace(rb"\\", b"").replace(rb"\"", b"")
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
    # Twice without what holds nothing more: what is left to walk is then short.
    structure = _LEAF.sub(b"", _LEAF.sub(b"", structure[1:-1]))
    depth = 1
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
