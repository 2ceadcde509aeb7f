"""What became of a request, told by its HTTP status and error code."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from tradewind.api.problems import Code
from tradewind.telemetry.names import OTHER


class Outcome(StrEnum):
    """The seven ends of a request."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    REJECTED = "rejected"
    """Quota or capacity: the request was good, and may be sent again later."""
    UPSTREAM_ERROR = "upstream_error"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    INTERNAL = "internal"


CANCELLED_CODE: Final = "cancelled"
"""`code` of a request whose client went away. No client ever sees it."""
CANCELLED_STATUS: Final = 499

_BY_CODE: Final[dict[str, Outcome]] = {
    **{code.wire: Outcome.CLIENT_ERROR for code in Code if code.value.status < 500},
    Code.REQUEST_TIMEOUT.wire: Outcome.TIMEOUT,
    Code.FIRST_TOKEN_TIMEOUT.wire: Outcome.TIMEOUT,
    Code.TOTAL_TIMEOUT.wire: Outcome.TIMEOUT,
    Code.NO_CAPACITY.wire: Outcome.REJECTED,
    Code.MODEL_UNAVAILABLE.wire: Outcome.REJECTED,
    Code.SHUTTING_DOWN.wire: Outcome.REJECTED,
    Code.UPSTREAM_ERROR.wire: Outcome.UPSTREAM_ERROR,
    Code.INTERNAL_ERROR.wire: Outcome.INTERNAL,
    CANCELLED_CODE: Outcome.CANCELLED,
}
_BY_STATUS: Final = {
    408: Outcome.TIMEOUT,
    429: Outcome.REJECTED,
    CANCELLED_STATUS: Outcome.CANCELLED,
    502: Outcome.UPSTREAM_ERROR,
    503: Outcome.REJECTED,
    504: Outcome.TIMEOUT,
}


def outcome_of(status: int, code: str) -> Outcome:
    """The outcome of a request. The code decides; without a known one, the status does.

    A stream that broke has status 200 and a code. Status 0 (nothing was ever sent) without a code is
    internal.
    """
    if not code and 100 <= status < 400:
        return Outcome.OK
    known = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if known is not None:
        return known
    return Outcome.CLIENT_ERROR if 400 <= status < 500 else Outcome.INTERNAL


def code_label(code: str) -> str:
    """`code` as a metric label: one of the known codes, empty, or `other`."""
    return code if not code or code in _BY_CODE else OTHER
