"""How a pod's node leaves Ray: `python -m tradewind.serve.leaving [--at-once]`, a step of preStop hooks.

Ray is told that the node goes, by a deadline. Serve then starts a successor of each replica first, and stops
a replica at the deadline less its `drain.timeout` at the latest. How far the deadline is depends on the room
for successors (`successors.py`); `--at-once`, for gateways, waits for none. The hook says on the container's
output what it waits for, and ends when no replica is left.

A head that does not answer is mostly one that is being replaced: the next one has its state, takes the
replicas up again and can be told anew that the node goes. So a pod that is needed waits for `AWAY_S`, by the
clock and from the first question without an answer; then it ends, because nobody takes replicas out of
rotation. An engine's pod is needed while a replica runs in it. A gateway's is not, since its callers have
left before, and one that is not needed ends at once.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, Protocol, TextIO, TypeVar

from ray.exceptions import RayError

from tradewind.serve.successors import SUCCESSOR_S, Leaving, Seen, look, pods_come
from tradewind.telemetry.logs import setup_logging

_LOG = logging.getLogger("tradewind.serve.leaving")

AWAY_S: Final = 60.0
"""How long a pod with a replica in it waits for a head: one that was lost is back within 35 s as a rule."""
_DRAIN_S: Final = 3_600.0
"""The longest `drain.timeout` there is."""
_ANSWER_S: Final = 10
"""How long one answer may take. GCS must be asked with a bound: without one its client ends this process when
GCS stays away."""
_POLL_S: Final = 2.0
_SILENT: Final = (OSError, HTTPException, ValueError, RayError)
"""What comes of a head that is away, or there and not yet itself. Ray's errors, `RpcError` among them, have a
tree of their own."""
_Answer = TypeVar("_Answer")


class _Ray:
    """The node's own Ray: its GCS, and Serve's REST API on the head.

    Each method raises one of `_SILENT` when the head does not answer: OSError or HTTPException where it is
    asked over HTTP, ValueError where what it says is no answer, RayError where GCS is asked. Each takes two
    answers' time at most, and 40 s more where GCS' port takes connections and nobody answers on it.
    """

    def __init__(self, address: str, node_type: str, dashboard_port: int = 8265) -> None:
        self._address = address
        self._url = f"http://{address.rpartition(':')[0]}:{dashboard_port}/api/serve/applications/"
        self._type = node_type
        self._gcs: Any = None

    def node(self, address: str) -> str | None:
        """Id of the live node with this IP address, in hex."""
        found = self._ask(lambda gcs: gcs.get_all_node_info(timeout=_ANSWER_S))
        for node_id, info in found.items():
            if info.node_manager_address == address and not info.death_info.reason and info.state == 0:
                return str(node_id.hex())
        return None

    def drain(self, node: str, remaining_s: float) -> None:
        """Tell Ray that the node goes, by then at the latest. It may be told again, with another deadline."""
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline_ms = round((time.time() + remaining_s) * 1000)
        self._ask(lambda gcs: gcs.drain_node(node, reason, "the pod ends", deadline_ms, timeout=_ANSWER_S))

    def see(self, node: str) -> Seen:
        """One look."""
        request = urllib.request.Request(self._url)  # noqa: S310 - http, see above
        if token := os.environ.get("RAY_AUTH_TOKEN"):
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:  # noqa: S310 - http, see above
            return look(json.load(answer), node, pods_come=self._pods_come())

    def _pods_come(self) -> bool:
        from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

        reply = GetClusterStatusReply()
        reply.ParseFromString(self._ask(lambda gcs: gcs.get_cluster_status(timeout_s=_ANSWER_S)))
        return pods_come(reply.autoscaling_state, self._type)

    def _ask(self, question: Callable[[Any], _Answer]) -> _Answer:
        """GCS' answer. A client that got none is given up: it goes on knowing the GCS that is gone."""
        client = self._gcs or self._connected()
        self._gcs = None
        answer = question(client)
        self._gcs = client
        return answer

    def _connected(self) -> Any:
        from ray._raylet import GcsClient  # type: ignore[attr-defined] # compiled

        host, _, port = self._address.rpartition(":")
        # Ray's client would try for 40 s where nobody listens.
        with socket.create_connection((host, int(port)), timeout=_ANSWER_S):
            return GcsClient(address=self._address)


