"""Rules for single fields of a request body: each takes a raw value and raises Refused when it is bad.

Types are strict on purpose. The engine would read `"1000000"` or `1e6` as a number as well, so a bound
that only looked at integers would be no bound.

Nothing is decoded before its first byte or its length says that it may be what is asked for, and nothing
is decoded as "any value": a parser spends 10 microseconds on `1e300`, and a body has room for a million.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec

from tradewind.api.problems import Code
from tradewind.api.wire import RequestLimits
from tradewind.gateway.patterns import check_pattern, check_schema, too_long
from tradewind.gateway.problems import Refused

Rule = Callable[[str, msgspec.Raw, RequestLimits], None]
"""(field name, raw value that is not null, limits)"""

Bound = Callable[[RequestLimits], int]

TOKEN_LIST = 1_024
"""Entries of logit_bias, bad_words, allowed_token_ids and the like."""
NAME_CHARS = 512
"""Characters of `user`, `session_id` and other identifiers."""

TOOL_SCHEMAS = 16
"""All tools of a request are within this many times the size of one schema."""
OBJECT_BYTES = 65_536
"""Bytes of an object of settings, or of a list of numbers or words."""
CHAR_BYTES = 12
"""A character can take this much in JSON: two escapes."""

TRUE: Final = msgspec.Raw(b"true")
FALSE: Final = msgspec.Raw(b"false")
NULL: Final = msgspec.Raw(b"null")

_NUMBER_BYTES = 24
QUOTE, LIST, OBJECT = b'"[{'
"""First bytes of a value, which say what kind it is."""
_integer = msgspec.json.Decoder(int).decode
_text = msgspec.json.Decoder(str).decode
_texts = msgspec.json.Decoder(list[str]).decode
_text_or_texts = msgspec.json.Decoder(str | list[str]).decode
_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def invalid(param: str, what: str) -> Refused:
    """A Refused with code invalid_value that says what `param` must be."""
    return Refused(Code.INVALID_VALUE, f"{param} must be {what}.", param=param)


def integer(low: int, high: Bound) -> Rule:
    """An integer from `low` to what the limits allow."""

    def rule(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
        top = high(limits)
        value = whole_number(raw)
        if value is None or not low <= value <= top:
            raise invalid(name, f"an integer from {low} to {top}")

    return rule


def first_byte(raw: msgspec.Raw) -> int:
    """What kind of value `raw` is, without a copy of it."""
    return memoryview(raw)[0]


def whole_number(raw: msgspec.Raw) -> int | None:
    """The integer in `raw`; None when it is none, or one that no limit allows."""
    if len(memoryview(raw)) > _NUMBER_BYTES:
        return None
    try:
        return int(_integer(raw))
    except msgspec.MsgspecError:
        return None


def text_within(raw: msgspec.Raw, chars: int) -> str | None:
    """The text in `raw`; None when it is none, or one of more than `chars` characters."""
    if len(memoryview(raw)) > chars * CHAR_BYTES + 2 or first_byte(raw) != QUOTE:
        return None
    value: str = _text(raw)
    return value if len(value) <= chars else None


def boolean(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """`true` or `false`."""
    if raw not in (TRUE, FALSE):
        raise invalid(name, "true or false")


def identifier(name: str, raw: msgspec.Raw) -> str:
    """The text in `raw`, which names somebody or something; Refused when it is none or too long."""
    text = text_within(raw, NAME_CHARS)
    if text is None:
        raise invalid(name, f"a string of at most {NAME_CHARS} characters")
    return text


def short_text(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A string that serves as an identifier."""
    identifier(name, raw)


