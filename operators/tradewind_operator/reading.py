"""Reads what a reconcile decides by: the custom resources of a namespace, and what a cluster owns."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final

from tradewind_operator.api_server import ApiServer, Object
from tradewind_operator.desired import names
from tradewind_operator.desired.metadata import is_ours, own_marks
from tradewind_operator.errors import Forbidden, NotFound, NotServed
from tradewind_operator.kinds import (
    CUSTOM,
    OWNED,
    POD,
    RAY_CLUSTER,
    RAY_SERVICE,
    STORAGE_CLASS,
    Resource,
)
from tradewind_operator.planning.objects import ObjectRef, Observed
from tradewind_operator.policy.namespace import Documents
from tradewind_operator.status.pods import PodSeen

_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"


async def read_documents(
    api: ApiServer, namespace: str, kinds: Collection[Resource] = CUSTOM, known: Documents | None = None
) -> Documents:
    """The custom resources of a namespace: those of `kinds` are listed, the others are as they are `known`.

    Raises ApiError.
    """
    wanted = [kind for kind in CUSTOM if known is None or kind in kinds]
    lists = await asyncio.gather(*(api.list(kind, namespace) for kind in wanted))
    found: dict[str, Any] = {kind.kind: tuple(items) for kind, items in zip(wanted, lists, strict=True)}
    return Documents(namespace, {**(known.by_kind if known is not None else {}), **found})


async def read_owned(api: ApiServer, namespace: str, cluster: str) -> Observed:
    """Everything that belongs to a ServingCluster and is found by its labels. Raises ApiError."""
    lists = await asyncio.gather(*(_list(api, kind, namespace, cluster) for kind in OWNED))
    return {ObjectRef.of(found): found for part in lists for found in part}


async def read_ray_clusters(api: ApiServer, namespace: str, cluster: str) -> Observed:
    """Its RayClusters. Raises ApiError."""
    return {ObjectRef.of(found): found for found in await _list(api, RAY_CLUSTER, namespace, cluster)}


async def read_pods(api: ApiServer, namespace: str, cluster: str) -> tuple[PodSeen, ...]:
    """The pods of all its RayClusters. Raises ApiError."""
    return tuple(map(PodSeen.of, await api.list(POD, namespace, f"{names.CLUSTER_LABEL}={cluster}")))


async def read_earlier(api: ApiServer, namespace: str, cluster: str) -> str | None:
    """Name of the RayService that an earlier release made for this ServingCluster, if it is there."""
    try:
        found = await api.get(RAY_SERVICE, namespace, cluster)
    except (NotFound, NotServed):
        return None
    return cluster if is_ours(found, cluster) else None


async def read_storage_class(api: ApiServer) -> bool:
    """Whether a StorageClass is the default. No, where the operator may not ask. Raises ApiError."""
    try:
        found = await api.list(STORAGE_CLASS, "")
    except Forbidden:
        return False
    return any((item["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true" for item in found)


async def _list(api: ApiServer, kind: Resource, namespace: str, cluster: str) -> list[Object]:
    selector = ",".join(f"{label}={value}" for label, value in own_marks(cluster).items())
    return await api.list(kind, namespace, selector)
