"""The status of a ServingCluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from tradewind.rayapi.app_status import AppStatus
from tradewind_operator.desired import names
from tradewind_operator.kinds import MODEL_DEPLOYMENT, MODEL_ROUTE, TENANT
from tradewind_operator.planning.clusters import UpgradeState
from tradewind_operator.planning.moves import GATEWAY, Moves
from tradewind_operator.policy.cluster import DELETE_MODELS
from tradewind_operator.policy.decision import Deletion
from tradewind_operator.policy.namespace import Entry
from tradewind_operator.status.conditions import (
    ACCEPTED,
    CLUSTER_UPGRADE,
    FALSE,
    HEAD_READY,
    PODS_CURRENT,
    READY,
    TRUE,
    UNKNOWN,
    Check,
    Said,
    Status,
    accepted,
    first,
    listed,
    written,
)
from tradewind_operator.status.leaving import leaving_said
from tradewind_operator.status.observation import Observation, common, present

EARLIER_RELEASE: Final = "RayServiceOfEarlierRelease"
_MOST_UNREAD: Final = 3
"""Entries that a message tells of."""


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
    def served(self) -> bool:
        """It has been ready once."""
        active = self.seen.active
        return active is not None and active.served


def cluster_status(entry: Entry, seen: Observation) -> dict[str, Any]:
    """The whole new status of a ServingCluster."""
    cluster = _Cluster(entry, seen)
    decision, gateway = seen.decision, seen.live.gateway
    said = [
        (ACCEPTED, accepted(decision.verdicts.get(entry.key))),
        (READY, first(_CHECKS, cluster, Said(TRUE, "Ready", "The gateways serve."))),
        (HEAD_READY, first(_HEAD_CHECKS, cluster, Said(TRUE, "HeadReady", "Ray's head answers."))),
        (PODS_CURRENT, _pods_current(cluster)),
        (CLUSTER_UPGRADE, _upgrade(cluster)),
    ]
    fields: dict[str, Any] = {
        **common(entry, decision),
        "conditions": written(cluster.old, said, entry.generation, seen.now),
        "endpoint": seen.endpoint if decision.spec is not None else None,
        **clusters_of(seen),
        "revision": gateway.revision if gateway is not None else cluster.old.get("revision"),
        "gatewayReplicas": cluster.gateway_replicas,
        "gatewayReady": cluster.gateway_ready,
        "models": decision.count(MODEL_DEPLOYMENT.kind),
        "routes": decision.count(MODEL_ROUTE.kind),
        "tenants": decision.count(TENANT.kind),
    }
    return present(fields)


def clusters_of(seen: Observation) -> dict[str, Any]:
    """The fields that record which RayCluster serves, and which one is being built."""
    pending = seen.plan.pending if seen.plan is not None else None
    return {"rayCluster": seen.active_name, "pendingRayCluster": pending}


def _upgrade(cluster: _Cluster) -> Said:
    upgrade, decision = cluster.seen.upgrade, cluster.seen.decision
    if upgrade.state is UpgradeState.NONE:
        return Said(FALSE, UpgradeState.NONE.value, "No change needs a second Ray cluster.")
    why, extra = " ".join(upgrade.reasons), cluster.seen.demand
    if upgrade.state is UpgradeState.HELD:
        command = (
            f"kubectl annotate servingcluster {decision.cluster} --namespace {decision.namespace} "
            f"{names.APPROVE_ANNOTATION}={upgrade.name}"
        )
        text = (
            f"A change waits, because it needs a second Ray cluster, {upgrade.name}, which takes {extra} "
            f"until it has taken over. {why} Everything else goes on being changed in place. To let it be "
            f"built: {command}"
        )
        return Said(TRUE, UpgradeState.HELD.value, text)
    missing = ", ".join(upgrade.missing[:10]) + (", ..." if len(upgrade.missing) > 10 else "")
    pending = cluster.seen.clusters.get(upgrade.name)
    trouble = f" Its pods: {pending.why}." if pending is not None and pending.why else ""
    text = (
        f"A second Ray cluster, {upgrade.name}, is being made and takes {extra} until it has taken over. "
        f"It waits for {missing}.{trouble} {why} Taking the change back gives it up at once."
    )
    return Said(TRUE, UpgradeState.IN_PROGRESS.value, text)


def _pods_current(cluster: _Cluster) -> Said:
    """How far models have moved to pods as they are wanted, and which pods are on their way out meanwhile."""
    moved, leaving = _moves(cluster.seen.moves), ""
    if (active := cluster.seen.active) is not None:
        leaving = leaving_said(active.leaving, cluster.seen.drains)
    if moved is not None:
        return replace(moved, message=f"{moved.message} {leaving}".rstrip())
    text = "Everything runs on pods as they are wanted now."
    return Said(TRUE, "Leaving", f"{text} {leaving}") if leaving else Said(TRUE, "Current", text)


def _moves(moves: Moves) -> Said | None:
    if moves.failed:
        stays = listed(moves.waiting) or "what it had there"
        text = (
            f"{listed(moves.failed)} cannot start on the new pods, so {stays} stays on "
            "those of before. Repair or delete it, or take the change of the pods back."
        )
        return Said(FALSE, "MoveFailed", text)
    if moves.moving or moves.waiting:
        text = (
            f"The pods have changed. On their way to new ones: {listed(moves.moving) or 'none yet'}; "
            f"next: {listed(moves.waiting) or 'none'}."
        )
        return Said(FALSE, "Moving", text)
    return None


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


def _earlier_release(cluster: _Cluster) -> Said | None:
    name, decision = cluster.seen.earlier, cluster.seen.decision
    if name is None:
        return None
    text = (
        f"RayService {name} was made by an earlier release. It goes on serving as it is and takes no "
        "changes, revoked keys included. To lose no request, make a ServingCluster of another name, move the "
        "models and the callers to it, and delete this one. To have it built anew here, with an outage "
        f"until its models run: kubectl delete rayservice {name} --namespace {decision.namespace}"
    )
    return Said(FALSE, EARLIER_RELEASE, text)


def _no_ray_cluster(cluster: _Cluster) -> Said | None:
    if cluster.seen.active is not None:
        return None
    return Said(FALSE, "Starting", "There is no RayCluster yet.")


def _gateway_failed(cluster: _Cluster) -> Said | None:
    app = cluster.gateway
    if app is None or not app.failed:
        return None
    return Said(FALSE, "GatewayFailed", f"The gateway cannot start: {app.message or app.status}")


def _no_gateway(cluster: _Cluster) -> Said | None:
    """A gateway that answers settles it, whatever is the matter with the head."""
    seen, active = cluster.seen, cluster.seen.active
    if seen.live.gateway is not None:
        return None
    why = active.why if active is not None else ""
    if not cluster.served:
        reason = active.reason if active is not None and active.reason else "Starting"
        return Said(FALSE, reason, f"No gateway has served yet: {why or 'the gateways start'}.")
    return Said(FALSE, "GatewayNotReady", f"No gateway answers{': ' + why if why else ''}.")


def _refusing(cluster: _Cluster) -> Said | None:
    """They serve, so it is ready; but what was changed last, a revoked key included, is not in force."""
    gateway = cluster.seen.live.gateway
    if gateway is None or not gateway.refused:
        return None
    text = (
        f"The gateways serve, but refuse configuration {gateway.refused}: {gateway.why}. They go on with "
        f"{gateway.revision}: no change of routes, keys or limits takes effect, revoked keys included."
    )
    return Said(TRUE, "ConfigurationRefused", text)


def _reading_not_all(cluster: _Cluster) -> Said | None:
    gateway = cluster.seen.live.gateway
    if gateway is None or not gateway.unread:
        return None
    shown = listed([str(each) for each in gateway.unread[:_MOST_UNREAD]])
    more = len(gateway.unread) - _MOST_UNREAD
    text = (
        f"The gateways serve, but are of an earlier release than the operator and cannot read all of their "
        f"configuration: {shown}{f' and {more} more' if more > 0 else ''}."
    )
    return Said(TRUE, "ConfigurationNotRead", text)


def _nobody_may_call(cluster: _Cluster) -> Said | None:
    if cluster.seen.decision.count(TENANT.kind):
        return None
    text = "The gateways serve, but nobody can call until there is a Tenant with an API key."
    return Said(TRUE, "NoTenant", text)


# The chain about the head


def _no_head(cluster: _Cluster) -> Said | None:
    active, live = cluster.seen.active, cluster.seen.live
    if active is not None and (active.head_ready or live.apps is not None):
        return None
    if active is None or not active.configured:
        why = active.why if active is not None else "there is no RayCluster yet"
        return Said(FALSE, "Starting", f"Ray's head is not there yet: {why}.")
    text = (
        f"Ray's head is away: {active.why or 'its pod is not ready'}. Gateways and engines go on with what "
        "they have; changes wait until it is back."
    )
    return Said(FALSE, "HeadLost", text)


def _no_answer(cluster: _Cluster) -> Said | None:
    live = cluster.seen.live
    if live.apps is None:
        text = f"Its pod is ready, but Serve does not answer: {live.problem or 'it was not asked yet'}."
        return Said(UNKNOWN, "Unreachable", text)
    return None


def _refused(cluster: _Cluster) -> Said | None:
    problem = cluster.seen.live.problem
    return Said(FALSE, "ConfigurationNotTaken", f"{problem}.") if problem else None


_HEAD_CHECKS: Final[tuple[Check[_Cluster], ...]] = (_no_head, _no_answer, _refused)
_CHECKS: Final[tuple[Check[_Cluster], ...]] = (
    _deletion,
    _not_in_force,
    _earlier_release,
    _no_ray_cluster,
    _gateway_failed,
    _no_gateway,
    _refusing,
    _reading_not_all,
    _nobody_may_call,
)
