"""How an engine's node leaves Ray: `python -m tradewind.serve.leaving`, the preStop hook of an engine's pod.

Ray is told that the node goes, by a deadline. Serve then starts a successor of each replica first, and stops
a replica at the deadline less its `drain.timeout` at the latest. With room for a successor the deadline is
far, because weights take their time. Without room, waiting only keeps the node: the deadline becomes the
drain time-out alone, so that the replica takes nothing new and ends what it has.

There is room while a successor has a node, or while the autoscaler is bringing a pod to the pool. The hook
says on the container's output what it waits for, and ends when no replica is left.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from tradewind.telemetry.logs import setup_logging

_LOG = logging.getLogger("tradewind.serve.leaving")

SUCCESSOR_S: Final = 1_800.0
"""How long a successor may take to come up."""
ROOM_S: Final = 30.0
"""How long there must have been no room before none is believed in: the autoscaler needs some seconds."""
AGAIN_S: Final = 10
"""A request for a pod that follows a refused one within these seconds is the same one again."""
_POLL_S: Final = 2.0
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


def look(applications: Mapping[str, Any], node: str, *, pods_come: bool) -> Seen:
    """What Serve's REST answer says of the node with this id."""
    replicas = stopping = 0
    drain_s, unplaced = 0.0, False
    for deployment in _deployments(applications):
        here = [one["state"] for one in deployment["replicas"] if one.get("node_id") == node]
        if not here:
            continue
        live = sum(state in _LIVE for state in here)
        replicas, stopping = replicas + live, stopping + len(here) - live
        config = deployment.get("deployment_config") or {}
        drain_s = max(drain_s, float(config.get("graceful_shutdown_timeout_s") or 0))
        starting = [one for one in deployment["replicas"] if one["state"] == "STARTING"]
        unplaced |= live > sum(one.get("node_id") not in (None, node) for one in starting)
    return Seen(replicas, stopping, drain_s, replicas > 0 and not unplaced, pods_come)


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

    def __init__(self, started: float) -> None:
        self._no_room_since: float | None = None
        self._started = started
        self.short = False
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

    def _shorten(self, seen: Seen, now: float, why: str) -> tuple[float, str]:
        self.short = True
        return now + seen.drain_s, f"{why}: {seen.replicas} replicas end within {seen.drain_s:g} s"


class _Ray:
    """The node's own Ray: its GCS, and Serve's REST API on the head."""

    def __init__(self, address: str, node_type: str, dashboard_port: int = 8265) -> None:
        from ray._raylet import GcsClient  # type: ignore[attr-defined] # compiled

        self._gcs = GcsClient(address=address)
        self._url = f"http://{address.rpartition(':')[0]}:{dashboard_port}/api/serve/applications/"
        self._type = node_type

    def node(self, address: str) -> str | None:
        """Id of the live node with this IP address, in hex."""
        for node_id, info in self._gcs.get_all_node_info(timeout=10).items():
            if info.node_manager_address == address and not info.death_info.reason and info.state == 0:
                return str(node_id.hex())
        return None

    def drain(self, node: str, remaining_s: float) -> None:
        """Tell Ray that the node goes, by then at the latest."""
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline_ms = round((time.time() + remaining_s) * 1000)
        self._gcs.drain_node(node, reason, "the pod ends", deadline_ms)

    def see(self, node: str) -> Seen:
        """One look. Raises OSError or ValueError when the head does not answer."""
        request = urllib.request.Request(self._url)  # noqa: S310 - http, see above
        if token := os.environ.get("RAY_AUTH_TOKEN"):
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http, see above
            return look(json.load(answer), node, pods_come=self._pods_come())

    def _pods_come(self) -> bool:
        from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

        reply = GetClusterStatusReply()
        reply.ParseFromString(self._gcs.get_cluster_status(timeout_s=10))
        return pods_come(reply.autoscaling_state, self._type)


def leave(ray: _Ray, node: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Take the node away and wait until no replica is left on it. Ends early when the head is lost."""
    started = time.monotonic()
    leaving, missed = Leaving(started), 0
    ray.drain(node, SUCCESSOR_S + 3_600)
    _LOG.info("the pod ends; its replicas leave when their successors are ready")
    while missed < 30:
        try:
            seen = ray.see(node)
        except (OSError, ValueError, RuntimeError):
            missed += 1
            sleep(_POLL_S)
            continue
        missed = 0
        if not seen.replicas + seen.stopping:
            _LOG.info("no replica is left")
            return
        if (new := leaving.deadline(seen, now := time.monotonic())) is not None:
            ray.drain(node, max(0.0, new[0] - now))
            _LOG.info(new[1])
        sleep(_POLL_S)
    _LOG.info("the head does not answer: nobody takes replicas out of rotation any more")


def _output() -> TextIO:
    """The container's own output: nobody sees what a hook prints."""
    try:
        return Path("/proc/1/fd/1").open("a", encoding="utf-8")
    except OSError:
        return sys.stderr


def main() -> None:
    """Leave, as the pod's variables say who it is."""
    from ray.util import get_node_ip_address

    setup_logging("leaving", stream=_output(), fields={"pod": os.environ.get("HOSTNAME", "")})
    ray = _Ray(os.environ["RAY_ADDRESS"], os.environ.get("RAY_NODE_TYPE_NAME", ""))
    if (node := ray.node(get_node_ip_address())) is not None:
        leave(ray, node)


if __name__ == "__main__":
    main()
