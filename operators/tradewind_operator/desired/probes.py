"""Probes of the Ray containers. KubeRay's own for workers run wget, which the images do not have.

`/api/healthz` of Ray's agent asks the raylet, and on the head the GCS too. On a worker it does not ask
the GCS: when the head is lost, gateways and engines go on with what they know. It needs no token.
"""

from __future__ import annotations

from tradewind_operator.desired import names
from tradewind_operator.desired.world import Manifest


def ray_probes() -> Manifest:
    """Startup, liveness and readiness of a head or engine container: Ray runs on this node."""
    return {**_alive(), "readinessProbe": _probe("/api/healthz", names.AGENT_PORT, period=5, failures=4)}


def gateway_probes() -> Manifest:
    """Those of a gateway container; ready means that its gateway listens and is not about to leave.

    Short, because a pod that no longer answers takes requests until it is found out. That no engine is ready
    makes no gateway unready: callers are told so by an answer.
    """
    return {**_alive(), "readinessProbe": _probe("/healthz", names.ENDPOINT_PORT, period=2, failures=2)}


def _alive() -> Manifest:
    return {
        # Ray's start takes half a minute on a small CPU, after the image is there.
        "startupProbe": _probe("/api/healthz", names.AGENT_PORT, period=5, failures=60),
        # A pod that is killed costs a model's start, so only one that is surely dead is.
        "livenessProbe": _probe("/api/healthz", names.AGENT_PORT, period=10, failures=12),
    }


def _probe(path: str, port: int, *, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": min(period, 5),
        "successThreshold": 1,
        "failureThreshold": failures,
    }
