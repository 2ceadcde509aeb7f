"""Everything that the status of one ServingCluster and its resources is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from tradewind.api.wire import RouteEntry
from tradewind.compiler.compile import CLUSTER_PORT
from tradewind.rayapi.app_status import AppStatus, settings_revision
from tradewind_operator.policy.decision import Decision
from tradewind_operator.policy.namespace import Entry
from tradewind_operator.status.live import Live, Upgrade
from tradewind_operator.status.rayservice import RayServiceState

GATEWAY = "gateway"


@dataclass(frozen=True)
class Observation:
    """One look at a ServingCluster, after what was decided has been applied."""

    decision: Decision
    rayservice: Mapping[str, Any] | None
    """As the API server gave it after the apply; None: there is none."""
    live: Live
    upgrade: Upgrade
    now: datetime

    @cached_property
    def service(self) -> RayServiceState | None:
        """The RayService, read."""
        return RayServiceState.of(self.rayservice) if self.rayservice is not None else None

    @cached_property
    def apps(self) -> Mapping[str, AppStatus]:
        """Serve's applications: from its API or, where that is out of reach, as KubeRay saw them last."""
        if self.live.apps is not None:
            return self.live.apps
        return self.service.apps if self.service is not None else {}

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
        spec = entry.document.get("spec")
        status["accepted"] = {"generation": entry.generation, "spec": {} if spec is None else spec}
    elif old.get("accepted"):
        status["accepted"] = old["accepted"]
    return status


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A status without what is not known."""
    return {name: value for name, value in fields.items() if value is not None}
