"""Watches of the kinds that matter, by kopf. The only importer of kopf.

kopf lists and watches, follows resource versions and reconnects; nothing else of it is used. Its handlers
only say "this object changed": no finalizers, annotations or Events of its own, and nothing is ever
written to a watched object.

It runs in a thread with an event loop of its own, because an operator of kopf takes a loop for its
property: it installs signal handlers, and cancels every task that it does not know when it ends.

Whether a watch lives is not asked of kopf. The HTTP session is ours (`kopf.AiohttpSession` is made for
that), and a trace of its requests notes when a watch or list of a kind was last *answered*. A server ends
a watch after `timeoutSeconds` and kopf begins the next, so a live one is answered at least that often; one
through which nothing comes any more is not, whatever its connection looks like.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import kopf

from tradewind_operator.kinds import Resource
from tradewind_operator.kube import Connection, close_session

logger = logging.getLogger(__name__)

SILENT_AFTER: Final = 2.5
"""A watch that was not answered for so many of its periods is dead."""

_RESTART_S: Final = (1.0, 2.0, 5.0, 10.0)
_BACKOFFS: Final = (0.2, 0.5, 1.0, 2.0, 3.0, 3.0, 3.0)
"""Between kopf's tries of one request. When they are used up its operator ends, and is begun anew."""
_STOP_S: Final = 3.0

Event = Callable[[Resource, str | None, dict[str, Any]], None]
"""Told kind, type (None: listed; ADDED, MODIFIED, DELETED) and object of every event."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is watched.

    `namespaces` empty is all of them. `selectors` are label selectors by kind.
    """

    kinds: Sequence[Resource]
    namespaces: Sequence[str] = ()
    selectors: dict[Resource, str] | None = None
    period_s: float = 60.0


