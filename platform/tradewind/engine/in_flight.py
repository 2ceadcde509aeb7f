"""The requests that an engine is at work on, so that what they may use is kept until they are done."""

from __future__ import annotations

import asyncio


class InFlight:
    """Requests by number, in the order in which they came. Belongs to one event loop."""

    __slots__ = ("_active", "_next", "_waiters")

    def __init__(self) -> None:
        self._active: set[int] = set()
        self._next = 0
        self._waiters: list[tuple[set[int], asyncio.Future[None]]] = []

    def __len__(self) -> int:
        return len(self._active)

    def enter(self) -> int:
        """A request begins; its number is to be given to `leave` once."""
        number = self._next
        self._next += 1
        self._active.add(number)
        return number

    def leave(self, number: int) -> None:
        """A request has ended, however."""
        self._active.discard(number)
        if self._waiters:
            self._settle(number)

    async def over(self, timeout_s: float) -> bool:
        """Wait until all requests that are there now have ended; False when some had not in time."""
        if not self._active:
            return True
        waiter = (set(self._active), asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter[1]
        except TimeoutError:
            return False
        finally:
            self._waiters.remove(waiter)
        return True

    def _settle(self, number: int) -> None:
        for left, future in self._waiters:
            left.discard(number)
            if not left and not future.done():
                future.set_result(None)
