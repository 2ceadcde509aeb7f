"""The RayCluster: Ray's head and its groups of worker pods. What Serve runs on it is sent to it later.

KubeRay 1.7 takes a changed template for pods that it makes later and leaves those that run. So nothing that
shapes a pod ever changes under one name:

- A worker group's name ends in a hash of its template. A changed template is another group beside it, the
  models move over one by one, and the emptied group goes (`planning.groups`, `planning.moves`).
- A RayCluster's name ends in a hash of all the rest: Ray's version, the head, authentication, where Ray's
  state is kept. A change there is another RayCluster beside the first (`planning.clusters`). The same
  resources always give the same name, so a change that is taken back is no change.

Sizes and tolerations are in neither hash: they change in place.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tradewind_operator.desired import names
from tradewind_operator.desired.backend import Backend
from tradewind_operator.desired.gcs import redis_options
from tradewind_operator.desired.groups import (
    AUTOSCALER_LOGS,
    AUTOSCALER_TMP,
    gateway_group,
    head_group,
    pool_groups,
)
from tradewind_operator.desired.metadata import metadata
from tradewind_operator.desired.pods import container_security
from tradewind_operator.desired.volumes import service_account_files
from tradewind_operator.desired.world import ClusterWorld, Manifest
from tradewind_operator.kinds import RAY_CLUSTER

SIZES: Final = ("replicas", "minReplicas", "maxReplicas")
"""Fields of a worker group that change in place, beside its tolerations."""
_IDLE_S: Final = 300
"""A node that nothing runs on goes after this; less, and a model that restarts finds its node gone."""


def ray_cluster(world: ClusterWorld) -> Manifest:
    """The RayCluster that is wanted. Models, routes and tenants change nothing in it."""
    name = names.ray_cluster(world.name, names.short_hash(_identity(world)))
    named = replace(world, ray_cluster=name)
    groups = [gateway_group(named), *pool_groups(named)]
    return {
        "apiVersion": RAY_CLUSTER.api_version,
        "kind": RAY_CLUSTER.kind,
        "metadata": metadata(world, name),
        "spec": {**_head_part(named), "workerGroupSpecs": [_generation(group) for group in groups]},
    }


def _head_part(world: ClusterWorld) -> Manifest:
    """Everything of the spec but the worker groups."""
    spec: Manifest = {
        "rayVersion": world.spec.ray_version,
        "authOptions": {"mode": "token", "secretName": names.auth_secret(world.name)},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": _autoscaler(),
        "headGroupSpec": head_group(world),
    }
    if (redis := world.spec.gcs_fault_tolerance.redis) is not None:
        spec["gcsFaultToleranceOptions"] = redis_options(redis)
    return spec


def _identity(world: ClusterWorld) -> Manifest:
    """What a second RayCluster is needed for. Where the state is kept is named, and not by its volume, which
    bears the name that is made of this."""
    found = _steady_cluster(_head_part(replace(world, ray_cluster=None)))
    storage = world.spec.gcs_fault_tolerance.storage.model_dump(mode="json")
    return {
        **found,
        "state": [world.chosen_backend, storage if world.chosen_backend is Backend.ROCKSDB else None],
    }


def kind_of_group(group: str) -> str:
    """What a worker group is a generation of: `gateway`, or `pool-NAME`."""
    return group.rpartition("-")[0]


def without_tolerations(template: Mapping[str, Any]) -> Manifest:
    """A pod template without what may change in place."""
    spec = {key: value for key, value in template["spec"].items() if key != "tolerations"}
    return {**template, "spec": spec}


def _generation(group: Manifest) -> Manifest:
    """The group under a name of its own, which its Ray nodes bear as a label for Serve to choose by."""
    steady = {key: value for key, value in group.items() if key not in SIZES}
    steady["template"] = without_tolerations(group["template"])
    name = f"{group['groupName']}-{names.short_hash(steady)}"
    return {**group, "groupName": name, "labels": {**(group.get("labels") or {}), names.GROUP_LABEL: name}}


def _steady_cluster(spec: Mapping[str, Any]) -> Manifest:
    steady = copy.deepcopy(dict(spec))
    head = steady["headGroupSpec"]
    head["template"] = without_tolerations(head["template"])
    return steady


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
