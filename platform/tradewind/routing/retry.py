"""How much retrying a route may do: a share of its recent requests.

When an engine is overloaded, each failed request that is tried again adds load. A budget bounds the
amplification at (1 + percent/100) of the requests, plus a floor that lets a quiet service retry.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_BUCKETS = 10


class RetryBudget:
    """Sliding window over the last `window_s` seconds, in ten buckets. O(1) per call."""

    __slots__ = ("_bucket_s", "_clock", "_current", "_floor", "_requests", "_retries", "percent")

    def __init__(
        self,
        percent: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        window_s: float = 10.0,
        floor: int = 3,
    ) -> None:
        """`percent` of the window's requests may be retries, plus `floor`. Zero percent: none at all.

        `percent` may be set later, when the configuration changes; the window is kept.
        Raises ValueError for a negative percent or floor, or a window that is not above zero.
        """
        if percent < 0 or floor < 0 or window_s <= 0:
            raise ValueError("percent and floor must not be negative, window_s must be above zero")
        self.percent = percent
        self._clock = clock
        self._floor = floor
        self._bucket_s = window_s / _BUCKETS
        self._requests = [0] * _BUCKETS
        self._retries = [0] * _BUCKETS
        self._current = int(clock() / self._bucket_s)

    def note_request(self) -> None:
        """Count a client's request. Not to be called for its retries."""
        self._requests[self._advance()] += 1

    def allow(self) -> bool:
        """May one more retry be made now? True takes it from the budget."""
        index = self._advance()
        if self.percent == 0:
            return False
        if sum(self._retries) + 1 > self._floor + sum(self._requests) * self.percent / 100:
            return False
        self._retries[index] += 1
        return True

    def _advance(self) -> int:
        """Empty the buckets that time has passed over; the index of the one to count in.

        A clock that goes back counts in the newest bucket.
        """
        now = int(self._clock() / self._bucket_s)
        if now > self._current:
            for bucket in range(max(self._current + 1, now - _BUCKETS + 1), now + 1):
                self._requests[bucket % _BUCKETS] = 0
                self._retries[bucket % _BUCKETS] = 0
            self._current = now
        return self._current % _BUCKETS
