"""Everything that the status of one ServingCluster and its resources is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from tradewind.api.wire import RouteEntry
from tradewind.compiler.compile import CLUSTER_PORT
from tradewind.rayapi.app_status import AppStatus, settings_revision
from tradewind_operator.kinds import SERVING_CLUSTER
from tradewind_operator.planning.clusters import ClustersPlan, Upgrade
from tradewind_operator.planning.differences import Demand
from tradewind_operator.planning.moves import GATEWAY, Moves
from tradewind_operator.policy.accepted import AcceptedBlock
from tradewind_operator.policy.decision import Decision
from tradewind_operator.policy.namespace import Entry
from tradewind_operator.status.live import Live
from tradewind_operator.status.raycluster import RayClusterState


@dataclass(frozen=True)
class Observation:
    """One look at a ServingCluster, after what was decided has been carried out."""

    decision: Decision
    now: datetime
    clusters: Mapping[str, RayClusterState] = field(default_factory=dict)
    """RayClusters that are there and do not go."""
    lives: Mapping[str, Live] = field(default_factory=dict)
    """What could be read of each."""
    plan: ClustersPlan | None = None
    """What was decided about them; None: nothing, because nothing is in force."""
    demand: Demand = field(default_factory=Demand)
    """What a second cluster would take."""
    earlier: str | None = None
    """RayService of an earlier release that has this cluster's name."""

    @property
    def active(self) -> RayClusterState | None:
        """The one that serves, or will; None while there is none."""
        name = self.active_name
        return self.clusters.get(name) if name is not None else None

    @cached_property
    def active_name(self) -> str | None:
        if self.plan is not None:
            return self.plan.active
        entry = self.decision.entries.get((SERVING_CLUSTER.kind, self.decision.cluster))
        recorded = entry.status.get("rayCluster") if entry is not None else None
        return str(recorded) if recorded in self.clusters else None

    @property
    def upgrade(self) -> Upgrade:
        return self.plan.upgrade if self.plan is not None else Upgrade()

    @cached_property
    def live(self) -> Live:
        """What the active one says."""
        return self.lives.get(self.active_name or "", Live())

    @property
    def moves(self) -> Moves:
        """In the active one."""
        return self.live.moves

    @property
    def apps(self) -> Mapping[str, AppStatus]:
        """Serve's applications in the active one; empty where that is not known."""
        return self.live.apps or {}

    @property
    def endpoint(self) -> str:
        """URL of the OpenAI API inside Kubernetes."""
        return f"http://{self.decision.cluster}.{self.decision.namespace}.svc:{CLUSTER_PORT}/v1"

    @cached_property
    def revisions(self) -> Mapping[str, str]:
        """ModelDeployment → digest of the engine settings that it should run with."""
        return {name: settings_revision(app["args"]["settings"]) for name, app in self._engine_apps.items()}

    @cached_property
    def replicas(self) -> Mapping[str, int]:
        """ModelDeployment → replicas that it should have, at least."""
        wanted = {}
        for name, app in self._engine_apps.items():
            engine = app["deployments"][0]
            scaled = engine.get("autoscaling_config")
            wanted[name] = int(scaled["min_replicas"] if scaled else engine["num_replicas"])
        return wanted

    @cached_property
    def drains(self) -> Mapping[str, float]:
        """ModelDeployment → seconds for which a replica that leaves may end what it has."""
        compiled = self.decision.compiled
        engines = compiled.engines if compiled is not None else {}
        return {name: settings.drain_timeout_s for name, settings in engines.items()}

    @cached_property
    def routes(self) -> Mapping[str, RouteEntry]:
        """Model name → the gateway's entry of its route."""
        compiled = self.decision.compiled
        return {} if compiled is None else {entry.model: entry for entry in compiled.gateway.routes}

    @property
    def routes_in_effect(self) -> bool:
        """Whether the gateway goes by the configuration that was decided."""
        compiled, gateway = self.decision.compiled, self.live.gateway
        return compiled is not None and gateway is not None and gateway.revision == compiled.gateway.revision

    @cached_property
    def _engine_apps(self) -> Mapping[str, Mapping[str, Any]]:
        compiled = self.decision.compiled
        if compiled is None:
            return {}
        apps = compiled.serve_config["applications"]
        return {app["name"]: app for app in apps if app["name"] != GATEWAY}


def common(entry: Entry, decision: Decision) -> dict[str, Any]:
    """What the status of every kind begins with: its generation and what was accepted last."""
    status: dict[str, Any] = {"observedGeneration": entry.generation}
    verdict = decision.verdicts.get(entry.key)
    old = entry.status
    if verdict is not None and verdict.accepted:
        status["accepted"] = AcceptedBlock(entry.generation, entry.document.get("spec")).written()
    elif old.get("accepted"):
        status["accepted"] = old["accepted"]
    return status


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A status without what is not known."""
    return {name: value for name, value in fields.items() if value is not None}
