"""Metric values in plain lists, written by one event loop and read by other threads without a lock.

Why no lock is needed: a cell has one writer, the event loop's thread. Readers copy a list with
`list(values)`, a single C call during which the interpreter lock is not given up, so a copy never
sees half an element, and bucket counts (the count is their sum) always agree with each other. Two
writes of one observation, bucket and sum, can be parted by a reader: a scrape may see the sum one
observation behind, and the next one corrects it. A lock would cost the stream path more than that.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

_SECOND_NS: Final = 1_000_000_000
WINDOW_S: Final = 60
_SLOTS: Final = 64
_MASK: Final = _SLOTS - 1


class Counter:
    """A sum that only grows (or, for one in-flight count, goes up and down)."""

    __slots__ = ("start_ns", "value")

    def __init__(self, start_ns: int) -> None:
        self.value: float = 0
        self.start_ns = start_ns


class Histogram:
    """Bucket counts and a sum: `values` holds len(bounds) + 1 counts, then the sum."""

    __slots__ = ("bounds", "start_ns", "values")

    def __init__(self, bounds: tuple[float, ...], start_ns: int) -> None:
        self.bounds = bounds
        self.values: list[float] = [0] * (len(bounds) + 2)
        self.start_ns = start_ns

    def observe(self, value: float) -> None:
        """Count `value` in the bucket whose upper bound is the first not below it."""
        values = self.values
        values[bisect_left(self.bounds, value)] += 1
        values[-1] += value


class Ring:
    """Counts per second for the last minute."""

    __slots__ = ("_counts", "_seconds", "_start")

    def __init__(self, now_ns: int) -> None:
        self._counts = [0] * _SLOTS
        self._seconds = [0] * _SLOTS
        self._start = now_ns

    def add(self, now_ns: int, amount: int) -> None:
        """Add `amount`, which may be negative to correct an earlier guess."""
        second = now_ns // _SECOND_NS
        slot = second & _MASK
        if self._seconds[slot] != second:
            self._counts[slot] = 0  # before the second, so that no reader takes the old count for new
            self._seconds[slot] = second
        self._counts[slot] += amount

    def rate(self, now_ns: int) -> float:
        """Mean per second over the last 60 s, or since the ring began if that is less; never negative."""
        oldest = now_ns // _SECOND_NS - WINDOW_S
        counts = list(self._counts)
        total = sum(
            count for count, second in zip(counts, list(self._seconds), strict=True) if second > oldest
        )
        age_s = (now_ns - self._start) / _SECOND_NS
        return max(0.0, total / min(float(WINDOW_S), max(1.0, age_s)))


class StreamCells:
    """What a streamed chunk writes to: the gap histogram and the token rate of its route and variant."""

    __slots__ = ("_bounds", "_gaps", "ring")

    def __init__(self, gaps: Histogram, ring: Ring) -> None:
        self._gaps = gaps.values
        self._bounds = gaps.bounds
        self.ring = ring

    def tick(self, gap_ns: int, now_ns: int) -> None:
        """One chunk, `gap_ns` after the one before it. Counts as one token until the engine has told."""
        gap = gap_ns * 1e-9 if gap_ns > 0 else 0.0  # the wall clock may be set back
        values = self._gaps
        values[bisect_left(self._bounds, gap)] += 1
        values[-1] += gap
        self.ring.add(now_ns, 1)
