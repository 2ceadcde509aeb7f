"""The head of a request: checked as it arrived, before anything is looked up or read.

The decision where a request goes is made on the raw path alone. Nothing here is passed upstream:
the gateway writes a new head for the engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tradewind.api.headers import RESERVED_PREFIX
from tradewind.api.problems import Code
from tradewind.api.wire import RequestLimits
from tradewind.gateway.front import wire
from tradewind.gateway.problems import Refused

_ONCE = frozenset(
    (b"content-length", b"authorization", b"x-api-key", b"host", b"content-type", b"transfer-encoding",
     b"content-encoding", b"traceparent", b"expect")
)  # fmt: skip
_JSON = re.compile(
    rb"application/json[ \t]*(?:;[ \t]*(?:charset=(?:utf-8|\"utf-8\")[ \t]*)?)*", re.IGNORECASE
)
_PER_HEADER = 4  # ": " and the line's end


class Head:
    """Headers of one request by lower-case name, the first value of each."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self._values = values

    def get(self, name: bytes) -> bytes | None:
        """Raw value, or None."""
        return self._values.get(name)

    def text(self, name: str) -> str | None:
        """Value as text; reserved names are never found, whoever sent them."""
        if name.startswith(RESERVED_PREFIX):
            return None
        value = self._values.get(name.encode())
        return None if value is None else value.decode("latin-1")


def read_head(headers: Iterable[tuple[bytes, bytes]], http_version: str, limits: RequestLimits) -> Head:
    """Raises Refused when the head is too large, ambiguous about its framing, or names no sane host."""
    values: dict[bytes, bytes] = {}
    size = 0
    for name, value in headers:
        size += len(name) + len(value) + _PER_HEADER
        if name in values:
            if name in _ONCE:
                raise wire.bad(f"The header {name.decode('latin-1')} was sent twice.")
        else:
            values[name] = value
    if size > limits.header_bytes:
        raise Refused(
            Code.HEADERS_TOO_LARGE, f"The headers are over {limits.header_bytes} bytes.", close=True
        )
    length = values.get(b"content-length")
    if length is not None:
        if b"transfer-encoding" in values:
            raise wire.bad("Content-Length and Transfer-Encoding exclude each other.")
        wire.length_of(length)
    host = values.get(b"host")
    if host is None:
        if http_version == "1.1":
            raise wire.bad("The Host header is missing.")
    elif wire.AUTHORITY.fullmatch(host) is None:
        raise wire.bad("The Host header is not a host name.")
    return Head(values)


def check_content(head: Head) -> None:
    """Raises Refused (unsupported_media_type) unless the body is plain JSON."""
    kind = head.get(b"content-type")
    if kind != b"application/json" and (kind is None or _JSON.fullmatch(kind) is None):
        raise Refused(Code.UNSUPPORTED_MEDIA_TYPE, "Send the body as application/json.", close=True)
    encoding = head.get(b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise Refused(Code.UNSUPPORTED_MEDIA_TYPE, "Send the body without a Content-Encoding.", close=True)
