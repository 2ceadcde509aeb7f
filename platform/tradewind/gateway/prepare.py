"""From a checked body to the body an engine gets.

Fields nobody looks at keep the caller's own bytes. The body is put together anew all the same: so a
member that was sent twice reaches the engine once, and it is the one that was checked.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from tradewind.api.problems import Code
from tradewind.api.wire import Overrides, RequestLimits
from tradewind.gateway import rules
from tradewind.gateway.endpoints import DROPPED, Endpoint
from tradewind.gateway.limits import Fields, check_complexity, parse_object, structure
from tradewind.gateway.media import check_media, may_hold_media
from tradewind.gateway.problems import Refused
from tradewind.gateway.usage import Dialect
from tradewind.routing.table import CompiledVariant

MODEL_CHARS = 256
SALT_BYTES = 32
_MESSAGES = 60_000
"""Members and items of messages from which a system prompt can be taken out."""
_SYSTEM = ("system", "developer")

_NULL, _TRUE, _FALSE = rules.NULL, rules.TRUE, rules.FALSE
_encode = msgspec.json.Encoder().encode


class _Message(msgspec.Struct):
    role: str = ""


class _List(msgspec.Struct, array_like=True):
    item: msgspec.Raw


_message = msgspec.json.Decoder(_Message)
_first = msgspec.json.Decoder(_List).decode
_raw_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(slots=True)
class Request:
    """A body that passed every check."""

    endpoint: Endpoint
    fields: Fields
    model: str
    stream: bool
    user: str | None
    session: str | None
    wants_usage: bool
    """The caller asked for usage in the stream itself."""

    def let_go(self) -> None:
        """Nobody will be asked again: its fields, which hold the caller's whole body, are wanted no more."""
        self.fields = {}


def check_request(body: bytes, endpoint: Endpoint, limits: RequestLimits) -> Request:
    """Raises Refused for anything an engine must not see."""
    values = check_complexity(body, limits)
    fields = parse_object(body)
    model = _model(fields)
    endpoint_rules = endpoint.rules
    dropped = None
    for name, raw in fields.items():
        if name in DROPPED:
            dropped = [*(dropped or ()), name]
            continue
        rule = endpoint_rules.get(name)
        if rule is None:
            continue
        if raw == _NULL:
            if rule is rules.refused:
                dropped = [*(dropped or ()), name]
            continue
        rule(name, raw, limits)
    for name in dropped or ():
        del fields[name]
    _check_required(fields, endpoint)
    if endpoint.usage_option:
        _check_sequences(fields, limits)
    if endpoint.media and not limits.remote_media and may_hold_media(body):
        check_media(fields, endpoint.media, values)
    return Request(
        endpoint=endpoint,
        fields=fields,
        model=model,
        stream=endpoint.streams and fields.get("stream") == _TRUE,
        user=_user(fields, endpoint),
        session=_text(fields, "session_id"),
        wants_usage=endpoint.usage_option and _wants_usage(fields),
    )


def render_body(request: Request, variant: CompiledVariant, salt: msgspec.Raw) -> bytes:
    """The JSON for the engine of `variant`: its name for the model, its overrides, the tenant's salt."""
    endpoint = request.endpoint
    fields = dict(request.fields)
    fields["model"] = msgspec.Raw(_encode(variant.upstream_model))
    if variant.overrides is not None:
        _override(fields, endpoint, variant.overrides)
    if endpoint.salted:
        fields["cache_salt"] = salt
    if request.stream and endpoint.usage_option and not request.wants_usage:
        options = fields.get("stream_options")
        members = {} if options is None or options == _NULL else rules.small_object("stream_options", options)
        fields["stream_options"] = msgspec.Raw(_encode({**members, "include_usage": _TRUE}))
    if endpoint.dialect is Dialect.RESPONSES:
        # A stored response would stay in one replica's memory, with nobody able to fetch it.
        fields["store"] = _FALSE
    return _encode(fields)


def tenant_salt(secret: bytes, tenant: str) -> msgspec.Raw:
    """`cache_salt` of a tenant: 64 hex characters, the same on every gateway, unknown to the tenant."""
    mac = hmac.digest(secret, b"tradewind cache salt\0" + tenant.encode(), "sha256")
    return msgspec.Raw(b'"' + mac[:SALT_BYTES].hex().encode() + b'"')