class Head(Protocol):
    """What a leaving node asks of Ray's head, as `_Ray` does it. All may raise one of `_SILENT`."""

    def node(self, address: str) -> str | None: ...
    def drain(self, node: str, remaining_s: float) -> None: ...
    def see(self, node: str) -> Seen: ...


class _Departure:
    """A node on its way out: what its head was told, and since when it does not answer."""

    def __init__(
        self,
        head: Head,
        address: str,
        needed: Callable[[], bool],
        clock: Callable[[], float],
        *,
        at_once: bool,
    ) -> None:
        self._head, self._address = head, address
        self._needed, self._clock = needed, clock
        self._leaving = Leaving(clock(), short=at_once)
        self._until = clock() + (0 if at_once else SUCCESSOR_S + _DRAIN_S)
        self._node: str | None = None
        self._is_told = False
        self._silent_since: float | None = None

    def is_over(self) -> bool:
        """Ask the head once, tell it what it must know, and say whether the pod may end."""
        asked = self._clock()
        try:
            over = self._goes_on()
        except _SILENT as error:
            return self._is_lost(asked, error)
        if self._silent_since is not None:
            _LOG.info("the head answers again")
        self._silent_since = None
        return over

    def _goes_on(self) -> bool:
        self._node = node = self._node or self._head.node(self._address)
        if node is None:
            _LOG.info("Ray has no live node here")
            return True
        if not self._is_told:
            self._tell(node)
        seen = self._head.see(node)
        if not seen.replicas + seen.stopping and not (seen.unknown and self._needed()):
            _LOG.info("no replica is left")
            return True
        if (new := self._leaving.deadline(seen, self._clock())) is not None:
            self._until, why = new
            _LOG.info(why)
            self._tell(node)
        return False

    def _tell(self, node: str) -> None:
        self._is_told = False
        self._head.drain(node, max(1.0, self._until - self._clock()))
        self._is_told = True

    def _is_lost(self, asked: float, error: Exception) -> bool:
        """Whether a head that does not answer is given up. One that comes back is told everything again."""
        self._is_told = False
        self._leaving.forget()
        if not self._needed():
            _LOG.info("the head does not answer, and no replica is needed here")
            return True
        if self._silent_since is None:
            self._silent_since = asked
            _LOG.info(f"the head does not answer, and is waited for: {AWAY_S:g} s at most ({error})")
        if self._clock() - self._silent_since < AWAY_S:
            return False
        _LOG.info(f"no head for {AWAY_S:g} s: nobody takes replicas out of rotation any more")
        return True


def serves(processes: Path = Path("/proc")) -> bool:
    """Whether a replica of Serve runs in this pod, by the name that Ray gives its process."""
    for command in processes.glob("[0-9]*/cmdline"):
        try:
            if command.read_bytes().startswith(b"ray::ServeReplica"):
                return True
        except OSError:  # it has ended since
            continue
    return False


def unneeded() -> bool:
    """Of a gateway's pod, which nobody calls any more."""
    return False


def leave(
    head: Head,
    address: str,
    *,
    at_once: bool = False,
    needed: Callable[[], bool] = serves,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Take the node with this IP address away, and wait until no replica is left on it.

    `at_once` it waits for no successor. While the head does not answer it waits for one, `AWAY_S` at most and
    only while the pod is `needed`. Nothing of `_SILENT` escapes.
    """
    _LOG.info(f"the pod ends; its replicas leave {'now' if at_once else 'when their successors are ready'}")
    departure = _Departure(head, address, needed, clock, at_once=at_once)
    while not departure.is_over():
        sleep(_POLL_S)


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
    at_once = "--at-once" in sys.argv[1:]
    leave(ray, get_node_ip_address(), at_once=at_once, needed=unneeded if at_once else serves)


if __name__ == "__main__":
    main()
