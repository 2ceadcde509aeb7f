"""What KubeRay 1.7 says about a RayCluster, and Kubernetes about its pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tradewind_operator.desired import names
from tradewind_operator.planning.objects import annotations_of
from tradewind_operator.status.pods import PodSeen, problems_of

_CHAIN: Final = (("ReplicaFailure", "True"), ("HeadPodReady", "False"), ("RayClusterProvisioned", "False"))
"""Conditions that say why a cluster is not there yet, and the status in which they do; the nearest first."""


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

    @classmethod
    def of(cls, cluster: Mapping[str, Any], pods: Iterable[PodSeen] = ()) -> RayClusterState:
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
        )


def _reason(
    status: Mapping[str, Any], conditions: Mapping[Any, Mapping[str, Any]], problems: list[str]
) -> tuple[str, str]:
    if not status:
        return "Starting", "KubeRay has not looked at it yet."
    said = next(
        (found for kind, wrong in _CHAIN if (found := conditions.get(kind) or {}).get("status") == wrong),
        None,
    )
    texts = [str(said.get("message") or said.get("reason") or "")] if said is not None else []
    if status.get("reason"):
        texts.append(str(status["reason"]))
    texts += problems[:3]
    reason = str(said.get("reason") or "Starting") if said is not None else "PodsNotReady" if problems else ""
    return reason, "; ".join(text.rstrip(".") for text in dict.fromkeys(texts) if text)
