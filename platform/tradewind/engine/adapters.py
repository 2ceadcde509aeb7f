"""The LoRA adapters of a running engine: fetched, loaded, replaced and let go while it serves.

One task per adapter brings it from what is there to what is wanted; an adapter that fails harms neither
the others nor the model. A new version is loaded beside the old one, which answers until then and is kept
for the requests that have begun with it. An adapter that is wanted no more answers for a while yet: the
gateways learn of it at the same time, and not earlier.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

from tradewind.api.wire import AdapterSettings, SourceSettings
from tradewind.engine.errors import EngineError, SourceError
from tradewind.engine.lora import check_rank, check_shapes, rank_of
from tradewind.engine.output import tidy

_LOG = logging.getLogger(__name__)

LINGER_S: Final = 10.0
"""For how long an adapter that has left the list answers: until gateways route to it no more."""
RETRY_S: Final = (10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Waits before a source that could not be read is asked again; the last one from then on."""
_AT_ONCE: Final = 4
"""Sources that are fetched at the same time."""
_MOST_MESSAGE: Final = 500
"""Characters of an error: all adapters' fit into one answer to a gateway's probe."""


class State(StrEnum):
    """How an adapter is."""

    LOADING = "loading"
    """It does not answer yet."""
    READY = "ready"
    """It answers."""
    FAILED = "failed"
    """It cannot be loaded as it is; asked again only where that may help."""


@dataclass(frozen=True, slots=True)
class Report:
    """How an adapter is, for people and for gateways."""

    state: State
    message: str = ""
    """What it waits for, or why it failed. Of one that is ready: why its newest version does not answer."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One version of an adapter as the engine knows it."""

    served: str
    """What callers say: `<deployment>:<adapter>`."""
    label: str
    """Different for every version: the engine keeps computed prefixes by it."""
    number: int
    """From 1; different for every version of every adapter."""
    directory: Path


class Host(Protocol):
    """What an engine does with adapters."""

    @property
    def max_rank(self) -> int:
        """Largest rank that it takes."""

    async def load(self, adapter: Loaded) -> None:
        """Have the weights in the engine. Raises whatever the engine says."""

    def serve(self, adapter: Loaded) -> None:
        """New requests for `adapter.served` get this version from now on."""

    def refuse(self, served: str) -> None:
        """New requests for it find no such model."""

    async def unload(self, adapter: Loaded) -> None:
        """Take the weights out. A request that still uses them has the engine load them again."""


Fetch = Callable[[SourceSettings], Awaitable[Path]]
"""Has an adapter on disk. Raises SourceError."""
Drain = Callable[[], Awaitable[object]]
"""Returns when the requests that are there now have ended, or long enough after."""
Sleep = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class _Slot:
    """One adapter's name, what is wanted of it and what is there."""

    name: str
    wanted: SourceSettings | None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """It was tried once."""
    source: SourceSettings | None = None
    """Of the version that answers."""
    loaded: Loaded | None = None
    report: Report = field(default_factory=lambda: Report(State.LOADING))
    task: asyncio.Task[None] | None = None


