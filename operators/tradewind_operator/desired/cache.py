"""Where the pods of a pool keep the weights that they have fetched."""

from __future__ import annotations

from tradewind.api.nodes import Pool
from tradewind_operator.desired import names
from tradewind_operator.desired.metadata import metadata
from tradewind_operator.desired.volumes import Volume
from tradewind_operator.desired.world import ClusterWorld, Manifest


def claim_name(cluster: str, pool: Pool) -> str | None:
    """The pool's PersistentVolumeClaim: a given one, one that is made, or None (a directory of the node)."""
    if pool.cache.claim is not None:
        return pool.cache.claim
    if pool.cache.storage_class_name is not None:
        return names.cache_claim(cluster, pool.name, pool.cache.storage_class_name)
    return None


def cache_volume(cluster: str, pool: Pool) -> Volume:
    """The weights' volume: shared by the pool's pods, or each pod's own."""
    claim = claim_name(cluster, pool)
    if claim is None:
        source: Manifest = {"emptyDir": {"sizeLimit": str(pool.cache.size)}}
    else:
        source = {"persistentVolumeClaim": {"claimName": claim}}
    return Volume("cache", names.CACHE_DIR, source)


def cache_claims(world: ClusterWorld) -> list[Manifest]:
    """The claims that pools want made."""
    return [_claim(world, pool) for pool in world.spec.pools if pool.cache.storage_class_name is not None]


def _claim(world: ClusterWorld, pool: Pool) -> Manifest:
    storage_class = pool.cache.storage_class_name or ""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(world, names.cache_claim(world.name, pool.name, storage_class)),
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": str(pool.cache.size)}},
        },
    }
