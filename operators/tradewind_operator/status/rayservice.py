"""What a RayService says about itself, as KubeRay 1.7 writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tradewind.rayapi.app_status import AppStatus, parse_kuberay_status


def ray_cluster_names(rayservice: Mapping[str, Any]) -> list[str]:
    """RayClusters that it has or is about to have: the one that serves, then the one that is made."""
    status = rayservice.get("status") or {}
    parts = (status.get("activeServiceStatus") or {}, status.get("pendingServiceStatus") or {})
    return list(dict.fromkeys(name for part in parts if (name := part.get("rayClusterName"))))


def is_current(rayservice: Mapping[str, Any]) -> bool:
    """KubeRay has seen the last change of the spec."""
    seen = (rayservice.get("status") or {}).get("observedGeneration") or 0
    return int(seen) >= int(rayservice["metadata"].get("generation") or 1)


@dataclass(frozen=True, slots=True)
class RayServiceState:
    """A RayService, read once."""

    ready: bool
    """KubeRay's condition Ready: some pod serves."""
    reason: str
    """Of that condition."""
    message: str
    current: bool
    """KubeRay has seen the last change of the spec."""
    upgrading: bool
    """A second Ray cluster is on its way."""
    active: str | None
    """Name of the RayCluster that serves."""
    pending: str | None
    service_status: str | None
    apps: Mapping[str, AppStatus]
    """Serve's applications in the active cluster or, before there is one, in the pending one. No counts."""

    @classmethod
    def of(cls, rayservice: Mapping[str, Any]) -> RayServiceState:
        status = rayservice.get("status") or {}
        conditions = {condition.get("type"): condition for condition in status.get("conditions") or ()}
        ready = conditions.get("Ready") or {}
        active = status.get("activeServiceStatus") or {}
        pending = status.get("pendingServiceStatus") or {}
        serving = active if active.get("rayClusterName") else pending
        return cls(
            ready=ready.get("status") == "True",
            reason=str(ready.get("reason") or ""),
            message=str(ready.get("message") or ""),
            current=is_current(rayservice),
            upgrading=(conditions.get("UpgradeInProgress") or {}).get("status") == "True",
            active=active.get("rayClusterName") or None,
            pending=pending.get("rayClusterName") or None,
            service_status=status.get("serviceStatus") or None,
            apps=parse_kuberay_status(serving),
        )
