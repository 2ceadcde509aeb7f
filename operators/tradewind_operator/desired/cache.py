"""Where the pods of a pool keep the weights that they have fetched."""

from __future__ import annotations

from tradewind.api.nodes import CacheSpec
from tradewind_operator.desired import names
from tradewind_operator.desired.metadata import metadata
from tradewind_operator.desired.volumes import Volume
from tradewind_operator.desired.world import ClusterWorld, Manifest


def claim_name(cluster: str, pool: str, cache: CacheSpec) -> str | None:
    """A pool's PersistentVolumeClaim: a given one, one that is made, or None (a directory of the node)."""
    if cache.claim is not None:
        return cache.claim
    if cache.storage_class_name is not None:
        return names.cache_claim(cluster, pool, cache.storage_class_name)
    return None


def cache_volume(cluster: str, pool: str, cache: CacheSpec) -> Volume:
    """The weights' volume: shared by the pool's pods, or each pod's own."""
    claim = claim_name(cluster, pool, cache)
    if claim is None:
        source: Manifest = {"emptyDir": {"sizeLimit": str(cache.size)}}
    else:
        source = {"persistentVolumeClaim": {"claimName": claim}}
    return Volume("cache", names.CACHE_DIR, source)


def cache_claims(world: ClusterWorld) -> list[Manifest]:
    """The claims that pools want made."""
    return [
        _claim(world, name, pool.cache)
        for name, pool in world.spec.pools_by_name
        if pool.cache.storage_class_name is not None
    ]


def _claim(world: ClusterWorld, pool: str, cache: CacheSpec) -> Manifest:
    storage_class = cache.storage_class_name or ""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(world, names.cache_claim(world.name, pool, storage_class)),
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": str(cache.size)}},
        },
    }
