"""The environment that every Ray process of a platform needs, as one pure function.

Ray reads these variables when it is imported, so they must be in place before that, on the head and
on every worker alike. Each line says why it is not Ray's default.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MAX_STREAM_S = 3600
"""Longest stream that a change of replicas must not cut."""
GATEWAY_REACHABLE_S = 20
"""How long a gateway that stops takes new requests in a cluster: the endpoint must have lost it, by its probe
or by its pod's end, and every node must have been told, which takes seconds on a busy machine."""
LEAVING_FILE = "TRADEWIND_LEAVING_FILE"
"""Variable with the path of a file whose being there tells a pod's gateways to leave."""
CALLBACK = "tradewind.serve.doors:middlewares"


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports of the replicas: the first of the range, and how many."""

    replicas: int = 30000
    replica_count: int = 1000


PORTS = Ports()


def ray_environment(*, token_file: Path | None, ports: Ports = PORTS) -> dict[str, str]:
    """Variables for Ray on one machine or in one pod.

    Args:
        token_file: holds Ray's authentication token; None where RAY_AUTH_TOKEN brings it.
        ports: where the replicas listen.
    """
    return {
        # The gateway listens itself and asks each engine at a port of its own; user code is on the replica's
        # main loop.
        "RAY_SERVE_ENABLE_HA_PROXY": "0",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # Serve's proxy, and the port that it opens for a gateway, answer nobody.
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": CALLBACK,
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.replicas),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.replicas + ports.replica_count),
        # The gateway stops choosing a draining replica at once, the last one within `serve.discovery.HOLD_S`.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        "RAY_AUTH_MODE": "token",
        **({} if token_file is None else {"RAY_AUTH_TOKEN_PATH": str(token_file)}),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Workers that nothing has asked for cost 100 MB each.
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
    }
