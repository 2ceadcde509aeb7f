"""Reads what a reconcile decides by: the custom resources of a namespace, and what a cluster owns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final

from tradewind_operator.api import Api, Object
from tradewind_operator.desired.metadata import is_ours, own_marks
from tradewind_operator.errors import NotFound, NotServed
from tradewind_operator.kinds import (
    CUSTOM,
    DISRUPTION_BUDGET,
    OWNED,
    RAY_CLUSTER,
    RAY_SERVICE,
    Resource,
)
from tradewind_operator.plan import ObjectRef
from tradewind_operator.policy.namespace import Documents
from tradewind_operator.status.rayservice import ray_cluster_names

logger = logging.getLogger(__name__)

_FIELDS: Final = dict(zip(CUSTOM, ("clusters", "deployments", "routes", "tenants"), strict=True))

Observed = dict[ObjectRef, Object]


async def read_documents(
    api: Api, namespace: str, kinds: Collection[Resource] = CUSTOM, known: Documents | None = None
) -> Documents:
    """The custom resources of a namespace: those of `kinds` are listed, the others are as they are `known`.

    Raises ApiError.
    """
    wanted = [kind for kind in CUSTOM if known is None or kind in kinds]
    lists = await asyncio.gather(*(api.list(kind, namespace) for kind in wanted))
    found: dict[str, Any] = {_FIELDS[kind]: tuple(items) for kind, items in zip(wanted, lists, strict=True)}
    return replace(known or Documents(namespace), **found)


async def read_owned(api: Api, namespace: str, cluster: str) -> Observed:
    """Everything that belongs to a ServingCluster, its RayClusters included. Raises ApiError."""
    lists = await asyncio.gather(*(_list(api, kind, namespace, cluster) for kind in OWNED))
    observed = {ObjectRef.of(found): found for part in lists for found in part}
    return observed | await read_ray_clusters(api, observed.get(service_ref(namespace, cluster)))


async def read_service(api: Api, namespace: str, cluster: str) -> Object | None:
    """The RayService; None where there is none of ours. Raises ApiError."""
    try:
        found = await api.get(RAY_SERVICE, namespace, cluster)
    except NotFound:
        return None
    return found if is_ours(found, cluster) else None


async def read_ray_clusters(api: Api, service: Object | None) -> Observed:
    """The RayClusters that a RayService's status names. Raises ApiError."""
    found: Observed = {}
    for name in ray_cluster_names(service or {}):
        assert service is not None
        try:
            cluster = await api.get(RAY_CLUSTER, service["metadata"]["namespace"], name)
        except NotFound:
            continue
        found[ObjectRef.of(cluster)] = cluster
    return found


def service_ref(namespace: str, cluster: str) -> ObjectRef:
    """Which object the RayService of a ServingCluster is."""
    return ObjectRef(RAY_SERVICE.api_version, RAY_SERVICE.kind, namespace, cluster)


async def _list(api: Api, kind: Resource, namespace: str, cluster: str) -> list[Object]:
    try:
        selector = ",".join(f"{label}={value}" for label, value in own_marks(cluster).items())
        return await api.list(kind, namespace, selector)
    except NotServed:
        if kind != DISRUPTION_BUDGET:
            raise
        return []  # policy/v1 came with Kubernetes 1.21
