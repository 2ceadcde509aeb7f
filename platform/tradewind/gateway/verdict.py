"""What an engine's answer means: pass it on, tell the caller, or try elsewhere.

Statuses below 500 that blame the request become our error object with the engine's own words, because
only the engine knows what it could not do. Everything else is a fault behind the gateway, and its text
stays there.
"""

from __future__ import annotations

import re
from enum import Enum

import msgspec

from tradewind.api import refusals
from tradewind.api.problems import Code
from tradewind.gateway.problems import Refused
from tradewind.telemetry.printable import printable

MESSAGE_CHARS = 1_000
ERROR_BYTES = 64 * 1024
"""Most that is read of an engine's error body."""

_CONTEXT = re.compile(r"maximum (?:context|model|sequence) length|max_model_len", re.IGNORECASE)
_INTERNAL = re.compile(r"Traceback|File \"|0x[0-9a-fA-F]{6,}|https?://\d|\d+\.\d+\.\d+\.\d+:\d+")
_PYDANTIC = re.compile(r"validation errors? for \w|input_value=|errors\.pydantic\.dev")
"""Text of a library about what it was given, which is as likely the model's words as the caller's."""
_CODES = ((refusals.GRAMMAR, Code.GRAMMAR_REJECTED), (refusals.TOOLS, Code.TOOLS_NOT_ENABLED))
_NO_SUCH_MODEL = re.compile(r"model .{0,300}does not exist", re.IGNORECASE | re.DOTALL)


class Retry(Enum):
    """Whether the same request may do better somewhere else."""

    NO = 0
    FALLBACK = 1
    """Not on another replica, which would fail alike, but on another deployment."""
    ELSEWHERE = 2


class _ErrorBody(msgspec.Struct):
    error: _Error | None = None
    message: str | None = None


class _Error(msgspec.Struct):
    message: str = ""
    param: str | None = None
    type: str = ""


_decode = msgspec.json.Decoder(_ErrorBody).decode


def judge(status: int, body: bytes, secrets: tuple[str, ...]) -> tuple[Refused, Retry]:
    """The error to show for an engine's `status` other than 200, and whether to try again first.

    `secrets` are strings that must not come back in a message, whatever the engine echoes.
    """
    message, param = _read(body, secrets)
    if status == 404 and _NO_SUCH_MODEL.search(message):
        # The gateway wrote that name: the replica does not serve what the configuration says, or not yet.
        return Refused(Code.MODEL_UNAVAILABLE, "The model is not ready on its replica."), Retry.ELSEWHERE
    if status in (404, 405, 501):
        return Refused(
            Code.UNSUPPORTED_ENDPOINT, "The model does not answer this endpoint.", param="model"
        ), Retry.NO
    if status in (429, 503):
        return Refused(Code.NO_CAPACITY, "The model's replica is busy."), Retry.ELSEWHERE
    if status in (401, 403, 407, 408) or not 400 <= status < 500:
        # A replica whose engine has died says 500 until it is taken out; another may well answer.
        retry = Retry.ELSEWHERE if status >= 500 else Retry.FALLBACK
        return Refused(Code.UPSTREAM_ERROR, "The engine failed to answer."), retry
    if status == 413:
        return Refused(Code.BODY_TOO_LARGE, message or "The body is too large for the engine."), Retry.NO
    if status == 422:
        return Refused(
            Code.UNPROCESSABLE, message or "The engine cannot carry this out.", param=param
        ), Retry.NO
    return Refused(_code(message), message or "The engine refused the request.", param=param), Retry.NO


def _code(message: str) -> Code:
    for begin, code in _CODES:
        if message.startswith(begin):
            return code
    return Code.CONTEXT_LENGTH_EXCEEDED if _CONTEXT.search(message) else Code.ENGINE_REJECTED


def _read(body: bytes, secrets: tuple[str, ...]) -> tuple[str, str | None]:
    """Message and parameter of an error body; empty when it is not one or says what it must not."""
    try:
        answer = _decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return "", None
    error = answer.error or _Error()
    message = error.message or answer.message or ""
    if (
        _INTERNAL.search(message)
        or _PYDANTIC.search(message)
        or any(secret and secret in message for secret in secrets)
    ):
        return _only_why(message), None
    return printable(message)[:MESSAGE_CHARS], error.param[:100] if error.param else None


def _only_why(message: str) -> str:
    """Of a message that may not be shown, the beginning that says whose mistake it was."""
    return next(
        (f"{begin}the reason cannot be shown." for begin, _ in _CODES if message.startswith(begin)), ""
    )