class Heartbeats:
    """When each watch was last answered. Written by the watching thread, read by any."""

    def __init__(self, scope: Scope, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._places = [
            (kind, namespace, kind.path(namespace))
            for kind in scope.kinds
            for namespace in (scope.namespaces or ("",))
        ]
        self._limit = scope.period_s * SILENT_AFTER
        self._answered: dict[str, float] = {}
        self._listed: set[str] = set()

    def start(self) -> None:
        """The watches begin now: they have their time to be answered first."""
        now = self._clock()
        self._answered = {path: now for _, _, path in self._places}
        self._listed = set()

    def stop(self) -> None:
        """There are no watches, and there should be none."""
        self._answered, self._listed = {}, set()

    def answered(self, path: str, *, watch: bool) -> None:
        """A list or watch at this path was answered with success."""
        if path in self._answered:
            self._answered[path] = self._clock()
            if watch:
                self._listed.add(path)

    @property
    def complete(self) -> bool:
        """Everything was listed once, and is watched."""
        return bool(self._answered) and self._listed >= self._answered.keys()

    def ages(self) -> dict[tuple[str, str], float]:
        """Seconds since the last answer, by plural and namespace ("" is all); empty before the start."""
        now = self._clock()
        answered = self._answered
        return {
            (kind.plural, namespace): now - answered[path]
            for kind, namespace, path in self._places
            if path in answered
        }

    def silent(self) -> list[str]:
        """What is wrong, a sentence per dead watch."""
        return [
            f"the watch of {plural} in {namespace or 'all namespaces'} was not answered for {age:.0f} s"
            for (plural, namespace), age in self.ages().items()
            if age > self._limit
        ]

    def trace(self) -> aiohttp.TraceConfig:
        """Notes the answers of a session's requests. The headers of a watch come when it begins."""
        trace = aiohttp.TraceConfig()

        async def ended(_session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
            if params.response.status == 200:
                self.answered(params.url.path, watch=params.url.query.get("watch") == "true")

        trace.on_request_end.append(ended)
        return trace


class Watches:
    """Runs kopf until cancelled, begins it anew when it ends, and hands its events to `event`.

    Args:
        event: called in the event loop of `run`.
        ready: called before each beginning; returns when there is something to watch, and whether it had to
            wait for that.
    """

    def __init__(
        self,
        connection: Connection,
        scope: Scope,
        event: Event,
        ready: Callable[[Heartbeats], Awaitable[bool]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._scope = scope
        self._event = event
        self._ready = ready
        self.heartbeats = Heartbeats(scope, clock)

    async def run(self) -> None:
        """Watch for ever; what ends the watches is logged, and they begin anew."""
        self.heartbeats.start()
        failures = 0
        while True:
            if await self._ready(self.heartbeats):
                self.heartbeats.start()
            began = time.monotonic()
            error = await self._run_once()
            # What worked for a while and then ended has not failed in a row.
            failures = 1 if time.monotonic() - began > 60 else failures + 1
            delay = _RESTART_S[min(failures, len(_RESTART_S)) - 1]
            logger.warning("the watches ended and begin anew in %.0f s: %s", delay, error)
            await asyncio.sleep(delay)

    async def _run_once(self) -> str:
        """One life of kopf. Returns why it ended."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = loop.create_future()
        operator = _Operator(self._connection, self._scope, self.heartbeats, self._deliver(loop))

        def finish(why: str) -> None:
            if not ended.done():
                ended.set_result(why)

        def body() -> None:
            why = operator.run()
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish, why)

        thread = threading.Thread(target=body, name="watches", daemon=True)
        thread.start()
        try:
            return await ended
        finally:
            operator.stop()
            if not ended.done() or ended.cancelled():
                await asyncio.to_thread(thread.join, _STOP_S)

    def _deliver(self, loop: asyncio.AbstractEventLoop) -> Event:
        def deliver(kind: Resource, change: str | None, body: dict[str, Any]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._event, kind, change, body)

        return deliver


class _Operator:
    """One life of kopf in the calling thread."""

    def __init__(self, connection: Connection, scope: Scope, heartbeats: Heartbeats, deliver: Event) -> None:
        self._connection = connection
        self._scope = scope
        self._heartbeats = heartbeats
        self._deliver = deliver
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopped = False
        self._sessions: list[aiohttp.ClientSession] = []

    def run(self) -> str:
        """Returns why it ended."""
        try:
            asyncio.run(self._main())
        except asyncio.CancelledError:
            return "cancelled"
        except Exception as error:  # anything: the watches begin anew, and say why
            return _said(error)
        finally:
            with self._lock:
                self._loop = None
        return "stopped"

    def stop(self) -> None:
        """End it, from any thread."""
        with self._lock:
            self._stopped = True
            if self._loop is not None and self._stop is not None:
                self._loop.call_soon_threadsafe(self._stop.set)

    async def _main(self) -> None:
        stop = asyncio.Event()
        with self._lock:
            if self._stopped:
                return
            self._loop, self._stop = asyncio.get_running_loop(), stop
        namespaces = self._scope.namespaces
        try:
            await kopf.operator(
                registry=self._registry(),
                settings=self._settings(),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=list(namespaces),
                stop_flag=stop,
            )
        finally:
            # kopf closes the session when it ends well, and only then.
            for session in self._sessions:
                await close_session(session)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for kind in self._scope.kinds:
            kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(self._handler(kind))
        return registry

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        session = self._connection.session(self._heartbeats.trace())
        self._sessions = [*(known for known in self._sessions if not known.closed), session]
        return kopf.AiohttpSession(server=self._connection.server, aiohttp_session=session)

    def _handler(self, kind: Resource) -> Callable[..., Any]:
        async def seen(event: Any, **_: Any) -> None:
            self._deliver(kind, event["type"], dict(event["object"]))

        return seen

    def _settings(self) -> kopf.OperatorSettings:
        settings, period = kopf.OperatorSettings(), self._scope.period_s
        settings.posting.enabled = False
        settings.scanning.disabled = True  # neither CRDs nor namespaces: no cluster-wide permissions
        settings.process.ultimate_exiting_timeout = None
        settings.watching.server_timeout = max(1, round(period))
        settings.watching.inactivity_timeout = period + 10.0
        settings.watching.connect_timeout = 5.0
        settings.watching.client_timeout = period + 20.0
        settings.watching.chunk_size = 500
        settings.networking.request_timeout = 30.0
        settings.networking.error_backoffs = _BACKOFFS
        settings.queueing.idle_timeout = 0.5
        settings.queueing.exit_timeout = 0.5
        for kind, selector in (self._scope.selectors or {}).items():
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = selector
        return settings


def _said(error: BaseException) -> str:
    """Type and text of what kopf ended with; it speaks of kinds and paths, never of content."""
    return f"{type(error).__name__}: {error}"[:500]


def quiet_kopf() -> None:
    """It warns that it gets no signals: they are not for it."""
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)


def missing(kinds: Iterable[Resource], served: Mapping[str, Collection[str]]) -> list[str]:
    """A sentence per kind that the server does not know.

    Args:
        served: plurals by the root path of their group's version.
    """
    return [
        f"the CustomResourceDefinition {kind.full_name} ({kind.version}) is not installed: "
        + ("install KubeRay 1.6 or later" if kind.group == "ray.io" else "install the chart's CRDs")
        for kind in kinds
        if kind.plural not in served.get(kind.root, ())
    ]
