"""Where Ray's state is kept: on a volume of the head, in Redis, or nowhere.

KubeRay 1.7 can make the volume itself (`gcsFaultToleranceOptions.backend: rocksdb`), but only behind a
feature gate that is off by default, and with it off it refuses the whole RayCluster. What it does is little:
two variables, a claim and its mount. So the operator does it, with whatever KubeRay is there.

RocksDB has one writer, which its lock file sees to. Each Ray cluster therefore has a claim of its own, and a
new head gets it when the old one is gone, which KubeRay waits for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tradewind.api.fault_tolerance import GcsFaultTolerance, GcsRedis
from tradewind.api.secrets import SecretKeyRef
from tradewind_operator.desired import names
from tradewind_operator.desired.backend import Backend
from tradewind_operator.desired.volumes import Volume
from tradewind_operator.desired.world import Manifest

_STORAGE_VARIABLE: Final = "RAY_gcs_storage"
_ROCKSDB: Final = "rocksdb"


def backend_in(spec: Mapping[str, Any]) -> Backend:
    """The backend of a RayCluster, by its spec."""
    if redis_in(spec) is not None:
        return Backend.REDIS
    container = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
    variables = {variable["name"]: variable.get("value") for variable in container.get("env") or ()}
    return Backend.ROCKSDB if variables.get(_STORAGE_VARIABLE) == _ROCKSDB else Backend.NONE


def redis_in(spec: Mapping[str, Any]) -> str | None:
    """Address of the Redis that a RayCluster uses. KubeRay clears it before the RayCluster is gone."""
    found: str | None = (spec.get("gcsFaultToleranceOptions") or {}).get("redisAddress")
    return found


def gcs_environment(backend: Backend) -> dict[str, str]:
    """Variables of the head."""
    if backend is not Backend.ROCKSDB:
        return {}
    return {_STORAGE_VARIABLE: _ROCKSDB, "RAY_gcs_storage_path": names.GCS_DIR}


def gcs_volume(ray_cluster: str) -> Volume:
    """The head's volume for RocksDB."""
    claim = {"claimName": names.gcs_claim(ray_cluster)}
    return Volume("gcs", names.GCS_DIR, {"persistentVolumeClaim": claim})


def gcs_claim(about: Manifest, wanted: GcsFaultTolerance) -> Manifest:
    """The claim behind it.

    Args:
        about: its metadata.
    """
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(wanted.storage.size)}},
    }
    if wanted.storage.storage_class_name is not None:
        spec["storageClassName"] = wanted.storage.storage_class_name
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": about, "spec": spec}


def redis_options(redis: GcsRedis) -> Manifest:
    """`gcsFaultToleranceOptions` of a RayCluster with Redis."""
    options: Manifest = {"redisAddress": redis.address}
    if redis.username is not None:
        options["redisUsername"] = _from_secret(redis.username)
    if redis.password is not None:
        options["redisPassword"] = _from_secret(redis.password)
    return options


def _from_secret(reference: SecretKeyRef) -> Manifest:
    return {"valueFrom": {"secretKeyRef": {"name": reference.name, "key": reference.key}}}
