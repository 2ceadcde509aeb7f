"""Worker groups of a RayCluster that runs: new generations are added, emptied ones go. Pure.

What KubeRay 1.7 and Ray's autoscaler do with a group that changes decides the order:

- KubeRay no longer visits a group that has left the spec, and the autoscaler fails as a whole on a pod of a
  group that it does not know. So a group leaves the spec only when it has no pod.
- Pods above a group's size are deleted by the autoscaler alone, and at once when `maxReplicas` sinks: it
  ends Ray in them, with all that runs there, before their hooks know of it. So a group is scaled to zero only
  when no application is placed on it and no replica is on its pods, not even one that ends its streams.
- For the same reason a smaller `maxReplicas` holds no fewer pods than have a replica now: the surplus goes as
  the replicas do.
- A gateway's pod has callers as long as it is one of the endpoint's, with a replica or without. Its group is
  emptied by `workersToDelete`: KubeRay deletes those pods as a person would, and they leave by their hooks.
- `suspend` is refused beside an autoscaler.
- `replicas` and `scaleStrategy` are the autoscaler's: they are carried over as they are. It writes them by
  position, so the whole list is written with the resourceVersion that was read.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tradewind_operator.desired import names
from tradewind_operator.desired.raycluster import kind_of_group, without_tolerations
from tradewind_operator.desired.world import Manifest
from tradewind_operator.planning.objects import contains

_EMPTY: Final = {"minReplicas": 0, "maxReplicas": 0}
_UNWANTED: Final = {"minReplicas": 0, "replicas": 0}


@dataclass(frozen=True, slots=True)
class Used:
    """What is known of who uses the groups of one RayCluster."""

    placed: Collection[str] | None = None
    """Groups that some application is placed on; None: Serve did not say."""
    inhabited: Mapping[str, Collection[str]] | None = None
    """Group → its pods that are not ending, also where all are; None: not known."""
    occupied: Mapping[str, int] | None = None
    """Group → how many of its pods have a replica; None: not known."""


def groups_of(cluster: Mapping[str, Any]) -> list[Manifest]:
    """Worker groups of a RayCluster."""
    return list(cluster["spec"].get("workerGroupSpecs") or ())


def group_names(cluster: Mapping[str, Any]) -> list[str]:
    """Names of its worker groups, the older first."""
    return [str(group["groupName"]) for group in groups_of(cluster)]


def same_ray(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether pods of the one could join the other: one version of Ray, one format of configuration."""
    return there["spec"].get("rayVersion") == wanted["spec"].get("rayVersion") and config_format(
        there
    ) == config_format(wanted)


def config_format(cluster: Mapping[str, Any]) -> str | None:
    """The format of Serve configuration that a RayCluster's images read."""
    metadata = cluster["spec"]["headGroupSpec"]["template"].get("metadata") or {}
    found: str | None = (metadata.get("annotations") or {}).get(names.CONFIG_FORMAT_ANNOTATION)
    return found


def generation_of(kind: str, there: Sequence[str], wanted: Iterable[str]) -> str | None:
    """The group that applications of a kind belong on, in a cluster that has the groups `there`.

    The one that is wanted, or the newest that there is, in a cluster that cannot have that one.
    """
    goal = next((name for name in wanted if kind_of_group(name) == kind), None)
    if goal in there:
        return goal
    return next((name for name in reversed(there) if kind_of_group(name) == kind), None)


def merged_groups(there: Manifest, wanted: Manifest, used: Used, *, stays: bool = True) -> list[Manifest]:
    """The worker groups that a running RayCluster is to have now.

    Args:
        there: the RayCluster as it is.
        wanted: the RayCluster of now; the same one or, while a change is held, another.
        stays: whether it is not about to be replaced. One that is gets no new groups: its successor has them,
            and both together might find no room.
    """
    goals = {group["groupName"]: group for group in groups_of(wanted)}
    kept = []
    for group in groups_of(there):
        name = group["groupName"]
        if name in goals:
            kept.append(_resized(group, goals[name], used))
        elif _is_used(name, used) or not _has_successor(name, there, goals):
            kept.append(group)
        elif not (_is_empty(group) and used.inhabited is not None and name not in used.inhabited):
            kept.append(_emptied(group, (used.inhabited or {}).get(name, ())))
    known = {group["groupName"] for group in kept}
    if not (stays and same_ray(there, wanted)):
        return kept
    return kept + [group for name, group in goals.items() if name not in known]


def patch_of(there: Manifest, wanted: Manifest, used: Used, *, stays: bool = True) -> Manifest | None:
    """JSON merge patch that brings a running RayCluster as far as it may go; None: nothing to do.

    See `merged_groups`.
    """
    groups = merged_groups(there, wanted, used, stays=stays)
    spec: Manifest = {}
    if not contains(groups_of(there), groups) or _tolerations(groups) != _tolerations(groups_of(there)):
        spec["workerGroupSpecs"] = groups
    head, goal = (each["spec"]["headGroupSpec"] for each in (there, wanted))
    if there["metadata"]["name"] == wanted["metadata"]["name"] and _tolerations([head]) != _tolerations(
        [goal]
    ):
        spec["headGroupSpec"] = {"template": {"spec": {"tolerations": _tolerations([goal])[0]}}}
    if not spec:
        return None
    return {"metadata": {"resourceVersion": there["metadata"]["resourceVersion"]}, "spec": spec}


def _has_successor(name: str, there: Manifest, goals: Mapping[str, Manifest]) -> bool:
    """Whether the group may go: another generation of its pool is wanted and there, or the pool is gone."""
    kind, present = kind_of_group(name), group_names(there)
    later = [goal for goal in goals if kind_of_group(goal) == kind]
    return not later or later[0] in present


def _resized(group: Manifest, goal: Manifest, used: Used) -> Manifest:
    """With the sizes and tolerations of now. `replicas` stays: KubeRay holds it within the bounds."""
    template = without_tolerations(group["template"])
    if tolerations := goal["template"]["spec"].get("tolerations"):
        template = {**template, "spec": {**template["spec"], "tolerations": tolerations}}
    sizes = {"minReplicas": goal["minReplicas"], "maxReplicas": _most(group, goal, used)}
    return {**group, **sizes, "template": template}


def _most(group: Manifest, goal: Manifest, used: Used) -> int:
    """`maxReplicas` of now: what is wanted, or what it is, down to as many as replicas are on."""
    wanted, there = int(goal["maxReplicas"]), int(group.get("maxReplicas", 0))
    if wanted >= there or _is_gateways(group):
        return wanted
    if used.occupied is None:
        return there
    hosts = int(group.get("numOfHosts") or 1)
    return max(wanted, min(there, math.ceil(used.occupied.get(group["groupName"], 0) / hosts)))


def _is_used(name: str, used: Used) -> bool:
    return used.placed is None or name in used.placed or name in (used.occupied or ())


def _is_empty(group: Mapping[str, Any]) -> bool:
    sizes = _UNWANTED if _is_gateways(group) else _EMPTY
    return all(group.get(key, 0) == size for key, size in sizes.items())


def _emptied(group: Manifest, pods: Collection[str]) -> Manifest:
    if not _is_gateways(group):
        return {**group, **_EMPTY}
    return {**group, **_UNWANTED, "scaleStrategy": {"workersToDelete": sorted(pods)}}


def _is_gateways(group: Mapping[str, Any]) -> bool:
    return kind_of_group(group["groupName"]) == names.GATEWAY_GROUP


def _tolerations(groups: Iterable[Mapping[str, Any]]) -> list[list[Manifest]]:
    return [group["template"]["spec"].get("tolerations") or [] for group in groups]
