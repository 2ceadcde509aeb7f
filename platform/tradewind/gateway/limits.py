"""Bounds on a JSON body, checked before anything is built from it.

The order is by price. Counting a byte value runs in C and bounds depth, containers and items from
above, which is enough for nearly every request. Only where a bound is passed are strings cut out and
the exact numbers taken. Then msgspec walks the whole text once without building its values, so that
what is passed on unread is known to be JSON.
"""

from __future__ import annotations

import re

import msgspec

from tradewind.api.problems import Code
from tradewind.api.wire import RequestLimits
from tradewind.gateway.problems import Refused

Fields = dict[str, msgspec.Raw]
"""Top-level members of the body; values are the caller's own bytes."""

# Ends at the text's end as well, so that an unterminated string is met once and not once per quote.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{},"))
_UNIFY = bytes.maketrans(b"{}", b"[]")
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
        if b"\\ud" in body or b"\\uD" in body:
            _whole.decode(body)  # the only pass that refuses half a surrogate pair, which no tokenizer takes
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Refused(Code.INVALID_JSON, "The body is not a JSON object in UTF-8.") from None
    return fields


def check_complexity(body: bytes, limits: RequestLimits) -> None:
    """Raises Refused (json_too_complex) when `body` nests too deep or holds too many values."""
    opened = body.count(b"{") + body.count(b"[")
    commas = body.count(b",")
    if opened <= limits.json_depth and opened <= limits.json_containers and commas <= limits.json_items:
        return
    structure = _STRING.sub(b"", body).translate(None, _NOT_STRUCTURE)
    containers = structure.count(b"{") + structure.count(b"[")
    if containers > limits.json_containers:
        raise _too_complex(f"more than {limits.json_containers} objects and arrays")
    if structure.count(b",") > limits.json_items:
        raise _too_complex(f"more than {limits.json_items} values")
    if containers > limits.json_depth and _deeper_than(structure, limits.json_depth):
        raise _too_complex(f"more than {limits.json_depth} levels")


def _deeper_than(structure: bytes, depth: int) -> bool:
    """Whether brackets nest deeper than `depth`; each pass removes the innermost level and no more."""
    brackets = structure.translate(_UNIFY, b",")
    for _ in range(depth):
        shorter = brackets.replace(b"[]", b"")
        if len(shorter) == len(brackets):
            break
        brackets = shorter
    # What is left over because it was never balanced is not JSON, and the parser says so.
    return b"[]" in brackets


def _too_complex(what: str) -> Refused:
    return Refused(Code.JSON_TOO_COMPLEX, f"The body holds {what}.")
