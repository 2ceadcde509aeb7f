"""A platform at some moment: RayCluster, Serve and gateway as they would say it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.unit.api.builders import Data
from tests.unit.operator.policy.objects import decided, platform
from tradewind.api.status import STATUSES
from tradewind.rayapi.app_status import AppStatus
from tradewind_operator.planning.clusters import ClustersPlan, Upgrade
from tradewind_operator.policy.decision import Decision
from tradewind_operator.status.cluster import cluster_status
from tradewind_operator.status.deployment import deployment_status
from tradewind_operator.status.live import DeploymentLive, GatewayLive, Live
from tradewind_operator.status.observation import Observation
from tradewind_operator.status.raycluster import RayClusterState
from tradewind_operator.status.route import answering, route_status
from tradewind_operator.status.tenant import tenant_status

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


ACTIVE = "default-0a1b2c3d"


def ray(head: bool = True, **more: Any) -> RayClusterState:
    state = RayClusterState(ACTIVE, head_ready=head, configured=True, served=True, reason="", why="")
    return replace(state, **more)


def app(name: str, status: str = "RUNNING", message: str = "", running: int = 1, **more: Any) -> AppStatus:
    return AppStatus(name, status, message, wanted=1, running=running, failed=more.get("failed", False))


def live(
    decision: Decision, *other: AppStatus, revision: str = "", old: Mapping[str, str] | None = None
) -> Live:
    """Everything runs as it was decided, but for the given applications and revisions."""
    assert decision.compiled is not None
    names = decision.compiled.engines
    apps = {name: app(name) for name in names} | {"gateway": app("gateway", running=2)}
    apps |= {each.name: each for each in other}
    replicas = {name: DeploymentLive(apps[name].running, 4_096) for name in names if name in apps}
    gateway = GatewayLive(revision or decision.compiled.gateway.revision, replicas)
    revisions = seen(decision).revisions
    return Live(apps, gateway, {**revisions, **(old or {})})


def seen(
    decision: Decision,
    what: Live | None = None,
    cluster: RayClusterState | None = None,
    now: datetime = NOW,
    **more: Any,
) -> Observation:
    """With the given RayCluster; without any where that is None."""
    if cluster is None:
        return Observation(decision, now, **more)
    plan = ClustersPlan(ACTIVE, upgrade=more.pop("upgrade", Upgrade()))
    return Observation(decision, now, {ACTIVE: cluster}, {ACTIVE: what or Live()}, plan, **more)


def healthy(*data: Data, now: datetime = NOW) -> Observation:
    decision = decided(*(data or platform()))
    return seen(decision, live(decision), ray(), now)


def statuses(observation: Observation) -> dict[tuple[str, str], dict[str, Any]]:
    """The new status of every resource; each is one that the API takes."""
    entries = observation.decision.entries
    models = {
        entry.name: deployment_status(entry, observation)
        for entry in entries.values()
        if entry.kind == "ModelDeployment"
    }
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for key, entry in entries.items():
        if entry.kind == "ModelDeployment":
            found[key] = models[entry.name]
        elif entry.kind == "ModelRoute":
            found[key] = route_status(entry, observation, answering(models))
        elif entry.kind == "Tenant":
            found[key] = tenant_status(entry, observation)
        else:
            found[key] = cluster_status(entry, observation)
        STATUSES[entry.kind].model_validate_json(json.dumps(found[key]))
    return found


def written(data: list[Data], observation: Observation) -> list[Data]:
    """The same resources after their statuses were written."""
    new = statuses(observation)
    result = copy.deepcopy(data)
    for each in result:
        if (status := new.get((each["kind"], each["metadata"]["name"]))) is not None:
            each["status"] = copy.deepcopy(status)
    return result


def condition(status: Mapping[str, Any], kind: str = "Ready") -> tuple[str, str]:
    found = next(each for each in status["conditions"] if each["type"] == kind)
    return found["status"], found["reason"]


def text(status: Mapping[str, Any], kind: str = "Ready") -> str:
    return str(next(each["message"] for each in status["conditions"] if each["type"] == kind))
