"""Cross-origin requests: which pages may call the endpoint from a browser (CORS of the Fetch standard).

Keys travel in a header that a page sets itself, never as a cookie: credentials are never allowed, and an
origin is told by its full text. That is no protection of the endpoint, which its keys are; it keeps pages
that nobody named from using a browser's place in the network, or an endpoint that asks for no key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tradewind.api import headers as names
from tradewind.gateway.front.context import Amend
from tradewind.gateway.problems import Header

MAX_AGE_S = 600
"""How long a browser may go by what a preflight was told."""

_EXPOSED = ", ".join((names.REQUEST_ID, names.ROUTE, names.VARIANT, "retry-after")).encode()
_VARY = (b"vary", b"origin")
_VARY_PREFLIGHT = (b"vary", b"origin, access-control-request-method, access-control-request-headers")
_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4096}")


class Cors:
    """Origins that may call. Immutable."""

    __slots__ = ("_origins",)

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)

    def answering(self, method: bytes, headers: Iterable[Header]) -> Amend:
        """Adds to the answer to a request what a browser needs to let a page see that answer.

        Every answer is told to depend on the origin, lest a cache give one page's to another.
        """
        added = self._added(method, headers)
        return lambda own: [*own, *added, *_methods(own, added)]

    def _added(self, method: bytes, headers: Iterable[Header]) -> tuple[Header, ...]:
        """Headers for the answer."""
        origins = []
        asked, wanted = False, b""
        for name, value in headers:
            if name == b"origin":
                origins.append(value)
            elif name == b"access-control-request-method":
                asked = True
            elif name == b"access-control-request-headers":
                wanted = value
        preflight = asked and method == b"OPTIONS"
        vary = _VARY_PREFLIGHT if preflight else _VARY
        if len(origins) != 1 or origins[0] not in self._origins:
            return (vary,)
        allowed = (vary, (b"access-control-allow-origin", origins[0]))
        if not preflight:
            return (*allowed, (b"access-control-expose-headers", _EXPOSED))
        # Any header: those of our own are dropped at the door, and a page that may call may name a user.
        asks = ((b"access-control-allow-headers", wanted),) if _NAMES.fullmatch(wanted) else ()
        return (*allowed, *asks, (b"access-control-max-age", str(MAX_AGE_S).encode()))


def _methods(own: Iterable[Header], added: tuple[Header, ...]) -> tuple[Header, ...]:
    """To a preflight that is granted, the methods that the path has."""
    if added[-1][0] != b"access-control-max-age":
        return ()
    return tuple((b"access-control-allow-methods", value) for name, value in own if name == b"allow")
