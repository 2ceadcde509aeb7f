"""Lets a request in when a replica can take it, and holds it in a bounded waiting room until then.

    AdmissionError            .deployment
    ├── NoReplica             no replica is ready, and the request may not wait or its deployment is gone
    ├── QueueFull             every replica is full, and the request may not wait; or the room is full
    └── Timeout               waited until its deadline; .ready tells whether a replica was ready then

The room serves the cold start (no replica yet), the crash (none left) and the burst (all full).

**Nobody is overtaken.** A slot that becomes free is given away at once, in the call that freed it, to
the first waiter that can use it: the count goes up before the waiter's task even runs. So between two
calls no waiter could use any free slot, and a newcomer that finds one takes it from nobody. A waiter
whose `exclude` rules out the free replica, or whose adapter it has not loaded, is passed over, and keeps
its place. A request that a replica turned away for being full comes back before those that never had a turn.
Where every replica says that it cannot load the adapter, nobody waits for it.

**No slot is lost.** A waiter that is cancelled, or whose deadline comes, while its slot is already on
the way hands it on.

Everything here belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from random import Random
from typing import NamedTuple, Protocol

from tradewind.routing.replica import ReplicaDirectory, ReplicaView, choose


class AdmissionError(Exception):
    """No replica for the request."""

    def __init__(self, deployment: str, why: str) -> None:
        super().__init__(f"{deployment}: {why}")
        self.deployment = deployment


class NoReplica(AdmissionError):
    """No replica is ready."""


class QueueFull(AdmissionError):
    """Every replica is busy and there is no room to wait."""


class Timeout(AdmissionError):
    """No replica became free in time."""

    def __init__(self, deployment: str, ready: bool) -> None:
        super().__init__(deployment, "no replica became " + ("free" if ready else "ready") + " in time")
        self.ready = ready
        """At the deadline some replica was ready, but full."""


class DeploymentLoad(NamedTuple):
    """What one gateway has for a deployment; the sum over gateways is what autoscaling goes by."""

    waiting: int
    in_flight: int
    """Requests on replicas, those that have left the directory included."""


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


class _Waiter:
    __slots__ = ("adapter", "answer", "exclude", "returned")

    def __init__(
        self,
        answer: asyncio.Future[ReplicaView | AdmissionError],
        exclude: Collection[str],
        adapter: str | None,
        *,
        returned: bool,
    ) -> None:
        # Errors travel as results: a future whose exception nobody fetched (its task was cancelled
        # in the same moment) would be complained about when it is collected.
        self.answer = answer
        self.exclude = exclude
        self.adapter = adapter
        self.returned = returned


class _Line:
    """Those who wait for a deployment: first who had a turn already, then the others, as they came."""

    __slots__ = ("_fresh", "_returned")

    def __init__(self) -> None:
        self._returned: dict[_Waiter, None] = {}
        self._fresh: dict[_Waiter, None] = {}

    def __len__(self) -> int:
        return len(self._returned) + len(self._fresh)

    def __iter__(self) -> Iterator[_Waiter]:
        yield from self._returned
        yield from self._fresh

    def add(self, waiter: _Waiter) -> None:
        (self._returned if waiter.returned else self._fresh)[waiter] = None

    def remove(self, waiter: _Waiter) -> None:
        (self._returned if waiter.returned else self._fresh).pop(waiter, None)


class Admission:
    """Admission to the replicas of a directory: `acquire` and `release`, or `async with admit(...)`."""

    def __init__(
        self,
        directory: ReplicaDirectory,
        *,
        room: int = 1024,
        rng: Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        call_later: CallLater | None = None,
    ) -> None:
        """`room` requests may wait per deployment. `clock` must be the directory's.

        `call_later(seconds, callback)` sets the deadlines; None is the running loop's own.
        """
        self._directory = directory
        self._room = room
        self._rng = rng or Random()  # noqa: S311 - spreads load, guards nothing
        self._clock = clock
        self._call_later = call_later
        self._waiters: dict[str, _Line] = {}
        self._in_flight: dict[str, int] = {}
        self._closed = False
        directory.subscribe(self._on_change)

    def load(self, deployment: str) -> DeploymentLoad:
        """Requests that wait for the deployment and that are on its replicas."""
        return DeploymentLoad(len(self._waiters.get(deployment, ())), self._in_flight.get(deployment, 0))

    def close(self) -> None:
        """Nobody gets a replica any more, and nobody waits for one: they have NoReplica."""
        self._closed = True
        for deployment in tuple(self._waiters):
            self._turn_away(deployment, "no more requests are taken")

    def loads(self) -> dict[str, DeploymentLoad]:
        """By deployment, those with nothing going on left out."""
        return {name: self.load(name) for name in self._waiters.keys() | self._in_flight.keys()}

    def try_acquire(
        self, deployment: str, exclude: Collection[str] = (), adapter: str | None = None
    ) -> ReplicaView | None:
        """A replica with its `outstanding` count taken, or None when none can take the request now.

        `exclude` holds ids of replicas not to use, such as those already tried; `adapter` is what the
        replica must have loaded.
        """
        if self._closed:
            return None
        views = self._directory.views(deployment)
        view = choose(views, now=self._clock(), rng=self._rng, exclude=exclude, adapter=adapter)
        if view is not None:
            view.outstanding += 1
            self._in_flight[deployment] = self._in_flight.get(deployment, 0) + 1
        return view

    async def acquire(
        self,
        deployment: str,
        *,
        wait_s: float = 0.0,
        exclude: Collection[str] = (),
        adapter: str | None = None,
        returned: bool = False,
    ) -> ReplicaView:
        """A replica with its `outstanding` count taken; every one must be given to `release` once.

        Waits up to `wait_s` seconds; at zero not at all, which suits a route with a fallback. `returned`: it
        had one that turned out to be full, and waits before the others, also where the room is full.
        Raises NoReplica, QueueFull or Timeout.
        """
        view = self.try_acquire(deployment, exclude, adapter)
        if view is not None:
            return view
        if self._closed:
            raise NoReplica(deployment, "no more requests are taken")
        if self._directory.refused(deployment, adapter):
            raise NoReplica(deployment, f"no replica can load the adapter {adapter}")
        if wait_s <= 0:
            if self._directory.any_ready(deployment, exclude, adapter):
                raise QueueFull(deployment, "every replica is busy")
            raise NoReplica(deployment, "no replica is ready")
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), exclude, adapter, returned=returned)
        return await self._wait(deployment, wait_s, waiter, self._call_later or loop.call_later)

    def release(self, view: ReplicaView) -> None:
        """The request is over, well or badly: count down and let the next one in.

        Right also for a replica that has left the directory meanwhile.
        """
        assert view.outstanding > 0, "released more often than acquired"
        view.outstanding -= 1
        name = view.deployment
        left = self._in_flight[name] - 1
        if left:
            self._in_flight[name] = left
        else:
            del self._in_flight[name]
        if name in self._waiters:
            self._serve(name)

    @asynccontextmanager
    async def admit(
        self, deployment: str, *, wait_s: float = 0.0, exclude: Collection[str] = ()
    ) -> AsyncIterator[ReplicaView]:
        """`acquire`, and `release` on the way out."""
        view = await self.acquire(deployment, wait_s=wait_s, exclude=exclude)
        try:
            yield view
        finally:
            self.release(view)

    async def _wait(
        self, deployment: str, wait_s: float, waiter: _Waiter, call_later: CallLater
    ) -> ReplicaView:
        line = self._waiters.get(deployment)
        if not waiter.returned and len(line or ()) >= self._room:
            raise QueueFull(deployment, f"{self._room} requests wait already")
        if line is None:
            line = self._waiters[deployment] = _Line()
        line.add(waiter)
        timer = call_later(wait_s, lambda: self._expire(deployment, waiter))
        try:
            answer = await waiter.answer
        except asyncio.CancelledError:
            self._leave(deployment, waiter)
            if not waiter.answer.cancelled():
                given = waiter.answer.result()
                if isinstance(given, ReplicaView):
                    self.release(given)
            raise
        finally:
            timer.cancel()
        if isinstance(answer, AdmissionError):
            raise answer
        return answer

    def _serve(self, deployment: str) -> None:
        """Give free slots to waiters, first come first served, until no waiter can use one."""
        served: list[_Waiter] = []
        for waiter in self._waiters.get(deployment, ()):
            if waiter.answer.done():
                continue  # cancelled, its task has not run yet
            view = self.try_acquire(deployment, waiter.exclude, waiter.adapter)
            if view is not None:
                waiter.answer.set_result(view)
                served.append(waiter)
            elif waiter.adapter is not None:
                if self._directory.refused(deployment, waiter.adapter):
                    why = f"no replica can load the adapter {waiter.adapter}"
                    waiter.answer.set_result(NoReplica(deployment, why))
                    served.append(waiter)
            elif not waiter.exclude:
                break  # nothing is free, for anybody
        for waiter in served:
            self._leave(deployment, waiter)

    def _expire(self, deployment: str, waiter: _Waiter) -> None:
        if not waiter.answer.done():
            self._leave(deployment, waiter)
            waiter.answer.set_result(
                Timeout(deployment, self._directory.any_ready(deployment, waiter.exclude, waiter.adapter))
            )

    def _leave(self, deployment: str, waiter: _Waiter) -> None:
        """Out of the queue, wherever in it; harmless for one that has left."""
        line = self._waiters.get(deployment)
        if line is not None:
            line.remove(waiter)
            if not line:
                del self._waiters[deployment]

    def _on_change(self, deployment: str) -> None:
        if deployment in self._directory:
            self._serve(deployment)
            return
        self._turn_away(deployment, "the deployment has been removed")

    def _turn_away(self, deployment: str, why: str) -> None:
        for waiter in self._waiters.pop(deployment, ()):
            if not waiter.answer.done():
                waiter.answer.set_result(NoReplica(deployment, why))