def refused(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """Never allowed."""
    raise Refused(Code.FIELD_NOT_ALLOWED, f"{name} is not allowed in a request.", param=name)


def sequence(high: Bound) -> Rule:
    """A list of bounded length; its items are the engine's to read."""

    def rule(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
        check_length(name, raw, high(limits), "items")

    return rule


def mapping(high: Bound) -> Rule:
    """An object of a bounded number of members."""

    def rule(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
        top = high(limits)
        if len(small_object(name, raw)) > top:
            raise invalid(name, f"an object of at most {top} members")

    return rule


def items_within(raw: msgspec.Raw, most: int) -> tuple[msgspec.Raw, ...] | None:
    """Items of the list `raw`, each as raw JSON; None when it is no list or has more than `most`.

    The decoder ends at the first item too many, however many follow.
    """
    try:
        fixed = _decoder_of(most)(raw)
    except msgspec.ValidationError:
        return None
    return tuple(item for item in msgspec.structs.astuple(fixed) if item is not _NOTHING)


_NOTHING = msgspec.Raw(b"")


@lru_cache(maxsize=64)
def _decoder_of(most: int) -> Callable[[msgspec.Raw], Any]:
    fields = [(f"item_{i}", msgspec.Raw, _NOTHING) for i in range(most)]
    fixed = msgspec.defstruct("_Items", fields, array_like=True, forbid_unknown_fields=True)
    return msgspec.json.Decoder(fixed).decode


def check_length(name: str, raw: msgspec.Raw, most: int, what: str) -> None:
    """Raises Refused when `raw` is no list or one of more than `most` items."""
    if first_byte(raw) != LIST:
        raise invalid(name, "a list")
    # Commas come cheaper than items, and nearly every list is short and has few.
    if len(memoryview(raw)) <= OBJECT_BYTES and bytes(raw).count(b",") < most:
        return
    if items_within(raw, most) is None:
        raise invalid(name, f"a list of at most {most} {what}")


def small_object(name: str, raw: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Members of an object of settings, each as raw JSON; Refused when it is none or too large for one."""
    if first_byte(raw) != OBJECT:
        raise invalid(name, "an object")
    if len(memoryview(raw)) > OBJECT_BYTES:
        raise invalid(name, f"an object of at most {OBJECT_BYTES} bytes")
    members: dict[str, msgspec.Raw] = _raw_members(raw)
    return members


def messages(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A list with at least one item."""
    if first_byte(raw) != LIST:
        raise invalid(name, "a list")
    if item_start(raw) == "]":
        raise invalid(name, "a list with at least one message")


def item_start(raw: msgspec.Raw) -> str:
    """First character of the first item of a list, or the bracket that ends it."""
    start = bytes(memoryview(raw)[1:64]).lstrip() or bytes(raw)[1:].lstrip()
    return chr(start[0])


def stop(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A string or a list of strings, bounded in number and length."""
    texts: list[str] | None = None
    if len(memoryview(raw)) <= (limits.stop + 1) * (limits.stop_chars + 2) * CHAR_BYTES:
        try:
            value = _text_or_texts(raw)
            texts = [value] if isinstance(value, str) else value
        except msgspec.MsgspecError:
            pass  # not of strings
    if texts is None or len(texts) > limits.stop or any(len(text) > limits.stop_chars for text in texts):
        raise invalid(name, f"at most {limits.stop} strings of at most {limits.stop_chars} characters")


def chat_logprobs(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """Chat has a switch where completions have a number; both bounded."""
    if raw in (TRUE, FALSE):
        return
    value = whole_number(raw)
    if value is None or not 0 <= value <= limits.logprobs:
        raise invalid(name, "true or false")


def prompts(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """One prompt (text or token ids) or a list of them, bounded in number."""
    kind = first_byte(raw)
    if kind not in (QUOTE, LIST):
        raise invalid(name, "a string or a list")
    if kind == LIST and item_start(raw) in '"[{':
        check_length(name, raw, limits.prompts, "prompts")


def count_prompts(raw: msgspec.Raw, limits: RequestLimits) -> int:
    """How many sequences a prompt field asks for: a list of numbers is one, any other list is its length.

    `raw` has passed `prompts`.
    """
    if first_byte(raw) != LIST or item_start(raw) not in '"[{]':
        return 1
    return len(items_within(raw, limits.prompts) or ())


class _Content(msgspec.Struct):
    content: msgspec.Raw = NULL


_content = msgspec.json.Decoder(_Content).decode


def documents(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """Texts to score: one, a list, or an object whose `content` is a list."""
    kind = first_byte(raw)
    if kind not in (QUOTE, LIST, OBJECT):
        raise invalid(name, "a string, a list or an object")
    inner = _content(raw).content if kind == OBJECT else raw
    if first_byte(inner) == LIST:
        check_length(name, inner, limits.prompts, "texts")


def tools(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A list of tools, bounded in number, in size and in what their schemas hold: grammars come of them."""
    if first_byte(raw) != LIST:
        raise invalid(name, "a list")
    most = TOOL_SCHEMAS * limits.schema_bytes
    if len(memoryview(raw)) > most:
        raise invalid(name, f"a list of tools of at most {most} bytes in all")
    items = items_within(raw, limits.tools)
    if items is None:
        raise invalid(name, f"a list of at most {limits.tools} tools")
    if any(len(memoryview(item)) > limits.schema_bytes for item in items):
        raise invalid(name, f"a list of tools of at most {limits.schema_bytes} bytes each")
    check_schema(raw, name, limits, most)


def schema_holder(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """`response_format`, `text` and `output_config`: an object that holds a JSON schema somewhere."""
    if first_byte(raw) != OBJECT:
        raise invalid(name, "an object")
    check_schema(raw, name, limits, limits.schema_bytes)


class _Structured(msgspec.Struct):
    json: msgspec.Raw = NULL
    regex: msgspec.Raw = NULL
    grammar: msgspec.Raw = NULL
    choice: msgspec.Raw = NULL
    structural_tag: msgspec.Raw = NULL
    whitespace_pattern: msgspec.Raw = NULL


_structured = msgspec.json.Decoder(_Structured).decode


def structured_outputs(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """vLLM's own structured output parameters."""
    if first_byte(raw) != OBJECT:
        raise invalid(name, "an object")
    members = _structured(raw)
    for key, rule in _STRUCTURED.items():
        value = getattr(members, key)
        if value != NULL:
            rule(f"{name}.{key}", value, limits)


def pattern(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A regex or a grammar."""
    if first_byte(raw) != QUOTE:
        raise invalid(name, "a string")
    text = text_within(raw, limits.pattern_chars)
    if text is None:
        raise too_long(name, limits)
    check_pattern(text, name, limits)


def schema(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A JSON schema, as an object or as text."""
    check_schema(raw, name, limits, limits.schema_bytes)


def choices(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A list of answers to choose from."""
    if len(memoryview(raw)) > limits.pattern_chars * (CHAR_BYTES + 4):
        raise too_long(name, limits)
    try:
        texts = _texts(raw)
    except msgspec.MsgspecError:
        raise invalid(name, "a list of strings") from None
    if sum(map(len, texts)) + len(texts) > limits.pattern_chars:
        raise too_long(name, limits)


_STRUCTURED: dict[str, Rule] = {
    "json": schema,
    "regex": pattern,
    "grammar": pattern,
    "choice": choices,
    "structural_tag": schema,
    "whitespace_pattern": pattern,
}

_TEMPLATE_KEYS = frozenset(
    ("chat_template", "tokenize", "conversation", "padding", "truncation", "max_length", "return_tensors",
     "return_dict", "tokenizer_kwargs")
)  # fmt: skip
_TRANSFER_KEYS = frozenset(("kv_transfer_params", "ec_transfer_params"))


def template_arguments(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """Variables of the chat template: never the template itself or what renders it."""
    keys = small_object(name, raw).keys() & _TEMPLATE_KEYS
    if keys:
        refused(f"{name}.{min(keys)}", raw, limits)


def engine_extras(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """`vllm_xargs`: arguments of a deployment's plugins, but never of its KV connector."""
    keys = small_object(name, raw).keys() & _TRANSFER_KEYS
    if keys:
        refused(f"{name}.{min(keys)}", raw, limits)


_repeats = integer(0, lambda _: TOKEN_LIST)


def repetition(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """`repetition_detection`: what it asks for is looked for again with every token."""
    for key, value in small_object(name, raw).items():
        if value != NULL:
            _repeats(f"{name}.{key}", value, limits)


def stream_options(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """An object; the gateway adds to it."""
    include = small_object(name, raw).get("include_usage", NULL)
    if include not in (TRUE, FALSE, NULL):
        raise invalid(f"{name}.include_usage", "true or false")


_budget = integer(0, lambda bounds: bounds.max_tokens)


def thinking(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """Anthropic's thinking: its budget counts as tokens."""
    budget = small_object(name, raw).get("budget_tokens", NULL)
    if budget != NULL:
        _budget(f"{name}.budget_tokens", budget, limits)
