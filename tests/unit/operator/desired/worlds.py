"""Worlds of the operator from the builders of the api's tests."""

from __future__ import annotations

from typing import Any

from tests.golden.operator.rendering import world_of
from tests.unit.api.builders import Data, cluster, model, route, tenant
from tests.unit.compiler.worlds import text
from tradewind_operator.desired.raycluster import kind_of_group, ray_cluster
from tradewind_operator.desired.world import ClusterWorld, Manifest
from tradewind_operator.planning.objects import ObjectRef

CPU_POOL = {"cpus": 4, "memory": "8Gi", "maxNodes": 2}
GPU_POOL = {"gpus": 1, "cpus": 8, "memory": "32Gi", "maxNodes": 4}
KEYS = [{"secret": {"name": "acme", "key": "key"}}]


def world(*resources: Data, **spec: Any) -> ClusterWorld:
    """A ServingCluster `default` with a CPU pool, unless the spec says otherwise, and what is put on it."""
    return world_of(text(cluster(**{"pools": {"cpu": CPU_POOL}, **spec}), *resources))


def busy(weight: int = 80, **spec: Any) -> ClusterWorld:
    """Two models, a route between them and a tenant."""
    variants = [
        {"name": "control", "deployment": "llama", "weight": weight},
        {"name": "candidate", "deployment": "mistral", "weight": 100 - weight},
    ]
    return world(model("llama"), model("mistral"), route(variants=variants), tenant(keys=KEYS), **spec)


def config_of(found: ClusterWorld) -> Manifest:
    """The spec of its RayCluster."""
    spec: Manifest = ray_cluster(found)["spec"]
    return spec


def group_of(found: ClusterWorld, kind: str) -> Manifest:
    """The worker group of a kind."""
    groups = config_of(found)["workerGroupSpecs"]
    (group,) = (group for group in groups if kind_of_group(group["groupName"]) == kind)
    return dict(group)


def pod_of(found: ClusterWorld, name: str) -> Manifest:
    """The pod spec of a worker group, or of the `head`."""
    group = config_of(found)["headGroupSpec"] if name == "head" else group_of(found, name)
    spec: Manifest = group["template"]["spec"]
    return spec


def observed(*manifests: Manifest) -> dict[ObjectRef, Manifest]:
    return {ObjectRef.of(manifest): manifest for manifest in manifests}
