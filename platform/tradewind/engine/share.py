"""How the gateways share what one engine may have at a time.

Each gateway knows its own requests only, yet all of them together must stay below the engine's bound, and
none may keep the others out: whoever fills the slots that it frees at once leaves no room for anybody else.
So the engine, which every gateway asks for its load twice a second, is told what each would have and answers
how much it may. What is left when all have what they want is open to everyone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

FORGET_S = 3.0
"""A gateway that has not asked for this long is gone, and what it wanted with it."""
_GATEWAYS = 256
_NAME_BYTES = 64


def room(bound: int, wanted: Mapping[str, int], name: str, turn: int = 0) -> int:
    """Requests that the gateway `name` may have, of `bound` for all; `wanted` holds what every gateway wants.

    Max-min fair: who wants little gets it, the others share the rest evenly. What cannot be divided goes to
    some of them, to others at another `turn`. When all want less than there is, the rest is added.
    """
    free = bound - sum(wanted.values())
    if free >= 0:
        return wanted[name] + free
    left, hungry = bound, sorted(wanted, key=lambda each: (wanted[each], each))
    while wanted[hungry[0]] <= left // len(hungry):
        first = hungry.pop(0)
        if first == name:
            return wanted[name]
        left -= wanted[first]
    each, over = divmod(left, len(hungry))
    return each + ((hungry.index(name) + turn) % len(hungry) < over)


class Shares:
    """What the gateways said last. Belongs to one event loop."""

    __slots__ = ("_clock", "_said")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}

    def ask(self, word: bytes, bound: int) -> int | None:
        """Room for the gateway that says `word` (see GATEWAY_WANTS); None when it says nothing of use."""
        name, _, number = word[: _NAME_BYTES + 8].decode("latin-1").partition(" ")
        if not name or not (number.isascii() and number.isdigit()):
            return None
        now = self._clock()
        self._said[name] = (now, int(number))
        self._said = {each: said for each, said in self._said.items() if now - said[0] < FORGET_S}
        if len(self._said) > _GATEWAYS:
            return None
        wanted = {each: count for each, (_, count) in self._said.items()}
        return room(bound, wanted, name, turn=int(now))
