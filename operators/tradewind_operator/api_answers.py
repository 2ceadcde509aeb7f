"""What an answer of the API server means: an object, or an error of ours. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tradewind.telemetry.redaction import redact
from tradewind_operator.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    NotServed,
    Unreachable,
)

_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    415: Invalid,
    422: Invalid,
}
_MAX_MESSAGE: Final = 1_024


def read(
    what: str, status: int, headers: Mapping[str, str], data: bytes, *, secret: bool = False
) -> dict[str, Any]:
    """The object in an answer.

    Args:
        what: the request in words, for the error.
        headers: of the answer, in any case.
        secret: never repeat what the server said: it may quote what was sent.

    Raises:
        ApiError: the subclass that fits the status.
    """
    document = _parse(data)
    if status < 300 and document is not None:
        return document
    if status < 300:
        raise Unreachable(what, status, "UnreadableAnswer")
    raise _error(what, status, headers, document, secret=secret)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait; None where it does not say, or not in seconds."""
    text = {key.lower(): value for key, value in headers.items()}.get("retry-after", "")
    return float(text) if text.isdecimal() else None


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(data)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _error(
    what: str, status: int, headers: Mapping[str, str], document: dict[str, Any] | None, *, secret: bool
) -> ApiError:
    reason = str((document or {}).get("reason") or "")
    said = "" if secret else redact(str((document or {}).get("message") or ""))[:_MAX_MESSAGE]
    if status == 429 or status >= 500:
        error = Unreachable(what, status, reason or "no answer", said)
        error.retry_after_s = retry_after(headers)
        return error
    if status == 404 and (document is None or not (document.get("details") or {}).get("name")):
        # The object's absence comes with its name; that of the resource as plain text.
        return NotServed(what, status, reason, "the API server does not know this resource")
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(what, status, reason, said)
    return _BY_STATUS.get(status, ApiError)(what, status, reason, said)
