"""Which of its three places Ray's state is kept in: the decision alone."""

from __future__ import annotations

from enum import StrEnum

from tradewind.api.fault_tolerance import GcsFaultTolerance


class Backend(StrEnum):
    """What keeps Ray's state."""

    ROCKSDB = "rocksdb"
    REDIS = "redis"
    NONE = "none"


def backend_of(
    wanted: GcsFaultTolerance, *, storage_class_exists: bool, running: Backend | None = None
) -> Backend:
    """The backend that a Ray cluster gets.

    Args:
        storage_class_exists: whether a StorageClass of the Kubernetes cluster is the default.
        running: that of the Ray cluster there is. `auto` keeps it: a StorageClass that comes or goes must not
            make a second Ray cluster. Redis is not kept, for its address is in the spec no more.
    """
    if wanted.backend != "auto":
        return Backend(wanted.backend)
    if running in (Backend.ROCKSDB, Backend.NONE):
        return running
    named = wanted.storage.storage_class_name is not None
    return Backend.ROCKSDB if storage_class_exists or named else Backend.NONE
