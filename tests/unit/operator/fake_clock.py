"""Time that passes when a test says so."""

from __future__ import annotations

import asyncio
import datetime as dt


class FakeClock:
    """A clock and a sleep that go together: sleepers wake when time is moved past their hour."""

    def __init__(self) -> None:
        self.time = 1_000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.time

    def now(self) -> dt.datetime:
        """Wall-clock time."""
        return dt.datetime.fromtimestamp(self.time, dt.UTC)

    async def sleep(self, seconds: float) -> None:
        """Until `advance` has passed so many seconds."""
        future = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.time + seconds, future))
        await future

    async def advance(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass in small steps, and everybody who wakes do what he does."""
        end = self.time + seconds
        while self.time < end - 1e-9:
            self.time = min(end, self.time + step)
            due = [future for at, future in self._sleepers if at <= self.time]
            self._sleepers = [(at, future) for at, future in self._sleepers if at > self.time]
            for future in due:
                if not future.done():
                    future.set_result(None)
            await settle()


async def settle() -> None:
    """Let every task that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)
