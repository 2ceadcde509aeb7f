"""Pods that are on their way out: which, from which pool, and whether a successor can start first.

What the hook in the pod hears from Ray's autoscaler (`tradewind.serve.leaving`), status tells from the
group's size and the pods that are there. KubeRay counts a pod until it is gone, so a full group gets none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tradewind_operator.desired import names
from tradewind_operator.desired.raycluster import kind_of_group
from tradewind_operator.status.conditions import listed
from tradewind_operator.status.pods import PodSeen

_POOL: Final = names.pool_group("")


@dataclass(frozen=True, slots=True)
class LeavingGroup:
    """The pods of one group that are on their way out."""

    kind: str
    """`pool-NAME`, `gateway`, or empty for the head."""
    pods: tuple[str, ...]
    models: frozenset[str] = frozenset()
    """ModelDeployments with a replica on one of them."""
    there: int = 0
    """Pods of the group, these among them."""
    most: int = 0
    """Pods that it may have; 0: it is being emptied, or is the head's."""
    pods_come: bool = False
    """Another pod of it is on its way up."""

    @property
    def place(self) -> str:
        """What people call the group."""
        if self.kind.startswith(_POOL):
            return f"pool {self.kind.removeprefix(_POOL)}"
        return "the gateways" if self.kind else "the head"

    @property
    def has_no_room(self) -> bool:
        """A replica must leave, and no other pod of its pool can come."""
        is_full = 0 < self.most <= self.there and not self.pods_come
        return self.kind.startswith(_POOL) and bool(self.models) and is_full


def leaving_of(cluster: Mapping[str, Any], pods: Iterable[PodSeen]) -> tuple[LeavingGroup, ...]:
    """The groups of a RayCluster that pods leave from, by name."""
    groups: dict[str, list[PodSeen]] = {}
    for pod in pods:
        if pod.ray_cluster == cluster["metadata"]["name"]:
            groups.setdefault(pod.group, []).append(pod)
    specs = (cluster.get("spec") or {}).get("workerGroupSpecs") or ()
    sizes = {spec.get("groupName"): int(spec.get("maxReplicas") or 0) for spec in specs}
    return tuple(
        _group(there, sizes.get(name, 0))
        for name, there in sorted(groups.items())
        if any(pod.ending for pod in there)
    )


def _group(there: Sequence[PodSeen], most: int) -> LeavingGroup:
    leaving = [pod for pod in there if pod.ending]
    return LeavingGroup(
        kind="" if there[0].is_head else kind_of_group(there[0].group),
        pods=tuple(sorted(pod.name for pod in leaving)),
        models=frozenset[str]().union(*(pod.models for pod in leaving)),
        there=len(there),
        most=most,
        pods_come=any(not pod.ending and not pod.ready for pod in there),
    )


def leaving_said(groups: Sequence[LeavingGroup], drains: Mapping[str, float]) -> str:
    """Sentences on them; empty without any.

    Args:
        drains: ModelDeployment → its `drain.timeout` in seconds.
    """
    if not groups:
        return ""
    which = "; ".join(f"{listed(group.pods)} of {group.place}" for group in groups)
    said = [f"On their way out: {which}. Answers that have begun end first."]
    said += [_no_room(group, drains) for group in groups if group.has_no_room]
    if any(group.models and not group.has_no_room for group in groups):
        said.append("Where its pool has room, a replica waits for its successor.")
    return " ".join(said)


def _no_room(group: LeavingGroup, drains: Mapping[str, float]) -> str:
    models, count = listed(sorted(group.models)), len(group.pods)
    gone = f"{group.pods[0]} is gone" if count == 1 else f"those {count} are gone"
    others = group.there - count
    what = (
        f"a successor of {models} that fits on none of its other pods cannot start before {gone}"
        if others
        else f"no successor of {models} can start before {gone}"
    )
    known = [drains[model] for model in group.models if model in drains]
    bound = f"{max(known):g} s, the drain.timeout" if known else "the drain.timeout of its model"
    return (
        f"{group.place.capitalize()} is full (pods: {group.there}, maxNodes: {group.most}): {what}. "
        f"Without a successor a replica soon takes nothing new, and ends what it has within {bound}."
    )
