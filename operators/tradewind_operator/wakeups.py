"""Which reconciles an event wakes: what changed, and which ServingClusters must be looked at because of it.

Pure state, used in one event loop. An object is told by a digest of what people (or KubeRay) change in it,
so that the operator's own writes of status and finalizers ask for nothing; but for what was accepted of a
tenant, which one cluster of its namespace writes and the others go by. What slips through is caught by the
resync.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from tradewind_operator.kinds import MODEL_DEPLOYMENT, RAY_CLUSTER, SERVING_CLUSTER, TENANT, Resource

DEFAULT_CLUSTER: Final = "default"
CLUSTER_LABEL: Final = "tradewind.dev/cluster"
_VOLATILE: Final = frozenset({"lastUpdateTime", "lastTransitionTime", "stateTransitionTimes"})
"""Fields of a RayCluster's status that change when nothing else does."""


class ClusterKey(NamedTuple):
    """What one reconcile is about."""

    namespace: str
    cluster: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.cluster}"


class Wakeups:
    """Remembers what was seen, and which clusters each namespace has."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._homes: dict[str, set[str]] = {}

    def seen(self, kind: Resource, change: str | None, body: Mapping[str, Any]) -> list[ClusterKey]:
        """Keys to reconcile because of an event; none where nothing changed that matters."""
        metadata = body["metadata"]
        uid, namespace = str(metadata.get("uid")), str(metadata.get("namespace"))
        if change == "DELETED":
            self._seen.pop(uid, None)
        else:
            shared = kind == TENANT and len(self._homes.get(namespace, ())) > 1
            digest = hash(_content(kind, body) + (_accepted(body) if shared else ""))
            if self._seen.get(uid) == digest:
                return []
            self._seen[uid] = digest
        if kind == RAY_CLUSTER:
            labels = metadata.get("labels") or {}
            return [ClusterKey(namespace, str(labels.get(CLUSTER_LABEL) or metadata["name"]))]
        homes = self._homes.setdefault(namespace, set())
        if kind == SERVING_CLUSTER:
            homes.add(str(metadata["name"]))
        elif kind == MODEL_DEPLOYMENT:
            homes.add(_named_cluster(body))
        # A route or tenant may refer to models anywhere in its namespace, and most have one cluster.
        return [ClusterKey(namespace, name) for name in sorted(homes or {DEFAULT_CLUSTER})]

    def know(self, namespace: str, clusters: Iterable[str]) -> list[ClusterKey]:
        """The namespace has exactly these clusters, missing ones that are spoken of included.

        Returns those that were not known.
        """
        before, now = self._homes.get(namespace, set()), set(clusters)
        self._homes[namespace] = now
        return [ClusterKey(namespace, name) for name in sorted(now - before)]

    def keys(self) -> list[ClusterKey]:
        """Everything that is known."""
        return [
            ClusterKey(namespace, name) for namespace, names in self._homes.items() for name in sorted(names)
        ]


def _content(kind: Resource, body: Mapping[str, Any]) -> str:
    metadata = body["metadata"]
    if kind == RAY_CLUSTER:
        told: Any = [metadata.get("deletionTimestamp"), _steady(body.get("status"))]
    else:
        fields = ("deletionTimestamp", "labels", "annotations")
        generation = metadata.get("generation", metadata.get("resourceVersion"))
        told = [generation, *(metadata.get(field) for field in fields)]
    return json.dumps(told, sort_keys=True)


def _accepted(body: Mapping[str, Any]) -> str:
    """What another cluster than the one that wrote it cannot know: which spec was taken last."""
    return json.dumps((body.get("status") or {}).get("accepted"), sort_keys=True)


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if key not in _VOLATILE}
    return [_steady(item) for item in value] if isinstance(value, list) else value


def _named_cluster(body: Mapping[str, Any]) -> str:
    spec = body.get("spec")
    named = spec.get("cluster") if isinstance(spec, Mapping) else None
    return named if isinstance(named, str) else DEFAULT_CLUSTER
