"""Rules for single fields of a request body: each takes a raw value and raises Refused when it is bad.

Types are strict on purpose. The engine would read `"1000000"` or `1e6` as a number as well, so a bound
that only looked at integers would be no bound.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tradewind.api.problems import Code
from tradewind.api.wire import RequestLimits
from tradewind.gateway.patterns import check_choices, check_pattern, check_schema, check_schema_value
from tradewind.gateway.problems import Refused

Rule = Callable[[str, msgspec.Raw, RequestLimits], None]
"""(field name, raw value that is not null, limits)"""

Bound = Callable[[RequestLimits], int]

TOKEN_LIST = 1_024
"""Entries of logit_bias, bad_words, allowed_token_ids and the like."""
NAME_CHARS = 512
"""Characters of `user`, `session_id` and other identifiers."""

decode = msgspec.json.Decoder().decode
_raw_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def invalid(param: str, what: str) -> Refused:
    """A Refused with code invalid_value that says what `param` must be."""
    return Refused(Code.INVALID_VALUE, f"{param} must be {what}.", param=param)


def integer(low: int, high: Bound) -> Rule:
    """An integer from `low` to what the limits allow."""

    def rule(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
        value = decode(raw)
        top = high(limits)
        if type(value) is not int or not low <= value <= top:
            raise invalid(name, f"an integer from {low} to {top}")

    return rule


def boolean(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """`true` or `false`."""
    if type(decode(raw)) is not bool:
        raise invalid(name, "true or false")


def short_text(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A string that serves as an identifier."""
    value = decode(raw)
    if not isinstance(value, str) or len(value) > NAME_CHARS:
        raise invalid(name, f"a string of at most {NAME_CHARS} characters")


def refused(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """Never allowed."""
    raise Refused(Code.FIELD_NOT_ALLOWED, f"{name} is not allowed in a request.", param=name)


def sequence(high: Bound) -> Rule:
    """A list of bounded length; its items are the engine's to read."""

    def rule(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
        top = high(limits)
        if len(raw_items(name, raw)) > top:
            raise invalid(name, f"a list of at most {top} items")

    return rule


def mapping(high: Bound) -> Rule:
    """An object of a bounded number of members."""

    def rule(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
        top = high(limits)
        if len(raw_object(name, raw)) > top:
            raise invalid(name, f"an object of at most {top} members")

    return rule


def raw_items(name: str, raw: msgspec.Raw) -> list[msgspec.Raw]:
    """Items of a list, each as raw JSON; Refused when it is no list."""
    try:
        return _raw_list(raw)
    except msgspec.MsgspecError:
        raise invalid(name, "a list") from None


def raw_object(name: str, raw: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Members of an object, each as raw JSON; Refused when it is no object."""
    try:
        return _raw_members(raw)
    except msgspec.MsgspecError:
        raise invalid(name, "an object") from None


def messages(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A list with at least one item."""
    if not raw_items(name, raw):
        raise invalid(name, "a list with at least one message")


def stop(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A string or a list of strings, bounded in number and length."""
    value = decode(raw)
    texts = value if isinstance(value, list) else [value]
    if len(texts) > limits.stop or not all(isinstance(t, str) and len(t) <= limits.stop_chars for t in texts):
        raise invalid(name, f"at most {limits.stop} strings of at most {limits.stop_chars} characters")


def chat_logprobs(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """Chat has a switch where completions have a number; both bounded."""
    value = decode(raw)
    if type(value) is not bool and not (type(value) is int and 0 <= value <= limits.logprobs):
        raise invalid(name, "true or false")


def prompts(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """One prompt (text or token ids) or a list of them, bounded in number."""
    if bytes(raw)[:1] not in (b'"', b"["):
        raise invalid(name, "a string or a list")
    if count_prompts(raw) > limits.prompts:
        raise invalid(name, f"at most {limits.prompts} prompts")


def count_prompts(raw: msgspec.Raw) -> int:
    """How many sequences a prompt field asks for: a list of numbers is one, any other list is its length."""
    if bytes(raw)[:1] != b"[":
        return 1
    items = _raw_list(raw)
    if items and bytes(items[0])[:1] not in (b'"', b"[", b"{"):
        return 1
    return len(items)


def documents(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """Texts to score: one, a list, or an object whose `content` is a list."""
    head = bytes(raw)[:1]
    if head not in (b'"', b"[", b"{"):
        raise invalid(name, "a string, a list or an object")
    inner = raw_object(name, raw).get("content") if head == b"{" else raw
    if inner is not None and bytes(inner)[:1] == b"[" and len(_raw_list(inner)) > limits.prompts:
        raise invalid(name, f"at most {limits.prompts} texts")


def tools(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A list of tools, bounded in number and in the size of each; their schemas can become grammars."""
    items = raw_items(name, raw)
    if len(items) > limits.tools:
        raise invalid(name, f"a list of at most {limits.tools} tools")
    for item in items:
        if len(bytes(item)) > limits.schema_bytes:
            raise invalid(name, f"a list of tools of at most {limits.schema_bytes} bytes each")
        check_schema_value(decode(item), name, limits)


def schema_holder(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """`response_format`, `text` and `output_config`: an object that holds a JSON schema somewhere."""
    if bytes(raw)[:1] != b"{":
        raise invalid(name, "an object")
    check_schema(raw, name, limits)


def structured_outputs(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """vLLM's own structured output parameters."""
    for key, value in raw_object(name, raw).items():
        rule = _STRUCTURED.get(key)
        if rule is not None and bytes(value) != b"null":
            rule(f"{name}.{key}", value, limits)


def pattern(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A regex or a grammar."""
    check_pattern(decode(raw), name, limits)


def schema(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A JSON schema, as an object or as text."""
    check_schema(raw, name, limits)


def choices(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """A list of answers to choose from."""
    check_choices(decode(raw), name, limits)


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


def template_arguments(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """Variables of the chat template: never the template itself or what renders it."""
    keys = raw_object(name, raw).keys() & _TEMPLATE_KEYS
    if keys:
        refused(f"{name}.{min(keys)}", raw, limits)


_TRANSFER_KEYS = frozenset(("kv_transfer_params", "ec_transfer_params"))


def engine_extras(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """`vllm_xargs`: arguments of a deployment's plugins, but never of its KV connector."""
    keys = raw_object(name, raw).keys() & _TRANSFER_KEYS
    if keys:
        refused(f"{name}.{min(keys)}", raw, limits)


def repetition(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """`repetition_detection`: what it asks for is looked for again with every token."""
    for key, value in raw_object(name, raw).items():
        if bytes(value) != b"null":
            integer(0, lambda _: TOKEN_LIST)(f"{name}.{key}", value, limits)


def stream_options(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """An object; the gateway adds to it."""
    members = raw_object(name, raw)
    include = members.get("include_usage")
    if include is not None and bytes(include) not in (b"true", b"false", b"null"):
        raise invalid(f"{name}.include_usage", "true or false")


def thinking(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """Anthropic's thinking: its budget counts as tokens."""
    budget = raw_object(name, raw).get("budget_tokens")
    if budget is not None and bytes(budget) != b"null":
        integer(0, lambda bounds: bounds.max_tokens)(f"{name}.budget_tokens", budget, limits)