def _model(fields: Fields) -> str:
    raw = fields.get("model")
    if raw is None or raw == _NULL:
        raise Refused(Code.MISSING_FIELD, "model is required.", param="model")
    model = rules.text_within(raw, MODEL_CHARS)
    if not model:
        raise rules.invalid("model", f"a string of 1 to {MODEL_CHARS} characters")
    return model


def _check_required(fields: Fields, endpoint: Endpoint) -> None:
    for group in endpoint.required:
        if not any(fields.get(name, _NULL) != _NULL for name in group):
            names = " or ".join(group)
            raise Refused(Code.MISSING_FIELD, f"{names} is required.", param=group[0])


def _check_sequences(fields: Fields, limits: RequestLimits) -> None:
    """Prompts times answers each: both bounds kept, their product may still be a flood."""
    wanted = _whole(fields, "n"), _whole(fields, "best_of")
    prompt = fields.get("prompt")
    if max(wanted) > 1 and prompt is not None and prompt != _NULL:
        count = rules.count_prompts(prompt, limits) * max(wanted)
        if count > max(limits.prompts, limits.choices):
            raise rules.invalid("n", f"small enough for {limits.prompts} answers in all")


def _whole(fields: Fields, name: str) -> int:
    raw = fields.get(name, _NULL)
    return 1 if raw == _NULL else rules.whole_number(raw) or 1


def _text(fields: Fields, name: str) -> str | None:
    raw = fields.get(name)
    return None if raw is None or raw == _NULL else rules.identifier(name, raw)


def _user(fields: Fields, endpoint: Endpoint) -> str | None:
    """Anthropic's clients name their user in `metadata.user_id`, newer OpenAI ones in `safety_identifier`."""
    if endpoint.dialect is not Dialect.ANTHROPIC:
        return _text(fields, "user") or _text(fields, "safety_identifier")
    raw = fields.get("metadata")
    if raw is None or raw == _NULL:
        return None
    user = rules.small_object("metadata", raw).get("user_id")
    if user is None or user == _NULL:
        return None
    return rules.identifier("metadata.user_id", user)


def _wants_usage(fields: Fields) -> bool:
    raw = fields.get("stream_options")
    if raw is None or raw == _NULL:
        return False
    return rules.small_object("stream_options", raw).get("include_usage") == _TRUE


def _override(fields: Fields, endpoint: Endpoint, overrides: Overrides) -> None:
    for name in endpoint.sampling:
        value = getattr(overrides, name)
        if value is not None:
            fields[name] = _raw(value)
    if overrides.max_tokens is not None and endpoint.max_tokens:
        fields[endpoint.max_tokens] = _raw(overrides.max_tokens)
        if endpoint.max_tokens != "max_tokens":
            fields.pop("max_tokens", None)
    if overrides.system_prompt is not None and endpoint.system:
        if endpoint.system == "messages":
            fields["messages"] = _with_system(fields["messages"], overrides.system_prompt)
        else:
            fields[endpoint.system] = _raw(overrides.system_prompt)


def _with_system(raw: msgspec.Raw, prompt: str) -> msgspec.Raw:
    """Messages that begin with `prompt`; the caller's own leading system messages give way to it."""
    system = msgspec.Raw(_encode({"role": "system", "content": prompt}))
    if rules.item_start(raw) != "{" or _role(_first(raw).item) not in _SYSTEM:
        return msgspec.Raw(b"".join((b"[", bytes(system), b",", memoryview(raw)[1:])))
    text = bytes(raw)
    if text.count(b",") > _MESSAGES and structure(text).count(b",") > _MESSAGES:
        raise rules.invalid("messages", f"a list of at most {_MESSAGES} members in all")
    items = _raw_list(raw)
    start = 0
    while start < len(items) and _role(items[start]) in _SYSTEM:
        start += 1
    return _join((system, *items[start:]))


def _role(raw: msgspec.Raw) -> str:
    try:
        return _message.decode(raw).role
    except msgspec.MsgspecError:
        return ""


def _join(items: Iterable[msgspec.Raw]) -> msgspec.Raw:
    return msgspec.Raw(b"[" + b",".join(map(bytes, items)) + b"]")


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))


def salt_secret(engine_token: str) -> bytes:
    """Key for the salts, derived so that a salt says nothing about the token."""
    return hashlib.blake2b(engine_token.encode(), digest_size=32, person=b"cache salt").digest()
