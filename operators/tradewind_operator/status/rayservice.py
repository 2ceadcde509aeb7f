"""What a RayService says about itself, as KubeRay 1.7 writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tradewind.api.app_status import AppStatus, parse_kuberay_status


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
        generation = int(rayservice["metadata"].get("generation") or 1)
        return cls(
            ready=ready.get("status") == "True",
            reason=str(ready.get("reason") or ""),
            message=str(ready.get("message") or ""),
            current=int(status.get("observedGeneration") or 0) >= generation,
            upgrading=(conditions.get("UpgradeInProgress") or {}).get("status") == "True",
            active=active.get("rayClusterName") or None,
            pending=pending.get("rayClusterName") or None,
            service_status=status.get("serviceStatus") or None,
            apps=parse_kuberay_status(serving),
        )
