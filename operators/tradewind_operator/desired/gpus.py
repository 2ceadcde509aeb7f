"""GPUs that a Ray cluster needs at once when it starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tradewind.compiler.compile import POOL_LABEL
from tradewind_operator.desired import changes


def gpus_of(spec: Mapping[str, Any]) -> int:
    """Of a RayService's spec: per pool what its models ask for, or what its fewest nodes have."""
    wanted = _wanted(json.loads(spec["serveConfigV2"]))
    total = 0
    for group in changes.groups(spec["rayClusterConfig"]):
        per_pod = int(group["rayStartParams"].get("num-gpus", 0))
        pool = (group.get("labels") or {}).get(POOL_LABEL, "")
        total += max(per_pod * int(group["minReplicas"]), wanted.get(pool, 0) if per_pod else 0)
    return total


def _wanted(serve_config: Mapping[str, Any]) -> dict[str, int]:
    """GPUs by pool."""
    found: dict[str, int] = {}
    for app in serve_config["applications"]:
        for deployment in app["deployments"]:
            options = deployment.get("ray_actor_options") or {}
            pool = (options.get("label_selector") or {}).get(POOL_LABEL)
            if pool is not None:
                gpus = float(options.get("num_gpus", 0)) * _replicas(deployment)
                found[pool] = found.get(pool, 0) + round(gpus)
    return found


def _replicas(deployment: Mapping[str, Any]) -> int:
    scaling = deployment.get("autoscaling_config") or {}
    return int(deployment.get("num_replicas") or scaling.get("min_replicas") or 0)
