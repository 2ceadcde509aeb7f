"""Tells a busy engine from a stuck one. Pure: the clock is injected.

A process that answers its health check can still be stuck (a stopped process, a deadlocked kernel):
only progress proves life. Progress is a scheduler iteration, not a token, so that reading a long
prompt in chunks counts.
"""

from __future__ import annotations

from collections.abc import Callable

UNSEEN_S = 10.0
"""Longer than anybody who asks lets pass between two looks."""


class StallProbe:
    """Asked now and then, says for how long work has been there without progress.

    The count starts at the first look that finds work and no new step, so a stall is noticed at most
    one interval of asking late, and never early: for a while in which nobody looked, as when this process was
    stopped itself, nothing is known.
    """

    __slots__ = ("_asked", "_clock", "_since", "_steps")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._steps = -1
        self._asked = clock()
        self._since: float | None = None

    def stalled_s(self, unfinished: int, steps: int) -> float:
        """Seconds without progress: 0 when idle (`unfinished` is 0) or when `steps` moved."""
        now = self._clock()
        moved = steps != self._steps or now - self._asked > UNSEEN_S
        self._steps, self._asked = steps, now
        if unfinished == 0:
            self._since = None
            return 0.0
        if moved or self._since is None:
            self._since = now
        return now - self._since
