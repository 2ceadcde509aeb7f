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


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


class Held:
    """Keeps the last replicas of an application for `HOLD_S` after it shows none.

    Serve takes a replica out of its target groups while it takes over a changed `user_config`, which is over
    at once. Were the only replica believed to be gone, requests would go to a route's fallback.
    """

    def __init__(self, on_replicas: OnReplicas, call_later: CallLater) -> None:
        self._on_replicas = on_replicas
        self._call_later = call_later
        self._shown: dict[str, Sequence[Address]] = {}
        self._timers: dict[str, Timer] = {}

    def changed(self, found: Mapping[str, Sequence[Address]]) -> None:
        """Serve's whole current picture."""
        for app in [app for app in self._timers if found.get(app) or app not in found]:
            self._timers.pop(app).cancel()
        shown: dict[str, Sequence[Address]] = {}
        for app, addresses in found.items():
            shown[app] = addresses or self._hold(app)
        self._shown = shown
        self._on_replicas(shown)

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
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


class ReplicaDiscovery:
    """Calls `on_replicas` with the whole current picture, at once and after every change."""

    def __init__(self, on_replicas: OnReplicas, client_id: str) -> None:
        self._held = Held(on_replicas, self._later)
        self._client_id = client_id
        self._client: LongPollClient | None = None

    def start(self) -> None:
        """Begin to listen on the running event loop. Needs a connected Ray with Serve running."""
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        self._client = LongPollClient(
            controller,
            {LongPollNamespace.TARGET_GROUPS: self._changed},
            call_in_event_loop=asyncio.get_running_loop(),
            client_id=self._client_id,
        )

    def _changed(self, target_groups: Sequence[Any]) -> None:
        self._held.changed(addresses_by_app(target_groups))

    def _later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)

    def stop(self) -> None:
        if self._client is not None:
            self._client.stop()
        self._held.stop()
