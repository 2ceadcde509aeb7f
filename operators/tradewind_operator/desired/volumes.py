"""Volumes of the pods: scratch space beside the read-only root, Secrets as files, shared memory, weights."""

from __future__ import annotations

from dataclasses import dataclass

from tradewind.api.nodes import CacheSpec
from tradewind.api.values import Quantity
from tradewind.compiler.secret_names import TOKENS_DIR
from tradewind_operator.desired import names
from tradewind_operator.desired.metadata import metadata
from tradewind_operator.desired.world import ClusterWorld, Manifest

_SCRATCH = Quantity(2**30)
SERVICE_ACCOUNT_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"
READ_BY_GROUP = 0o440
"""Mode of mounted Secrets and ConfigMaps; the pod's fsGroup is their group."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of a pod and where its Ray container mounts it."""

    name: str
    path: str
    source: Manifest
    read_only: bool = False
    sub_path: str | None = None
    needs: Quantity | None = None
    """Of an emptyDir on disk: what a pod is sure to need of it. None: all of its size."""

    def volume(self) -> Manifest:
        """Entry of `spec.volumes`."""
        return {"name": self.name, **self.source}

    def disk(self) -> tuple[int, int]:
        """Bytes of the node's disk that are set aside for it, and that it may grow to."""
        room: Manifest | None = self.source.get("emptyDir")
        if room is None or room.get("medium") is not None:
            return 0, 0
        size = Quantity.parse(room["sizeLimit"])
        return min(size, size if self.needs is None else self.needs), size

    def mount(self) -> Manifest:
        """Entry of a container's `volumeMounts`."""
        place: Manifest = {"name": self.name, "mountPath": self.path}
        if self.sub_path is not None:
            place["subPath"] = self.sub_path
        return {**place, "readOnly": True} if self.read_only else place


def scratch(name: str, path: str, size: str) -> Volume:
    """Disk space that is gone with the pod; a pod that writes more than `size` is evicted.

    Little of it is used but when something goes wrong, so little is set aside.
    """
    return Volume(name, path, {"emptyDir": {"sizeLimit": size}}, needs=_SCRATCH)


def shared_memory(size: Quantity) -> Volume:
    """Memory for processes to share. KubeRay's own would be as large as the pod's whole memory."""
    return Volume("shared-mem", "/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": str(size)}})  # noqa: S108


def working_space() -> tuple[Volume, ...]:
    """What every Ray container writes to: logs and spilled objects, compiled kernels, what a hook tells."""
    return (
        scratch("tmp", "/tmp", "16Gi"),  # noqa: S108 - a volume
        scratch("home", names.HOME_DIR, "16Gi"),
        scratch("run", names.RUN_DIR, "64Mi"),
    )


def auth_files(cluster: str, *keys: str) -> Volume:
    """These keys of the cluster's own Secret, and no others."""
    items = [{"key": key, "path": key} for key in keys]
    secret = {"secretName": names.auth_secret(cluster), "defaultMode": READ_BY_GROUP, "items": items}
    return Volume("auth", names.AUTH_DIR, {"secret": secret}, read_only=True)


def token_files(cluster: str) -> Volume:
    """Hub tokens, one file each. Always mounted, so that a first token needs no new pod."""
    secret = {"secretName": names.tokens_secret(cluster), "defaultMode": READ_BY_GROUP, "optional": True}
    return Volume("tokens", TOKENS_DIR, {"secret": secret}, read_only=True)


def service_account_files() -> Volume:
    """What Kubernetes mounts where a ServiceAccount's token is wanted, for one container instead of all."""
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    projected = {"defaultMode": READ_BY_GROUP, "sources": sources}
    return Volume("autoscaler-token", SERVICE_ACCOUNT_DIR, {"projected": projected}, read_only=True)


def _claim_name(cluster: str, pool: str, cache: CacheSpec) -> str | None:
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
    claim = _claim_name(cluster, pool, cache)
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
