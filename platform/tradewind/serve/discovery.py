"""Where the engine replicas are: Serve's controller tells, this module listens.

The one place that touches Serve's private long-poll interface. Under HAProxy the controller pushes
its target groups (every running replica with its own HTTP port, per application) whenever they
change; a contract test holds this module to the installed Ray.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import ray
from ray.exceptions import RayActorError
from ray.serve._private.common import RequestProtocol
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE
from ray.serve._private.long_poll import LongPollClient, LongPollNamespace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where one replica listens: `http://host:port`."""

    host: str
    port: int
    replica: str = ""
    """Name of the replica's actor: another replica on the same port has another name."""


OnReplicas = Callable[[Mapping[str, Sequence[Address]]], None]


def addresses_by_app(target_groups: Sequence[Any]) -> dict[str, list[Address]]:
    """Serve's HTTP target groups as addresses per application name."""
    found: dict[str, list[Address]] = {}
    for group in target_groups:
        if group.protocol == RequestProtocol.HTTP:
            targets = found.setdefault(group.app_name, [])
            targets.extend(Address(target.ip, target.port, target.name) for target in group.targets)
    return found


HOLD_S: Final = 0.75
"""Less than the second for which a replica that stops takes new requests all the same."""


RECOVERY_S: Final = 30.0
"""How long a new controller may take to find the replicas that it took over."""
_AGAIN_S: Final = 1.0
_CHANGES: Final = 1_000
"""More than a controller can make between two answers: a number further on is another controller's."""


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


class Held:
    """Keeps the last replicas of an application for `HOLD_S` after it shows none.

    Serve takes a replica out of its target groups while it takes over a changed `user_config`, which is over
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


class _Listener(LongPollClient):  # type: ignore[misc] # untyped
    """Goes on when the controller cannot be reached, where Serve's own would never listen again.

    `on_new` is called, in the event loop, before what another controller tells.
    """

    def __init__(self, *arguments: Any, on_new: Callable[[], None], **more: Any) -> None:
        self._on_new = on_new
        super().__init__(*arguments, **more)

    def _process_update(self, updates: Any) -> None:
        if isinstance(updates, (RayActorError, ConnectionError)):
            # Of a thread of Ray's, as every answer is.
            self._schedule_to_event_loop(self._listen_later)
            return
        if isinstance(updates, Mapping) and any(self._is_new(key, it) for key, it in updates.items()):
            self._schedule_to_event_loop(self._on_new)
        super()._process_update(updates)

    def _listen_later(self) -> None:
        asyncio.get_running_loop().call_later(_AGAIN_S, self._poll_next)

    def _is_new(self, key: Any, update: Any) -> bool:
        """Controllers count changes from a number of chance."""
        before = self.snapshot_ids.get(key, -1)
        return before >= 0 and not 0 < update.snapshot_id - before < _CHANGES


class ReplicaDiscovery:
    """Calls `on_replicas` with the whole current picture, at once and after every change."""

    def __init__(self, on_replicas: OnReplicas, client_id: str) -> None:
        self._held = Held(on_replicas, self._later)
        self._client_id = client_id
        self._client: _Listener | None = None

    def start(self) -> None:
        """Begin to listen on the running event loop. Needs a connected Ray with Serve running."""
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        self._client = _Listener(
            controller,
            {LongPollNamespace.TARGET_GROUPS: self._changed},
            call_in_event_loop=asyncio.get_running_loop(),
            client_id=self._client_id,
            on_new=self._held.new_controller,
        )

    def _changed(self, target_groups: Sequence[Any]) -> None:
        self._held.changed(addresses_by_app(target_groups))

    def _later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)

    def stop(self) -> None:
        if self._client is not None:
            self._client.stop()
        self._held.stop()
