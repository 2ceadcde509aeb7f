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
from typing import Any

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


class ReplicaDiscovery:
    """Calls `on_replicas` with the whole current picture, at once and after every change."""

    def __init__(self, on_replicas: OnReplicas, client_id: str) -> None:
        self._on_replicas = on_replicas
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
        self._on_replicas(addresses_by_app(target_groups))

    def stop(self) -> None:
        if self._client is not None:
            self._client.stop()
