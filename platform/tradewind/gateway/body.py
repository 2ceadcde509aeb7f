"""Reads the body of a request, never more of it than allowed and never for longer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tradewind.api.problems import Code
from tradewind.api.wire import RequestLimits
from tradewind.gateway.head import Head
from tradewind.gateway.problems import ClientGone, Refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def read_body(receive: Receive, head: Head, limits: RequestLimits) -> bytes:
    """The whole body.

    Raises Refused (body_too_large, request_timeout), and ClientGone when the caller leaves meanwhile.
    At most `limits.body_bytes` plus one message of the server's are held.
    """
    announced = head.content_length
    if announced is not None and announced > limits.body_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            message = await receive()
            body = message.get("body", b"")
            if message["type"] == "http.request" and not message.get("more_body", False):
                if len(body) > limits.body_bytes:
                    raise _too_large(limits)
                return bytes(body)
            return await _read_rest(message, receive, limits)
    except TimeoutError:
        raise Refused(
            Code.REQUEST_TIMEOUT, f"The body did not arrive within {limits.body_timeout_s:g} s.", close=True
        ) from None


async def _read_rest(message: Message, receive: Receive, limits: RequestLimits) -> bytes:
    body = bytearray()
    while True:
        if message["type"] != "http.request":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > limits.body_bytes:
            raise _too_large(limits)
        if not message.get("more_body", False):
            return bytes(body)
        message = await receive()


def _too_large(limits: RequestLimits) -> Refused:
    return Refused(Code.BODY_TOO_LARGE, f"The body is over {limits.body_bytes} bytes.", close=True)
