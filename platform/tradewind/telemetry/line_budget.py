"""How much of what others print is written: a bucket of lines and one of bytes, both refilled with time.

Who can make a process print can make it print a lot: a request of 60 KiB whose text an exception quotes
is thousands of lines. What is over the budget is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

BURST_LINES: Final = 2_000
"""More than any engine prints when it starts, or in its last words."""
LINES_PER_S: Final = 50.0
BURST_BYTES: Final = 1_048_576
BYTES_PER_S: Final = 32_768.0
SAY_AFTER_S: Final = 1.0
"""Between two words about what was dropped."""


class LineBudget:
    """Not thread-safe: one belongs to one reader.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = clock()
        self._lines = float(BURST_LINES)
        self._bytes = float(BURST_BYTES)
        self._said = self._at - SAY_AFTER_S
        self.dropped_lines = 0
        self.dropped_bytes = 0

    def admit(self, size: int) -> bool:
        """Whether a line may be written; counts the one of `size` bytes that may not."""
        self._refill()
        if self._lines >= 1.0 and self._bytes > 0.0:
            self._lines -= 1.0
            return True
        self.dropped_lines += 1
        self.dropped_bytes += size
        return False

    def spend(self, size: int) -> None:
        """Bytes that were written. The bucket may go below zero, by what one block of output makes."""
        self._bytes -= size

    def due(self) -> bool:
        """Whether it is time to say how much was dropped."""
        return self.dropped_lines > 0 and self._clock() - self._said >= SAY_AFTER_S

    def account(self) -> tuple[int, int]:
        """Lines and bytes dropped since the last account."""
        told = self.dropped_lines, self.dropped_bytes
        self.dropped_lines = self.dropped_bytes = 0
        self._said = self._clock()
        return told

    def _refill(self) -> None:
        now = self._clock()
        passed, self._at = max(0.0, now - self._at), now
        self._lines = min(float(BURST_LINES), self._lines + passed * LINES_PER_S)
        self._bytes = min(float(BURST_BYTES), self._bytes + passed * BYTES_PER_S)
