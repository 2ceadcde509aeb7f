"""Shuts the HTTP ports that Serve opens and nobody needs.

Serve opens one for each replica that an application's requests go to, and one more on the head for a proxy
of its own, which reads whole bodies before it asks anybody and finds the way to every engine. Callers come to
the gateway's listener, and the gateway goes to the engines: of Serve's ports only the engines' are needed.

Serve calls `middlewares` (by `CALLBACK`) in each process that opens such a port.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware

from tradewind.api.problems import Code

ENGINE: Final = "engine"
"""Name of the deployment of an engine's application."""

_BODY: Final = json.dumps(Code.NOT_FOUND.error_object(Code.NOT_FOUND.value.meaning)).encode()
_HEADERS: Final = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(_BODY)),
    (b"connection", b"close"),
]

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Shut:
    """Answers whatever is asked with 404, and reads no body."""

    def __init__(self, app: object) -> None:
        """`app` is what would have answered."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": _BODY})


def middlewares() -> list[Middleware]:
    """What is put before the application of the port that this process opens."""
    return [] if _deployment() == ENGINE else [Middleware(Shut)]


def _deployment() -> str:
    """Whose replica this process is; empty for a proxy."""
    try:
        return str(serve.get_replica_context().deployment)
    except RayServeException:
        return ""
