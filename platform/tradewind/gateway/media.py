"""Finds media that an engine would fetch, so that nobody reaches the cluster's network through a URL.

Only what is looked at by vLLM counts: content parts, Anthropic `source` blocks and Responses items.
A URL in a text, in a tool's arguments or in a tool's schema is the caller's own business.
"""

from __future__ import annotations

import msgspec

from tradewind.api.problems import Code
from tradewind.gateway.limits import Fields
from tradewind.gateway.problems import Refused

_URL_KEYS = frozenset(("image_url", "audio_url", "video_url", "file_url"))
_CALLERS_OWN = frozenset(
    ("arguments", "parameters", "input_schema", "tools", "function", "tool_calls", "metadata")
)
_decode = msgspec.json.Decoder().decode


def may_hold_media(body: bytes) -> bool:
    """Cheap and never wrong when it says no: a key spelled out, or with its ASCII letters escaped."""
    return b"url" in body or b"uuid" in body or (b"\\" in body and b"\\u00" in body)


def check_media(fields: Fields, names: tuple[str, ...]) -> None:
    """Raises Refused when a member in `names` holds media that is not an inline `data:` URL.

    Media known to an engine by a `uuid` of the caller's are refused too: they are shared by all of
    an engine's tenants, so that one could ask about another's picture by its name.
    """
    for name in names:
        raw = fields.get(name)
        if raw is not None:
            _walk(_decode(raw), name)


def _walk(top: object, param: str) -> None:
    pending = [top]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, dict):
            _check_part(item, param)
            # The input of a tool call is data for the tool; everywhere else `input` is content.
            is_call = item.get("type") == "tool_use"
            pending.extend(
                value
                for key, value in item.items()
                if isinstance(value, dict | list)
                and key not in _CALLERS_OWN
                and not (is_call and key == "input")
            )


def _check_part(part: dict[str, object], param: str) -> None:
    for key in _URL_KEYS & part.keys():
        value = part[key]
        for url in value if isinstance(value, list) else (value,):
            _check_url(url.get("url") if isinstance(url, dict) else url, param)
    source = part.get("source")
    if isinstance(source, dict) and source.get("type") != "base64":
        _check_url(source.get("url"), param)
    if part.get("uuid") is not None:
        raise Refused(
            Code.FIELD_NOT_ALLOWED,
            "Media cannot be named by a uuid; send them inline.",
            param=f"{param}.uuid",
        )


def _check_url(url: object, param: str) -> None:
    if isinstance(url, str) and url[:5].lower() != "data:":
        raise Refused(Code.REMOTE_MEDIA_NOT_ALLOWED, "Send media inline as a data: URL.", param=param)
