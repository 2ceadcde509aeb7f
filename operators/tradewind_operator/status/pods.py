"""Pods of a ServingCluster as the API server tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tradewind_operator.desired import names
from tradewind_operator.desired.raycluster import kind_of_group

_HEAD: Final = "headgroup"
"""KubeRay's name for the head's group."""
_LONGEST: Final = 300
_STARTING: Final = frozenset({"PodInitializing", "ContainerCreating"})
"""Reasons of a waiting container that are the ordinary way up."""


@dataclass(frozen=True, slots=True)
class PodSeen:
    """One pod."""

    name: str
    ray_cluster: str
    group: str
    """Worker group; that of the head is `headgroup`."""
    address: str
    """IP; empty while it has none."""
    ready: bool
    ending: bool
    models: frozenset[str]
    """ModelDeployments that its labels name."""
    problem: str = ""
    """Why it does not run, in Kubernetes' words; empty while nothing is wrong, or nothing is known."""
    started: bool = False
    """Its containers are past their startup probes: Ray runs. A gateway's pod is ready later, when it has a
    replica."""

    @property
    def is_head(self) -> bool:
        return self.group == _HEAD

    @classmethod
    def of(cls, pod: Mapping[str, Any]) -> PodSeen:
        metadata, status = pod["metadata"], pod.get("status") or {}
        labels, prefix = metadata.get("labels") or {}, f"{names.MODEL_LABEL_PREFIX}/"
        conditions = {item.get("type"): item for item in status.get("conditions") or ()}
        return cls(
            name=str(metadata["name"]),
            ray_cluster=str(labels.get(names.RAY_CLUSTER_LABEL) or ""),
            group=str(labels.get(names.RAY_GROUP_LABEL) or ""),
            address=str(status.get("podIP") or ""),
            ready=(conditions.get("Ready") or {}).get("status") == "True",
            ending=bool(metadata.get("deletionTimestamp")),
            models=frozenset(label.removeprefix(prefix) for label in labels if label.startswith(prefix)),
            problem=_problem(status, conditions),
            started=_started(status),
        )


def problems_of(pods: Iterable[PodSeen], ray_cluster: str) -> list[str]:
    """Sentences on the pods of one Ray cluster that do not run; the head's first, each said once."""
    found = [pod for pod in pods if pod.ray_cluster == ray_cluster and pod.problem and not pod.ending]
    ordered = sorted(found, key=lambda pod: (not pod.is_head, pod.group, pod.name))
    return list(dict.fromkeys(f"{_role(pod)} pod: {pod.problem}" for pod in ordered))


def waits_of(pods: Iterable[PodSeen], ray_cluster: str) -> dict[str, str]:
    """Kind of worker group → why none of its pods is ready; empty where one is; absent where none is."""
    found: dict[str, str] = {}
    for pod in pods:
        if pod.ray_cluster != ray_cluster or pod.ending or pod.is_head:
            continue
        kind = kind_of_group(pod.group)
        said = "" if pod.ready else pod.problem or "it starts"
        found[kind] = min(found.get(kind, said), said, key=bool)
    return found


def model_labels(
    pods: Iterable[PodSeen], nodes: Mapping[str, Mapping[str, Iterable[str]]]
) -> dict[str, dict[str, str | None]]:
    """Changes of labels, by pod, after which each pod names the models that have a replica on it.

    Args:
        nodes: RayCluster → ModelDeployment → IP addresses of the nodes that its running replicas are on.
            Pods of a cluster that is not in it keep their labels.
    """
    changes: dict[str, dict[str, str | None]] = {}
    hosts = {cluster: _by_address(by_model) for cluster, by_model in nodes.items()}
    for pod in pods:
        if pod.ray_cluster not in hosts or pod.ending:
            continue
        wanted = hosts[pod.ray_cluster].get(pod.address, frozenset())
        change: dict[str, str | None] = {names.model_label(name): "true" for name in wanted - pod.models}
        change |= {names.model_label(name): None for name in pod.models - wanted}
        if change:
            changes[pod.name] = change
    return changes


def _by_address(by_model: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for model, addresses in by_model.items():
        for address in addresses:
            found.setdefault(address, set()).add(model)
    return {address: frozenset(models) for address, models in found.items()}


def _started(status: Mapping[str, Any]) -> bool:
    containers = status.get("containerStatuses") or ()
    return bool(containers) and all(each.get("started") for each in containers)


def _role(pod: PodSeen) -> str:
    return "head" if pod.is_head else pod.group


def _problem(status: Mapping[str, Any], conditions: Mapping[Any, Mapping[str, Any]]) -> str:
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return _short(scheduled.get("reason") or "Unschedulable", scheduled.get("message"))
    containers = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _STARTING:
            return _short(waiting["reason"], waiting.get("message"))
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("exitCode"):
            return _short(ended.get("reason") or "Error", ended.get("message"))
    return ""


def _short(reason: object, message: object) -> str:
    text = f"{reason}: {message}" if message else str(reason)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
