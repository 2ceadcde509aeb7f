"""HTTP/1.1 as callers speak it: what of a request's head is accepted, and the bytes of a response's head.

Everything that leaves room for two readings of where a request ends is refused, and so is what a server in
front might read otherwise than this one: both framings, a length given twice, any transfer coding but a
single `chunked`, one in HTTP/1.0, a target that is neither a path nor an absolute URL. Whoever is refused for
that loses the connection too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple

from tradewind.api.problems import Code
from tradewind.gateway.problems import Header, Refused

_TARGET: Final = re.compile(rb"[\x21-\x22\x24-\x7e]+")
AUTHORITY: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
"""A host, and a port or not."""
_LENGTH_DIGITS: Final = 18
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding"))
BODILESS: Final = frozenset((204, 304))
"""Statuses of answers without a body."""
NO_LENGTH: Final = -1
"""Length of an answer that is not known when it begins."""


class Framing(NamedTuple):
    """Where a request's body ends."""

    length: int | None
    """Announced bytes; None where it comes in chunks or not at all."""
    chunked: bool

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.length)


def bad(message: str) -> Refused:
    """The refusal of what is no sound HTTP.

    Its connection is closed: who disagrees about where a request ends must not send another one on it.
    """
    return Refused(Code.INVALID_REQUEST, message, close=True)


def too_long_a_head(limit: int) -> Refused:
    """The refusal of a head over `limit` bytes."""
    return Refused(Code.HEADERS_TOO_LARGE, f"The request's head is over {limit} bytes.", close=True)


def framing(headers: list[Header], version: str) -> Framing:
    """Raises Refused where the end of the body could be read in two ways. Names are in lower case."""
    found = [header for header in headers if header[0] in _FRAMING]
    if not found:
        return _NO_BODY
    if len(found) > 1:
        raise bad("The request frames its body twice.")
    name, value = found[0]
    if name == b"content-length":
        return Framing(length_of(value), chunked=False)
    if value.lower() != b"chunked" or version != "1.1":
        raise bad("The only transfer coding is chunked, in HTTP/1.1.")
    return Framing(None, chunked=True)


def length_of(value: bytes) -> int:
    """What Content-Length says. Raises Refused."""
    if not value.isdigit() or len(value) > _LENGTH_DIGITS:
        raise bad("Content-Length is not a number.")
    return int(value)


_NO_BODY: Final = Framing(None, chunked=False)


def path_of(target: bytes) -> bytes:
    """The raw path of a request's target, without its query. Raises Refused for what is no path or URL."""
    if not target.startswith(b"/"):
        scheme, separator, rest = target.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            if target == b"*":
                return target
            raise bad("The request's target is not a path.")
        authority, slash, tail = rest.partition(b"/")
        if AUTHORITY.fullmatch(authority) is None:
            raise bad("The request's target names no sane host.")
        target = slash + tail or b"/"
    if _TARGET.fullmatch(target) is None:
        raise bad("The request's target holds a character that a URL does not.")
    return target.partition(b"?")[0]


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


def response_head(status: int, headers: list[Header], length: int, *, chunked: bool, close: bool) -> bytes:
    """Bytes of a response's head. Without a `length` (`NO_LENGTH`) the body is chunked or ends by closing.

    Raises ValueError for a CR, LF or NUL in a header: it would be a head of the caller's making.
    """
    lines = [name + b": " + value for name, value in headers]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    elif length >= 0 and status not in BODILESS:
        lines.append(b"content-length: %d" % length)
    if close:
        lines.append(b"connection: close")
    ends = len(lines) + 1
    lines += (b"", b"")
    head = b"\r\n".join(lines)
    if not head.count(b"\r") == head.count(b"\n") == ends or b"\0" in head:
        raise ValueError("a header holds CR, LF or NUL")
    return _status_line(status) + head


def chunk(data: bytes) -> bytes:
    """`data`, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
