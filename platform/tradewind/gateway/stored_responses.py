"""OpenAI's stored responses, which are not offered: what is said to who asks for one.

An engine keeps what it stores in the memory of one replica, under an id that opens it to whoever knows it.
So nothing is stored, and every request says all that it needs.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tradewind.api.problems import Code
from tradewind.api.wire import RequestLimits
from tradewind.gateway.problems import Refused

RESPONSE: Final = "/v1/responses/{response_id}"
CANCEL: Final = RESPONSE + "/cancel"
INPUT_ITEMS: Final = RESPONSE + "/input_items"

_WHY = "responses are not kept after they were answered"
_INSTEAD = "Send the earlier items of the conversation in input."


def continued(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """Rule for a field that goes on from something stored: `previous_response_id`, `conversation`."""
    raise Refused(Code.FIELD_NOT_ALLOWED, f"{name} is not offered: {_WHY}. {_INSTEAD}", param=name)


def background(name: str, raw: msgspec.Raw, limits: RequestLimits) -> None:
    """Rule for `background`: whoever does not wait for an answer would have to fetch it."""
    if bytes(raw) != b"false":
        message = f"{name} is not offered: {_WHY}. Leave it out and wait for the answer, or stream it."
        raise Refused(Code.FIELD_NOT_ALLOWED, message, param=name)


def not_kept() -> Refused:
    """The refusal for a response by its id, whatever was to be done with it."""
    return Refused(
        Code.RESPONSE_NOT_FOUND,
        f"There is no such response: {_WHY}. The answer to POST /v1/responses is all there is.",
        close=True,
    )
