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
"""How long a gateway that stops takes new requests in a cluster: every HAProxy must have been told of others,
which takes seconds on a busy machine, and every node must let packets through to them."""
REACHABLE = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports of the ingress' own endpoints and the first of the replicas' range."""

    haproxy_metrics: int = 9101
    haproxy_stats: int = 8404
    replicas: int = 30000
    replica_count: int = 1000


def ray_environment(*, token_file: Path | None, run_dir: Path, ingress: str, ports: Ports) -> dict[str, str]:
    """Variables for Ray on one machine or in one pod.

    Args:
        token_file: holds Ray's authentication token; None where RAY_AUTH_TOKEN brings it.
        run_dir: short private path for HAProxy's sockets (a Unix socket path has at most 107 bytes).
        ingress: program to run as HAProxy (see `tradewind.serve.ingress`).
        ports: where the ingress and the replicas listen.
    """
    return {
        # One HAProxy in front, user code on the replica's main loop: a third of the CPU per request.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": ingress,
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        # A reload must not cut the streams of the process it replaces.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(MAX_STREAM_S),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(MAX_STREAM_S),
        # A gateway that is killed before it has answered costs nobody a request: another one is asked.
        # HAProxy still holds the request where head and body fit its buffer: `tradewind.serve.ingress` has
        # it wait for the body, without which it would hold hardly any.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        # One that cannot be connected to is out until it answers two checks, half a second, and others are
        # asked: five at most, the last may be the HAProxy that listens now (`tradewind.serve.ingress`).
        "RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": "2",
        "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
        "RAY_SERVE_HAPROXY_RETRIES": "5",
        # Larger heads than the gateway allows must reach it, so that it can answer properly.
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
        # Nobody listens on the syslog port; per-request metrics are the gateway's.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.haproxy_metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.haproxy_stats),
        # The admin socket is world-writable by default: keep it in a private directory.
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(run_dir / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(run_dir / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(run_dir / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(run_dir),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(run_dir / "server-state"),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.replicas),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.replicas + ports.replica_count),
        # The gateway stops choosing a draining replica at once, the last one within `serve.discovery.HOLD_S`.
        REACHABLE: "1",
        "RAY_AUTH_MODE": "token",
        **({} if token_file is None else {"RAY_AUTH_TOKEN_PATH": str(token_file)}),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Workers that nothing has asked for cost 100 MB each.
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
    }
