"""Rules for what is turned into tokens, or tokens into text, without a model that answers.

An engine bounds a prompt by the model's context before it makes tokens of it. These requests have no such
bound there, and tokens are made by the threads that every other request of the replica waits for.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from tradewind.api.wire import RequestLimits
from tradewind.gateway.rules import Rule, invalid

MAX_ID: Final = 2**31 - 1
"""Larger ones fit no tokenizer: it fails at them as if the fault were its own."""

_text = msgspec.json.Decoder(str).decode
_ids = msgspec.json.Decoder(list[Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]]).decode


def text(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """One text of bounded size: a list, which completions take, is nothing that tokens are counted for."""
    _check_size(name, raw, limits)
    try:
        _text(raw)
    except msgspec.MsgspecError:
        raise invalid(name, "a string") from None


def bounded(rule: Rule) -> Rule:
    """`rule` for a value of bounded size."""

    def sized(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
        _check_size(name, raw, limits)
        rule(name, raw, limits)

    return sized


def ids(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A list of token ids, as many as an answer may have."""
    wanted = f"a list of at most {limits.max_tokens} integers from 0 to {MAX_ID}"
    # A list of integers has one comma less than integers: one that is too long is not built first.
    if bytes(raw).count(b",") >= max(1, limits.max_tokens):
        raise invalid(name, wanted)
    try:
        found = _ids(raw)
    except msgspec.MsgspecError:
        raise invalid(name, wanted) from None
    if len(found) > limits.max_tokens:
        raise invalid(name, wanted)


def _check_size(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    if len(memoryview(raw)) > limits.tokenize_bytes:
        raise invalid(name, f"at most {limits.tokenize_bytes} bytes of JSON")