class Adapters:
    """Belongs to the engine's event loop; `want` is all that it is told."""

    def __init__(
        self,
        deployment: str,
        host: Host,
        fetch: Fetch,
        drain: Drain,
        *,
        model: Path,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`model` is the directory of the weights that the adapters belong to."""
        self._deployment = deployment
        self._host = host
        self._fetch = fetch
        self._drain = drain
        self._model = model
        self._sleep = sleep
        self._slots: dict[str, _Slot] = {}
        self._versions: dict[str, int] = {}
        self._numbers = 0
        self._fetching = asyncio.Semaphore(_AT_ONCE)
        self._loading = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()

    def want(self, adapters: Iterable[AdapterSettings]) -> None:
        """Make these the adapters, all of them. Returns at once."""
        wanted = {adapter.name: adapter.source for adapter in adapters}
        for name in self._slots.keys() | wanted.keys():
            slot = self._slots.get(name)
            if slot is None:
                slot = self._slots[name] = _Slot(name, wanted[name])
                slot.task = asyncio.get_running_loop().create_task(self._tend(slot), name=f"adapter {name}")
            elif slot.wanted != wanted.get(name):
                slot.wanted = wanted.get(name)
                if slot.loaded is None:
                    slot.report = Report(State.LOADING)
                slot.changed.set()

    async def settled(self) -> None:
        """Wait until each of them has been tried once."""
        await asyncio.gather(*(slot.settled.wait() for slot in tuple(self._slots.values())))

    def reports(self) -> Mapping[str, Report]:
        """How each is, by its name in the deployment; one that lingers is among them."""
        return {name: slot.report for name, slot in self._slots.items()}

    async def stop(self) -> None:
        """Tend them no more; what is loaded goes with the engine."""
        tasks = [*(slot.task for slot in self._slots.values() if slot.task is not None), *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tend(self, slot: _Slot) -> None:
        failures = 0
        while True:
            slot.changed.clear()
            wanted = slot.wanted
            if wanted is None:
                if await self._let_go(slot):
                    return
                continue
            if wanted == slot.source:  # also where a change was taken back
                slot.report = Report(State.READY)
                await slot.changed.wait()
                continue
            try:
                await self._bring(slot, wanted)
                failures = 0
            except Exception as error:
                self._failed(slot, wanted, error)
                # A source may come; what the engine refuses it would refuse again.
                wait_s = RETRY_S[min(failures, len(RETRY_S) - 1)] if isinstance(error, SourceError) else None
                failures += 1
                slot.settled.set()
                if await self._changed_within(slot, wait_s):
                    failures = 0
            else:
                slot.settled.set()

    async def _bring(self, slot: _Slot, wanted: SourceSettings) -> None:
        """Have `wanted` answer, unless something else is wanted meanwhile."""
        self._tell(slot, f"fetching {wanted.uri}")
        fetched = asyncio.ensure_future(self._fetched(wanted))
        changed = asyncio.ensure_future(slot.changed.wait())
        try:
            await asyncio.wait((fetched, changed), return_when=asyncio.FIRST_COMPLETED)
            if not fetched.done():
                return
            directory = fetched.result()
        finally:
            fetched.cancel()
            changed.cancel()
        check_rank(rank_of(directory), self._host.max_rank)
        await asyncio.to_thread(check_shapes, directory, self._model)
        self._tell(slot, "loading into the engine")
        new = self._version(slot.name, directory)
        async with self._loading:
            try:
                await self._host.load(new)
            except Exception:
                self._in_background(self._host.unload(new))  # it may be there in part
                raise
        if slot.wanted != wanted:
            self._in_background(self._host.unload(new))
            return
        old, slot.loaded, slot.source = slot.loaded, new, wanted
        self._host.serve(new)
        slot.report = Report(State.READY)
        _LOG.info("adapter %s answers, from %s", new.label, wanted.uri)
        if old is not None:
            self._in_background(self._retire(old))

    async def _fetched(self, source: SourceSettings) -> Path:
        async with self._fetching:
            return await self._fetch(source)

    def _version(self, name: str, directory: Path) -> Loaded:
        served = f"{self._deployment}:{name}"
        version = self._versions[name] = self._versions.get(name, 0) + 1
        self._numbers += 1
        return Loaded(served, served if version == 1 else f"{served}@{version}", self._numbers, directory)

    async def _let_go(self, slot: _Slot) -> bool:
        """Whether it has gone; False where it is wanted again."""
        if slot.loaded is not None and await self._changed_within(slot, LINGER_S):
            return False
        del self._slots[slot.name]
        slot.settled.set()
        if slot.loaded is not None:
            self._host.refuse(slot.loaded.served)
            self._in_background(self._retire(slot.loaded))
        return True

    async def _retire(self, adapter: Loaded) -> None:
        await self._drain()
        await self._host.unload(adapter)
        _LOG.info("adapter %s was taken out of the engine", adapter.label)

    async def _changed_within(self, slot: _Slot, wait_s: float | None) -> bool:
        """Wait for another wish, for at most `wait_s` seconds; whether there is one."""
        changed = asyncio.ensure_future(slot.changed.wait())
        waits: list[asyncio.Future[Any]] = [changed]
        if wait_s is not None:
            waits.append(asyncio.ensure_future(self._sleep(wait_s)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return slot.changed.is_set()

    def _tell(self, slot: _Slot, message: str) -> None:
        if slot.report.state is State.LOADING:  # one that failed has failed while it is tried again
            slot.report = Report(State.LOADING, message)

    def _failed(self, slot: _Slot, wanted: SourceSettings, error: Exception) -> None:
        text = str(error) if isinstance(error, EngineError) else tidy(str(error), type(error).__name__)
        _LOG.warning("adapter %s of %s (%s): %s", slot.name, self._deployment, wanted.uri, text)
        if slot.loaded is None:
            slot.report = Report(State.FAILED, text[:_MOST_MESSAGE])
        else:
            said = f"The version of before answers; the new one cannot be loaded: {text}"
            slot.report = Report(State.READY, said[:_MOST_MESSAGE])

    def _in_background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(self._logged(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _logged(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            _LOG.warning("an adapter of %s was not taken out: %s", self._deployment, tidy(str(error)))
