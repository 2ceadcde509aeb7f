"""How a pod leaves: what its preStop hook does, and how long it may take.

The grace is part of the pod template, so a change of it would make every pod anew. It is therefore a
constant for any `drain.timeout`, which is at most an hour. A pod that has drained ends at once.

- Endpoints lose a pod while its hook runs, but kube-proxy needs seconds to hear of it. So the gateway is told
  by a file, head or no head, takes what comes for GATEWAY_REACHABLE_S more, and says with each answer that
  the connection ends. Then it listens no more, and ends its streams, for at most MAX_STREAM_S.
- Then Ray is told that the node is taken away. Serve starts other replicas first where there is room, takes
  this node's out of rotation, and stops each one when its requests have ended, `drain.timeout` at the
  latest. An engine waits for its successor as long as there is room for one, half an hour at most; in a
  pool that is full it is stopped at once (`tradewind.serve.leaving`). A gateway has no room elsewhere by
  design (one per pod, and KubeRay replaces a pod only when it is gone) and is stopped at once.
- The hook ends when no replica is left in the pod.
- Where Ray's head is away too, nobody takes replicas out of rotation. A pod that is needed waits for the next
  head, which is told anew that the node goes, and ends when none has answered for `_HEAD_AWAY_S`: an engine's
  while a replica runs in it. A gateway's has no callers by then, and ends at once.
"""

from __future__ import annotations

from typing import Final

from tradewind.compiler.ray_environment import GATEWAY_REACHABLE_S, MAX_STREAM_S
from tradewind_operator.desired import names
from tradewind_operator.desired.world import Manifest

_MAX_DRAIN_S: Final = 3_600
_TOLD_S: Final = 2
"""Until the gateway has seen the file."""
_STAYS_S: Final = GATEWAY_REACHABLE_S + _TOLD_S
_SUCCESSOR_S: Final = 1_800
"""As long as an engine waits for its successor; a test compares it with the hook's own."""
_HEAD_AWAY_S: Final = 60
"""As long as a pod waits for a head; a test compares it, too."""
_MARGIN_S: Final = _HEAD_AWAY_S + 60

WORKER_GRACE_S: Final = _STAYS_S + max(MAX_STREAM_S, _SUCCESSOR_S) + _MAX_DRAIN_S + 2 * _MARGIN_S
_LEAVES: Final = f"{names.PREFIX}/bin/python -m tradewind.serve.leaving"
HEAD_GRACE_S: Final = 30
"""The head has no replicas and no streams."""

_PORT: Final = f"{names.ENDPOINT_PORT:04X}"
# Column 2 of /proc/net/tcp is the local address, 3 the other end's, 4 the state: 01 is established.
_CALLERS: Final = (
    "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | "
    f"awk '$2 ~ /:{_PORT}$/ && $4 == \"01\" && $3 !~ /^0100007F:/ {{n = 1}} END {{exit !n}}'"
)


def gateway_leaves() -> Manifest:
    """`lifecycle` of a gateway container."""
    steps = [
        f": > {names.LEAVING}",
        f"sleep {_STAYS_S}",
        f"n=0; while [ $n -lt {MAX_STREAM_S} ] && {_CALLERS}; do sleep 2; n=$((n+2)); done",
        f"timeout {_MAX_DRAIN_S + _MARGIN_S} {_LEAVES} --at-once || exit 0",
    ]
    return _before_stop(steps)


def engine_leaves() -> Manifest:
    """`lifecycle` of an engine container."""
    return _before_stop([f"timeout {_SUCCESSOR_S + _MAX_DRAIN_S + _MARGIN_S} {_LEAVES} || exit 0"])


def _before_stop(steps: list[str]) -> Manifest:
    return {"preStop": {"exec": {"command": ["/bin/sh", "-c", "\n".join(steps)]}}}
