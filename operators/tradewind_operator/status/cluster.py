"""The status of a ServingCluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tradewind.rayapi.app_status import AppStatus
from tradewind_operator.policy.cluster import DELETE_MODELS
from tradewind_operator.policy.decision import Deletion
from tradewind_operator.policy.namespace import Entry
from tradewind_operator.status.conditions import (
    ACCEPTED,
    CLUSTER_UPGRADE,
    FALSE,
    READY,
    TRUE,
    Check,
    Said,
    Status,
    accepted,
    condition_of,
    first,
    written,
)
from tradewind_operator.status.live import UpgradeState
from tradewind_operator.status.observation import GATEWAY, Observation, common, present


@dataclass(frozen=True)
class _Cluster:
    """One ServingCluster and everything known about it."""

    entry: Entry
    seen: Observation

    @property
    def old(self) -> Status:
        return self.entry.status

    @property
    def gateway(self) -> AppStatus | None:
        return self.seen.apps.get(GATEWAY)

    @property
    def gateway_replicas(self) -> int:
        """That there should be."""
        compiled = self.seen.decision.compiled
        if compiled is None:
            return int(self.old.get("gatewayReplicas") or 0)
        return int(compiled.serve_config["applications"][0]["deployments"][0]["num_replicas"])

    @property
    def gateway_ready(self) -> int:
        if self.seen.live.apps is None:
            return int(self.old.get("gatewayReady") or 0)
        return self.gateway.running if self.gateway is not None else 0

    @property
    def was_ready(self) -> bool:
        return condition_of(self.old, READY).get("status") == TRUE


def cluster_status(entry: Entry, seen: Observation) -> dict[str, Any]:
    """The whole new status of a ServingCluster."""
    cluster = _Cluster(entry, seen)
    decision, service, gateway = seen.decision, seen.service, seen.live.gateway
    said = [
        (ACCEPTED, accepted(decision.verdicts.get(entry.key))),
        (READY, first(_CHECKS, cluster, Said(TRUE, "Ready", "The gateways serve."))),
        (CLUSTER_UPGRADE, _upgrade(cluster)),
    ]
    fields: dict[str, Any] = {
        **common(entry, decision),
        "conditions": written(cluster.old, said, entry.generation, seen.now),
        "endpoint": seen.endpoint if decision.spec is not None else None,
        "rayCluster": service.active if service is not None else None,
        "pendingRayCluster": service.pending if service is not None else None,
        "serviceStatus": service.service_status if service is not None else None,
        "revision": gateway.revision if gateway is not None else cluster.old.get("revision"),
        "gatewayReplicas": cluster.gateway_replicas,
        "gatewayReady": cluster.gateway_ready,
        "models": decision.count("ModelDeployment"),
        "routes": decision.count("ModelRoute"),
        "tenants": decision.count("Tenant"),
    }
    return present(fields)


def _upgrade(cluster: _Cluster) -> Said:
    upgrade, service = cluster.seen.upgrade, cluster.seen.service
    why = "; ".join(upgrade.reasons) or "its pods must be made anew"
    extra = f"{upgrade.gpus} more GPUs" if upgrade.gpus != 1 else "1 more GPU"
    if (service is not None and service.upgrading) or upgrade.state is UpgradeState.IN_PROGRESS:
        text = f"A second Ray cluster is being made ({why}). It takes {extra} until it has taken over."
        return Said(TRUE, UpgradeState.IN_PROGRESS.value, text)
    if upgrade.state is UpgradeState.HELD:
        text = (
            f"A change waits, because it needs a second Ray cluster with {extra} ({why}). To let it go on, "
            "set spec.upgradeStrategy.type to NewCluster."
        )
        return Said(TRUE, UpgradeState.HELD.value, text)
    if upgrade.state is UpgradeState.NEEDED:
        text = f"A second Ray cluster is about to be made, with {extra} ({why})."
        return Said(TRUE, UpgradeState.NEEDED.value, text)
    return Said(FALSE, UpgradeState.NONE.value, "No change needs a second Ray cluster.")


# The chain


def _deletion(cluster: _Cluster) -> Said | None:
    decision = cluster.seen.decision
    if decision.deletion is Deletion.ALLOWED:
        return Said(FALSE, "Deleting", "It is being deleted.")
    if decision.deletion is not Deletion.REFUSED:
        return None
    names = ", ".join(decision.holding[:20]) + (", ..." if len(decision.holding) > 20 else "")
    command = (
        f"kubectl annotate servingcluster {decision.cluster} --namespace {decision.namespace} "
        f"{DELETE_MODELS}=true"
    )
    text = (
        f"It is to be deleted, but {len(decision.holding)} ModelDeployments run on it ({names}); it goes on "
        f"serving. Delete them, or let them go with it: {command}"
    )
    return Said(FALSE, "DeletionRefused", text)


def _not_in_force(cluster: _Cluster) -> Said | None:
    if cluster.seen.decision.spec is not None:
        return None
    return Said(FALSE, "NotAccepted", "Nothing of it is in force; the condition Accepted says why.")


def _no_rayservice(cluster: _Cluster) -> Said | None:
    if cluster.seen.service is not None:
        return None
    return Said(FALSE, "Starting", "There is no RayService yet.")


def _service_not_ready(cluster: _Cluster) -> Said | None:
    service = cluster.seen.service
    if service is None or service.ready:
        return None
    why = service.message or "KubeRay does not say why yet"
    return Said(FALSE, service.reason or "Starting", f"The RayService is not ready: {why}")


def _change_on_its_way(cluster: _Cluster) -> Said | None:
    """Only for one that has not been ready: a new weight somewhere makes no cluster unready."""
    service = cluster.seen.service
    if service is None or service.current or cluster.was_ready:
        return None
    return Said(FALSE, "Starting", "KubeRay has not taken the last change yet.")


def _gateway_failed(cluster: _Cluster) -> Said | None:
    app = cluster.gateway
    if app is None or not app.failed:
        return None
    return Said(FALSE, "GatewayFailed", f"The gateway cannot start: {app.message or app.status}")


def _no_gateway(cluster: _Cluster) -> Said | None:
    if cluster.seen.live.gateway is not None or cluster.gateway_ready > 0:
        return None
    if cluster.seen.live.apps is None and cluster.gateway is not None and cluster.gateway.ready:
        return None
    return Said(FALSE, "GatewayNotReady", "No gateway serves.")


def _nobody_may_call(cluster: _Cluster) -> Said | None:
    if cluster.seen.decision.count("Tenant"):
        return None
    text = "The gateways serve, but nobody can call until there is a Tenant with an API key."
    return Said(TRUE, "NoTenant", text)


_CHECKS: Final[tuple[Check[_Cluster], ...]] = (
    _deletion,
    _not_in_force,
    _no_rayservice,
    _gateway_failed,
    _service_not_ready,
    _change_on_its_way,
    _no_gateway,
    _nobody_may_call,
)
