"""Finds media that an engine would fetch, so that nobody reaches the cluster's network through a URL.

Only what is looked at by vLLM counts: content parts, Anthropic `source` blocks and Responses items.
A URL in a text, in a tool's arguments or in a tool's schema is the caller's own business.

The walk goes down level by level and leaves every value as the caller's bytes: an image of megabytes is
passed over once for each object around it, and no number is ever read. Both are bounded.
"""

from __future__ import annotations

import msgspec

from tradewind.api.problems import Code
from tradewind.gateway.limits import Fields, structure
from tradewind.gateway.problems import Refused
from tradewind.gateway.rules import LIST, NULL, OBJECT, QUOTE, first_byte

_URL_KEYS = frozenset(("image_url", "audio_url", "video_url", "file_url"))
_CALLERS_OWN = frozenset(
    ("arguments", "parameters", "input_schema", "tools", "function", "tool_calls", "metadata")
)
MEDIA_VALUES = 60_000
"""Members and items of one field that is looked at; each object counts as three more."""
MEDIA_PASSES = 4
"""Times the length of a field that are read: messages, content, a tool's result, its image's source."""

_SPARE_BYTES = 1024 * 1024
_BODY_BYTES = 65_536
_Members = dict[str, msgspec.Raw]
_text = msgspec.json.Decoder(str).decode
_object = msgspec.json.Decoder(_Members).decode
_objects = msgspec.json.Decoder(list[_Members]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def may_hold_media(body: bytes) -> bool:
    """Cheap and never wrong when it says no: a key spelled out, or with its ASCII letters escaped.

    A large body is worth a walk sooner than a search: it is large by its texts, which a walk jumps over.
    """
    return (
        len(body) > _BODY_BYTES or b"url" in body or b"uuid" in body or (b"\\" in body and b"\\u00" in body)
    )


def check_media(fields: Fields, names: tuple[str, ...], values: int) -> None:
    """Raises Refused when a member in `names` holds media that is not an inline `data:` URL.

    Media known to an engine by a `uuid` of the caller's are refused too: they are shared by all of
    an engine's tenants, so that one could ask about another's picture by its name. `values` is how many
    values there are at most: only a body of many has them counted.
    """
    for name in names:
        raw = fields.get(name)
        if raw is not None and first_byte(raw) != QUOTE:
            _Walk(name, raw).run(raw, count=values > MEDIA_VALUES)


class _Walk:
    """One field, looked at within its bounds."""

    def __init__(self, param: str, raw: msgspec.Raw) -> None:
        self._param = param
        self._bytes = MEDIA_PASSES * len(memoryview(raw)) + _SPARE_BYTES
        self._pending: list[tuple[str, msgspec.Raw]] = []
        """What is still to be looked at, each with the key it was found under."""

    def run(self, top: msgspec.Raw, count: bool) -> None:
        """Raises Refused."""
        if count and not self._worth(top):
            return
        self._push("", top)
        while self._pending:
            key, raw = self._pending.pop()
            self._bytes -= len(memoryview(raw))
            if self._bytes < 0:
                raise self._too_complex("nests long content too deep")
            if first_byte(raw) == OBJECT:
                self._check(key, _object(raw))
            else:
                self._check_list(key, raw)

    def _worth(self, top: msgspec.Raw) -> bool:
        """Whether there is an object to look at; Refused when there are too many."""
        text = bytes(top)
        if b"{" not in text:
            return False
        found = structure(text)
        if found.count(b",") + 3 * found.count(b"{") > MEDIA_VALUES:
            raise self._too_complex(f"holds more than {MEDIA_VALUES} values")
        return True

    def _push(self, key: str, raw: msgspec.Raw) -> None:
        """A value to look at: containers later, a URL at once."""
        kind = first_byte(raw)
        if kind in (LIST, OBJECT):
            self._pending.append((key, raw))
        elif kind == QUOTE and key in _URL_KEYS:
            _check_url(raw, self._param)

    def _check_list(self, key: str, raw: msgspec.Raw) -> None:
        try:
            objects = _objects(raw)
        except msgspec.ValidationError:
            pass  # not of objects alone
        else:
            for members in objects:
                self._check(key, members)
            return
        for item in _items(raw):
            self._push(key, item)

    def _check(self, key: str, members: _Members) -> None:
        if key in _URL_KEYS or (key == "source" and members.get("type") != _BASE64):
            url = members.get("url")
            if url is not None:
                _check_url(url, self._param)
        if members.get("uuid", NULL) != NULL:
            raise Refused(
                Code.FIELD_NOT_ALLOWED,
                "Media cannot be named by a uuid; send them inline.",
                param=f"{self._param}.uuid",
            )
        # The input of a tool call is data for the tool; everywhere else `input` is content.
        is_call = members.get("type") == _TOOL_USE
        for name, value in members.items():
            if name not in _CALLERS_OWN and not (is_call and name == "input"):
                self._push(name, value)

    def _too_complex(self, what: str) -> Refused:
        return Refused(Code.JSON_TOO_COMPLEX, f"{self._param} {what}.", param=self._param)


_BASE64 = msgspec.Raw(b'"base64"')
_TOOL_USE = msgspec.Raw(b'"tool_use"')


def _check_url(url: msgspec.Raw, param: str) -> None:
    """Nothing but a string is fetched."""
    if first_byte(url) != QUOTE:
        return
    start = bytes(memoryview(url)[1:32])
    scheme = _text(url)[:5] if b"\\" in start else start[:5].decode(errors="replace")
    if scheme.lower() != "data:":
        raise Refused(Code.REMOTE_MEDIA_NOT_ALLOWED, "Send media inline as a data: URL.", param=param)
