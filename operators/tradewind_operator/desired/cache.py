"""Where the pods of a pool keep the weights that they have fetched."""

from __future__ import annotations

from tradewind.api.nodes import CacheSpec
from tradewind_operator.desired import names
from tradewind_operator.desired.metadata import metadata
from tradewind_operator.desired.volumes import Volume
from tradewind_operator.desired.world import ClusterWorld, Manifest


def claim_name(cluster: str, pool: str, cache: CacheSpec) -> str | None:
    """The claim that a pool's pods share: a given one, one that is made, or None (each pod has its own)."""
    if cache.claim is not None:
        return cache.claim
    if _is_shared(cache):
        assert cache.storage_class_name is not None
        return names.cache_claim(cluster, pool, cache.storage_class_name)
    return None


def _is_shared(cache: CacheSpec) -> bool:
    """Whether one claim is made for all pods. More than one node needs ReadWriteMany."""
    return cache.storage_class_name is not None and cache.access_mode == "ReadWriteMany"


def cache_volume(cluster: str, pool: str, cache: CacheSpec) -> Volume:
    """The weights' volume: shared by the pool's pods, or each pod's own."""
    claim = claim_name(cluster, pool, cache)
    if claim is not None:
        source: Manifest = {"persistentVolumeClaim": {"claimName": claim}}
    elif cache.storage_class_name is not None:
        # Not a claim of the pool: a pod's successor starts before it ends, on whatever node, and could never
        # mount what its predecessor still has.
        template = {"spec": _claim_spec(cache, cache.storage_class_name)}
        source = {"ephemeral": {"volumeClaimTemplate": template}}
    else:
        source = {"emptyDir": {"sizeLimit": str(cache.size)}}
    return Volume("cache", names.CACHE_DIR, source)


def cache_claims(world: ClusterWorld) -> list[Manifest]:
    """The claims that pools want made."""
    return [
        _claim(world, name, pool.cache) for name, pool in world.spec.pools_by_name if _is_shared(pool.cache)
    ]


def _claim(world: ClusterWorld, pool: str, cache: CacheSpec) -> Manifest:
    storage_class = cache.storage_class_name or ""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(world, names.cache_claim(world.name, pool, storage_class)),
        "spec": _claim_spec(cache, storage_class),
    }


def _claim_spec(cache: CacheSpec, storage_class: str) -> Manifest:
    return {
        "accessModes": [cache.access_mode],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": str(cache.size)}},
    }
