"""Whether a leaving engine's node has successors to wait for, by what Serve and the autoscaler say.

With room for a successor the node's deadline is far, because weights take their time. Without room, waiting
only keeps the node: the deadline becomes the drain time-out alone, so that the replica takes nothing new and
ends what it has. There is room while a successor has a node, or while the autoscaler is bringing a pod to the
pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

SUCCESSOR_S: Final = 1_800.0
"""How long a successor may take to come up."""
ROOM_S: Final = 30.0
"""How long there must have been no room before none is believed in: the autoscaler needs some seconds."""
AGAIN_S: Final = 10
"""A request for a pod that follows a refused one within these seconds is the same one again."""
_LIVE: Final = frozenset({"STARTING", "UPDATING", "RECOVERING", "RUNNING", "PENDING_MIGRATION"})


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the cluster."""

    replicas: int
    """Replicas on this node that are not yet told to stop."""
    stopping: int
    """Replicas on this node that end what they have."""
    drain_s: float
    """Longest drain time-out among both."""
    has_successors: bool
    """Every deployment that leaves has a replica that starts on another node."""
    pods_come: bool
    """The autoscaler is bringing a pod of this pool."""
    unknown: int = 0
    """Replicas that Serve takes up again after it lost its controller, and whose node it does not know."""


def look(applications: Mapping[str, Any], node: str, *, pods_come: bool) -> Seen:
    """What Serve's REST answer says of the node with this id.

    Raises:
        ValueError: Serve has no controller, so that the answer says nothing. A new head has none at first.
    """
    if not applications.get("controller_info"):
        raise ValueError("Serve has no controller yet")
    replicas = stopping = unknown = 0
    drain_s, unplaced = 0.0, False
    for deployment in _deployments(applications):
        unknown += sum(
            one["state"] == "RECOVERING" and not one.get("node_id") for one in deployment["replicas"]
        )
        here = [one["state"] for one in deployment["replicas"] if one.get("node_id") == node]
        if not here:
            continue
        live = sum(state in _LIVE for state in here)
        replicas, stopping = replicas + live, stopping + len(here) - live
        config = deployment.get("deployment_config") or {}
        drain_s = max(drain_s, float(config.get("graceful_shutdown_timeout_s") or 0))
        starting = [one for one in deployment["replicas"] if one["state"] == "STARTING"]
        unplaced |= live > sum(one.get("node_id") not in (None, node) for one in starting)
    return Seen(replicas, stopping, drain_s, replicas > 0 and not unplaced, pods_come, unknown)


def _deployments(applications: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    for application in applications.get("applications", {}).values():
        yield from application.get("deployments", {}).values()


def pods_come(state: Any, node_type: str) -> bool:
    """Whether the autoscaler, by its own `AutoscalingState`, brings a pod to a worker group.

    It asks KubeRay for one more than the group may have, too, and does so again each time that is refused: a
    request that follows a refusal brings nothing.
    """
    of_type = [one for one in state.failed_instance_requests if one.ray_node_type_name == node_type]
    refused = max((one.failed_ts for one in of_type), default=0)
    requests = [
        one.request_ts for one in state.pending_instance_requests if one.ray_node_type_name == node_type
    ]
    return any(one.ray_node_type_name == node_type for one in state.pending_instances) or any(
        asked > refused + AGAIN_S for asked in requests
    )


class Leaving:
    """The deadline of the node, as looks come in. Times are seconds of one clock."""

    def __init__(self, started: float, *, short: bool = False) -> None:
        self._no_room_since: float | None = None
        self._started = started
        self.short = short
        """Whether the node no longer waits for a successor."""

    def deadline(self, seen: Seen, now: float) -> tuple[float, str] | None:
        """A new deadline and why, or None where the one that stands is right."""
        if self.short or not seen.replicas:
            return None
        if now - self._started >= SUCCESSOR_S:
            return self._shorten(seen, now, f"no successor was ready within {SUCCESSOR_S:g} s")
        if seen.has_successors or seen.pods_come:
            self._no_room_since = None
            return None
        if self._no_room_since is None:
            self._no_room_since = now
        if now - self._no_room_since < ROOM_S:
            return None
        return self._shorten(seen, now, "the pool has no room for a successor")

    def forget(self) -> None:
        """The head was away: that there was no room before says nothing of the time after."""
        self._no_room_since = None

    def _shorten(self, seen: Seen, now: float, why: str) -> tuple[float, str]:
        self.short = True
        return now + seen.drain_s, f"{why}: {seen.replicas} replicas end within {seen.drain_s:g} s"
