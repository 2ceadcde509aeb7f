"""Where the engine replicas are: Serve's controller tells, this module listens.

The one place that touches Serve's private long-poll interface. The controller tells its route table, which
names the deployment that each application's requests go to, and of each such deployment every running replica
with its own HTTP port: whenever one changes. After 30 to 60 seconds it says that nothing did. A contract test
holds this module to the installed Ray.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import ray
from ray.exceptions import ActorDiedError
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.long_poll import LISTEN_FOR_CHANGE_REQUEST_TIMEOUT_S, LongPollNamespace, LongPollState

from tradewind.serve.listening import Listener, Update


@dataclass(frozen=True, slots=True)
class Address:
    """Where one replica listens: `http://host:port`."""

    host: str
    port: int
    replica: str = ""
    """Name of the replica's actor: another replica on the same port has another name."""


OnReplicas = Callable[[Mapping[str, Sequence[Address]]], None]


ROUTES: Final = LongPollNamespace.ROUTE_TABLE


def replicas_of(deployment: Hashable) -> tuple[Hashable, ...]:
    """The topic under which the controller tells of a deployment's replicas."""
    return (LongPollNamespace.DEPLOYMENT_TARGETS, deployment)


class Picture:
    """What the controller has told of all applications, piece by piece."""

    def __init__(self) -> None:
        self._routes: Mapping[Any, Any] = {}
        self._replicas: dict[Hashable, Sequence[Address]] = {}

    def topics(self) -> list[Hashable]:
        """What to ask the controller for."""
        return [ROUTES, *map(replicas_of, self._routes)]

    def take(self, told: Mapping[Hashable, Any]) -> dict[str, Sequence[Address]]:
        """Put in what is told by topic; the whole picture by application's name.

        What a controller has not told yet is as another one before it told: a new one takes the replicas up
        again, and says nothing of a deployment until it has.
        """
        routes = told.get(ROUTES, self._routes)
        known = {topic: addresses(content) for topic, content in told.items() if topic is not ROUTES}
        replicas = {**self._replicas, **known}
        topics = set(map(replicas_of, routes))
        self._replicas = {topic: there for topic, there in replicas.items() if topic in topics}
        self._routes = routes
        return {each.app_name: self._replicas.get(replicas_of(each), ()) for each in routes}


def addresses(told: Any) -> list[Address]:
    """Where the replicas of one deployment listen, by what Serve tells of it."""
    return [
        Address(each.node_ip, each.backend_http_port, each.actor_name)
        for each in told.running_replicas
        if each.node_ip and each.backend_http_port
    ]


HOLD_S: Final = 0.75
"""Less than the second for which a replica that stops takes new requests all the same."""


RECOVERY_S: Final = 30.0
"""How long a new controller may take to find the replicas that it took over."""
SILENCE_S: Final = LISTEN_FOR_CHANGE_REQUEST_TIMEOUT_S[1] + 15.0
"""A controller that lives has answered by then, if only that nothing changed."""
FIND_S: Final = 10.0


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


class Held:
    """Keeps the last replicas of an application for `HOLD_S` after it shows none.

    Serve takes a replica out of what it tells while it takes over a changed `user_config`, which is over
    at once. Were the only replica believed to be gone, requests would go to a route's fallback.

    A new controller, as after a lost head, knows no replica at first. What was there is kept for
    `RECOVERY_S`, longer than it needs: those that are really gone fail the gateway's own probes.
    """

    def __init__(self, on_replicas: OnReplicas, call_later: CallLater) -> None:
        self._on_replicas = on_replicas
        self._call_later = call_later
        self._found: Mapping[str, Sequence[Address]] = {}
        self._shown: dict[str, Sequence[Address]] = {}
        self._timers: dict[str, Timer] = {}
        self._recovery: Timer | None = None

    def new_controller(self) -> None:
        """What is told from now on comes from one that has just started."""
        if self._recovery is not None:
            self._recovery.cancel()
        self._recovery = self._call_later(RECOVERY_S, self._recovered)

    def changed(self, found: Mapping[str, Sequence[Address]]) -> None:
        """Serve's whole current picture."""
        self._found = found
        if self._recovery is not None:
            kept = {app: there for app, there in self._shown.items() if there and not found.get(app)}
            self._shown = {**found, **kept}
            self._on_replicas(self._shown)
            return
        for app in [app for app in self._timers if found.get(app) or app not in found]:
            self._timers.pop(app).cancel()
        shown: dict[str, Sequence[Address]] = {}
        for app, addresses in found.items():
            shown[app] = addresses or self._hold(app)
        self._shown = shown
        self._on_replicas(shown)

    def _recovered(self) -> None:
        self._recovery = None
        self.changed(self._found)

    def _hold(self, app: str) -> Sequence[Address]:
        before = self._shown.get(app, ())
        if before and app not in self._timers:
            self._timers[app] = self._call_later(HOLD_S, lambda: self._expire(app))
        return before

    def _expire(self, app: str) -> None:
        del self._timers[app]
        self._shown = {**self._shown, app: ()}
        self._on_replicas(self._shown)

    def stop(self) -> None:
        """Hold nothing any longer, and say no more."""
        for timer in (*self._timers.values(), *filter(None, [self._recovery])):
            timer.cancel()
        self._timers.clear()
        self._recovery = None


Find = Callable[[], Any]
"""Serve's controller, an actor; may block."""


class Controller:
    """Serve's controller, asked where the replicas are."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._actor: Any = None
        self._finding: asyncio.Future[Any] | None = None

    async def newer(self, numbers: Mapping[Hashable, int]) -> Mapping[Hashable, Update]:
        """What has changed by topic, of those topics whose change `numbers` are not the last any more.

        Raises:
            Exception: of Ray's; it could not be asked.
        """
        if self._actor is None:
            self._actor = await self._found()
        try:
            answer = await self._actor.listen_for_change.remote(dict(numbers))
        except (ActorDiedError, asyncio.CancelledError):
            # It is gone for good, or says nothing: there may be another one of its name.
            self._actor = None
            raise
        if answer == LongPollState.TIME_OUT:
            return {}
        return {topic: Update(change.snapshot_id, change.object_snapshot) for topic, change in answer.items()}

    async def _found(self) -> Any:
        """In a thread, because Ray blocks while its GCS is away; in no second one while the first waits."""
        if self._finding is None or self._finding.done():
            self._finding = asyncio.get_running_loop().run_in_executor(None, self._find)
            # One that fails when nobody waits for it any more is no news.
            self._finding.add_done_callback(lambda found: found.cancelled() or found.exception())
        return await asyncio.wait_for(asyncio.shield(self._finding), FIND_S)


def _find_controller() -> Any:
    return ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)


class ReplicaDiscovery:
    """Calls `on_replicas` with the whole current picture, at once and after every change."""

    def __init__(self, on_replicas: OnReplicas, find: Find = _find_controller) -> None:
        self._held = Held(on_replicas, self._later)
        self._picture = Picture()
        self._listener = Listener(
            Controller(find).newer,
            self._picture.topics,
            self._changed,
            self._held.new_controller,
            silence_s=SILENCE_S,
        )

    def age(self) -> float:
        """Seconds since the controller was last heard. Callable from any thread."""
        return self._listener.age()

    def start(self) -> None:
        """Begin to listen on the running event loop. Needs a connected Ray with Serve running."""
        self._listener.start()

    def _changed(self, told: Mapping[Hashable, Any]) -> None:
        self._held.changed(self._picture.take(told))

    def _later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)

    def stop(self) -> None:
        """Listen and hold no longer."""
        self._listener.stop()
        self._held.stop()
