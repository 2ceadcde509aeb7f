"""The RayService: a Ray cluster and what Serve runs on it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from tradewind_operator.desired import names
from tradewind_operator.desired.gcs import redis_options
from tradewind_operator.desired.groups import (
    AUTOSCALER_LOGS,
    AUTOSCALER_TMP,
    gateway_group,
    head_group,
    pool_groups,
)
from tradewind_operator.desired.metadata import metadata
from tradewind_operator.desired.security import container_security
from tradewind_operator.desired.volumes import service_account_files
from tradewind_operator.desired.world import ClusterWorld, Manifest
from tradewind_operator.kinds import RAY_SERVICE

NEW_CLUSTER: Final = "NewCluster"
NO_NEW_CLUSTER: Final = "None"
_IDLE_S: Final = 300
"""A node that nothing runs on goes after this; less, and a model that restarts finds its node gone."""
_UNWRITABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
"""What JSON may hold as it is and YAML may not, or reads as the end of a line."""


def ray_service(world: ClusterWorld) -> Manifest:
    """The RayService. Only `serveConfigV2` and the sizes of groups depend on models, routes or tenants."""
    held = world.spec.upgrade_strategy.type == "Hold"
    return {
        "apiVersion": RAY_SERVICE.api_version,
        "kind": RAY_SERVICE.kind,
        "metadata": metadata(world, world.name),
        "spec": {
            "upgradeStrategy": {"type": NO_NEW_CLUSTER if held else NEW_CLUSTER},
            # An old cluster lives on until the streams that it took have ended.
            "rayClusterDeletionDelaySeconds": max(60, round(world.drain_s) + 30),
            "excludeHeadPodFromServeSvc": True,
            "serveConfigV2": serve_config_text(world.compiled.serve_config),
            "rayClusterConfig": ray_cluster_config(world),
        },
    }


def serve_config_text(config: Mapping[str, Any]) -> str:
    """`serveConfigV2`: JSON, which is YAML, in as few bytes as it takes; the same config is the same text."""
    text = json.dumps(config, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return _UNWRITABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def ray_cluster_config(world: ClusterWorld) -> Manifest:
    """`rayClusterConfig`: a change of anything but sizes and tolerations, and anything but a pool at the end,
    makes KubeRay build a second cluster."""
    config: Manifest = {
        "rayVersion": world.spec.ray_version,
        "authOptions": {"mode": "token", "secretName": names.auth_secret(world.name)},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": _autoscaler(),
        "headGroupSpec": head_group(world),
        "workerGroupSpecs": [gateway_group(world), *pool_groups(world)],
    }
    if (redis := world.spec.gcs_fault_tolerance.redis) is not None:
        config["gcsFaultToleranceOptions"] = redis_options(redis)
    return config


def _autoscaler() -> Manifest:
    """The container beside the head: the only one that may speak to the Kubernetes API."""
    memory = {"memory": "1Gi"}
    return {
        "version": "v2",
        "idleTimeoutSeconds": _IDLE_S,
        "upscalingMode": "Default",
        "securityContext": container_security(),
        "resources": {"requests": {"cpu": "200m", **memory}, "limits": memory},
        "env": [
            {"name": "HOME", "value": AUTOSCALER_TMP.path},
            {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
        ],
        "volumeMounts": [
            AUTOSCALER_TMP.mount(),
            AUTOSCALER_LOGS.mount(),
            service_account_files().mount(),
        ],
    }
