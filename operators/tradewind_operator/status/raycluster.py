"""What KubeRay says about a RayCluster, and Kubernetes about its pods."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tradewind_operator.desired import names
from tradewind_operator.planning.objects import annotations_of
from tradewind_operator.status.leaving import LeavingGroup, leaving_of
from tradewind_operator.status.pods import PodSeen, problems_of, waits_of

_CHAIN: Final = (("ReplicaFailure", "True"), ("HeadPodReady", "False"), ("RayClusterProvisioned", "False"))
"""Conditions that say why a cluster is not there yet, and the status in which they do; the nearest first."""


_UNKNOWN: Final = "Unknown"
"""KubeRay's word for a condition that it has not looked at."""
_EMPTY_END: Final = re.compile(r"; [\w-]+:\s*$")
"""It ends with the name of a container that has said nothing."""


@dataclass(frozen=True, slots=True)
class RayClusterState:
    """A RayCluster, read once."""

    name: str
    head_ready: bool
    """KubeRay's condition HeadPodReady."""
    configured: bool
    """Serve was given applications there, or may have been."""
    served: bool
    """It has served the endpoint."""
    reason: str
    """Why it is not as it should be, in one word; empty while it is."""
    why: str
    """The same in sentences."""
    waits: Mapping[str, str] = field(default_factory=dict)
    """Kind of worker group → why none of its pods is ready; empty where one is."""
    leaving: tuple[LeavingGroup, ...] = ()
    """Its groups that pods are on their way out of."""

    @classmethod
    def of(cls, cluster: Mapping[str, Any], pods: Sequence[PodSeen] = ()) -> RayClusterState:
        status, annotations = cluster.get("status") or {}, annotations_of(cluster)
        conditions = {item.get("type"): item for item in status.get("conditions") or ()}
        name = str(cluster["metadata"]["name"])
        reason, why = _reason(status, conditions, problems_of(pods, name))
        return cls(
            name=name,
            head_ready=(conditions.get("HeadPodReady") or {}).get("status") == "True",
            configured=names.CONFIGURED_ANNOTATION in annotations,
            served=names.SERVED_ANNOTATION in annotations,
            reason=reason,
            why=why,
            waits=waits_of(pods, name),
            leaving=leaving_of(cluster, pods),
        )


def _reason(
    status: Mapping[str, Any], conditions: Mapping[Any, Mapping[str, Any]], problems: list[str]
) -> tuple[str, str]:
    if not status:
        return "Starting", "KubeRay has not looked at it yet"
    said = next(
        (found for kind, wrong in _CHAIN if (found := conditions.get(kind) or {}).get("status") == wrong),
        None,
    )
    texts = [str(said.get("message") or said.get("reason") or "")] if said is not None else []
    texts = ["KubeRay does not know yet" if text == _UNKNOWN else _EMPTY_END.sub("", text) for text in texts]
    if status.get("reason"):
        texts.append(str(status["reason"]))
    texts += problems[:3]
    reason = str(said.get("reason") or "Starting") if said is not None else "PodsNotReady" if problems else ""
    return reason, "; ".join(text.rstrip(".") for text in dict.fromkeys(texts) if text)
