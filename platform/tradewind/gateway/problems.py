"""Errors of the gateway, and the one place that turns them into responses.

GatewayError
├── Refused        ends a request with an error code, before or instead of an answer
├── ClientGone     the caller left; nothing can be sent any more
└── ConfigRefused  a new configuration cannot be used; the old one stays in force

Everything else that escapes a request is a bug and becomes `internal_error` with no text of its own.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from tradewind.api import headers as names
from tradewind.api.problems import Code

Style = Literal["openai", "anthropic"]
"""Whose SDK reads the error: Anthropic's looks for a top-level `type` as well."""

Header = tuple[bytes, bytes]

_encode = msgspec.json.Encoder().encode
_REQUEST_ID = names.REQUEST_ID.encode()
_ANTHROPIC_TYPES = {413: "request_too_large", 500: "api_error", 502: "api_error", 503: "overloaded_error"}


class GatewayError(Exception):
    """Anything the gateway raises on purpose."""


class Refused(GatewayError):
    """The request ends with `code`.

    `message` is read by the caller: it never holds a prompt, a key, a token or text of an engine's fault.
    `close` ends the connection, for a request whose body was not read to its end.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        param: str | None = None,
        headers: tuple[Header, ...] = (),
        close: bool = False,
        type_: str | None = None,
    ) -> None:
        super().__init__(code.wire)
        self.code = code
        self.message = message
        self.param = param
        self.headers = headers
        self.close = close
        self.type = type_ or code.value.type


class ClientGone(GatewayError):
    """The caller closed the connection before the answer was complete."""


class ConfigRefused(GatewayError):
    """The configuration names something that is not there; the message says what and where."""


def error_object(refused: Refused, request_id: str, style: Style) -> dict[str, Any]:
    """OpenAI's error object; in Anthropic's style with the `type` and `request_id` its SDK looks for."""
    error = {
        "message": refused.message,
        "type": refused.type,
        "param": refused.param,
        "code": refused.code.wire,
    }
    if style == "openai":
        return {"error": error}
    error["type"] = _ANTHROPIC_TYPES.get(refused.code.value.status, refused.type)
    return {"type": "error", "error": error, "request_id": request_id}


class Rendered(NamedTuple):
    """A response that ends a refused request. Its headers say nothing of framing or the connection."""

    status: int
    headers: list[Header]
    body: bytes


def render(refused: Refused, request_id: str, style: Style) -> Rendered:
    """`request_id` is empty for what is not recorded."""
    problem = refused.code.value
    body = _encode(error_object(refused, request_id, style))
    headers = [(b"content-type", b"application/json"), *refused.headers]
    if request_id:
        headers.append((_REQUEST_ID, request_id.encode()))
    if problem.retry_after_s is not None:
        headers.append((b"retry-after", str(problem.retry_after_s).encode()))
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return Rendered(problem.status, headers, body)


def internal_error() -> Refused:
    """What a caller sees of a bug: nothing but the code and, in the header, the request id."""
    return Refused(
        Code.INTERNAL_ERROR, "The platform failed. Its operator finds the cause by the request id."
    )


def shutting_down() -> Refused:
    """The refusal of a gateway that ends."""
    return Refused(Code.SHUTTING_DOWN, "This gateway is going away; send the request again.", close=True)
