"""The status of a ModelDeployment: ready is what a gateway of the Ray cluster that serves has reached.

What counts is what Serve and a gateway say about this model alone. While Ray's head is away, or another model
fails, or a second cluster is built, a model that a gateway reaches stays ready.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tradewind.api.status import MOST_MESSAGE
from tradewind.rayapi.app_status import AppStatus
from tradewind_operator.desired import names
from tradewind_operator.policy.namespace import Entry
from tradewind_operator.status import adapters
from tradewind_operator.status.conditions import (
    ACCEPTED,
    ADAPTERS_READY,
    FALSE,
    READY,
    TRUE,
    UNKNOWN,
    Check,
    Said,
    Status,
    accepted,
    condition_of,
    first,
    written,
)
from tradewind_operator.status.live import DeploymentLive
from tradewind_operator.status.observation import Observation, common, present

_STATES: Final = {
    "Ready": "Running",
    "NotAccepted": "Pending",
    "Draining": "Draining",
    "WaitingForCluster": "Pending",
    "ClusterNotReady": "Pending",
    "NotDeployed": "Pending",
    "Failed": "Failed",
}
"""Reason of the condition Ready → `state`; any other reason is a model on its way: Deploying."""


@dataclass(frozen=True)
class _Model:
    """One ModelDeployment and everything known about it."""

    entry: Entry
    seen: Observation

    @property
    def old(self) -> Status:
        return self.entry.status

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def in_force(self) -> bool:
        return self.entry.key in self.seen.decision.in_force

    @property
    def app(self) -> AppStatus | None:
        return self.seen.apps.get(self.name)

    @property
    def routed(self) -> DeploymentLive | None:
        gateway = self.seen.live.gateway
        return gateway.deployments.get(self.name) if gateway is not None else None

    @property
    def ready_replicas(self) -> int:
        """That a gateway has reached; where none can be asked, as it was known last."""
        if self.routed is not None:
            return self.routed.replicas
        if self.seen.live.gateway is not None:
            return 0
        return int(self.old.get("readyReplicas") or 0)

    @property
    def adapters(self) -> list[str]:
        """LoRA adapters that it should have."""
        compiled = self.seen.decision.compiled
        if compiled is None or not self.in_force:
            return []
        return [adapter.name for adapter in compiled.adapters[self.name]]

    @property
    def served_revision(self) -> str | None:
        """Of the settings that Serve has, as far as that is known now."""
        return self.seen.live.revisions.get(self.name)

    @property
    def wanted_revision(self) -> str | None:
        return self.seen.revisions.get(self.name)

    @property
    def was_ready(self) -> bool:
        """The last word was Ready, about the spec that is still in force."""
        same = self.old.get("revision") == self.wanted_revision
        return bool(same and condition_of(self.old, READY).get("status") == TRUE)


def deployment_status(entry: Entry, seen: Observation) -> dict[str, Any]:
    """The whole new status of a ModelDeployment."""
    model = _Model(entry, seen)
    ready = first(_CHECKS, model, Said(TRUE, "Ready", _serving(model)))
    listed = adapters.rows(model.adapters, model.routed.adapters if model.routed is not None else {})
    said = [(ACCEPTED, accepted(seen.decision.verdicts.get(entry.key))), (READY, ready)]
    if listed:
        known, new = seen.live.gateway is not None, _is_of_before(model)
        said.append((ADAPTERS_READY, adapters.said(listed, known=known, new_engine=new)))
    fields: dict[str, Any] = {
        **common(entry, seen.decision),
        "conditions": written(model.old, said, entry.generation, seen.now),
        "state": _state(model, ready),
        **_replicas(model),
        **_served(model, ready),
        "adapters": listed or None,
        "lastError": _last_error(model, ready),
    }
    return present(fields)


def _state(model: _Model, ready: Said) -> str:
    if ready.status == UNKNOWN:
        return str(model.old.get("state") or "Deploying")
    return _STATES.get(ready.reason, "Deploying")


def _replicas(model: _Model) -> dict[str, Any]:
    running, wanted = model.old.get("replicas"), model.seen.replicas.get(model.name)
    if model.seen.live.apps is not None:
        running = model.app.running if model.app is not None else 0
        wanted = (model.app.wanted if model.app is not None else 0) or wanted
    return {
        "replicas": int(running or 0),
        "readyReplicas": model.ready_replicas,
        "wantedReplicas": int(wanted or 0),
        "selector": f"{names.model_label(model.name)}=true",
    }


def _served(model: _Model, ready: Said) -> dict[str, Any]:
    compiled, old = model.seen.decision.compiled, model.old
    if compiled is None or not model.in_force:
        kept = ("pool", "endpoint", "family", "contextLength", "revision")
        return {name: old[name] for name in kept if name in old} if model.entry.deleting else {}
    settings = compiled.engines[model.name]
    length = settings.args.get("max_model_len")
    learned = model.routed.context_length if model.routed is not None else old.get("contextLength")
    revision = model.wanted_revision if ready.status == TRUE else model.served_revision
    return {
        "pool": compiled.pools.get(model.name),
        "endpoint": model.seen.endpoint,
        "family": settings.family,
        "contextLength": learned or (length if isinstance(length, int) and length > 0 else None),
        "revision": revision or old.get("revision"),
    }


def _last_error(model: _Model, ready: Said) -> str | None:
    """The engine's own last error; forgotten when the model serves, or when it is written anew."""
    if model.app is not None and model.app.message:
        return model.app.message[:MOST_MESSAGE]
    if ready.status == TRUE or model.old.get("observedGeneration") != model.entry.generation:
        return None
    return model.old.get("lastError")


def _serving(model: _Model) -> str:
    count = model.ready_replicas
    return f"{count} {'replica serves' if count == 1 else 'replicas serve'}."


# The chain


def _draining(model: _Model) -> Said | None:
    if not model.entry.deleting:
        return None
    return Said(FALSE, "Draining", "It is being deleted: requests in flight end, new ones are refused.")


def _not_in_force(model: _Model) -> Said | None:
    if model.in_force:
        return None
    return Said(FALSE, "NotAccepted", "Nothing of it runs; the condition Accepted says why.")


def _no_ray_cluster(model: _Model) -> Said | None:
    if model.seen.active is not None:
        return None
    return Said(FALSE, "WaitingForCluster", "The ServingCluster has no RayCluster yet.")


def _failed(model: _Model) -> Said | None:
    if model.app is None or not model.app.failed or _is_of_before(model):
        return None
    return Said(FALSE, "Failed", model.app.message or f"Serve says {model.app.status} and no reason.")


def _serve_away(model: _Model) -> Said | None:
    """Serve cannot be asked: what was ready stays so while a gateway reaches it; more is not claimed."""
    if model.seen.live.apps is not None:
        return None
    active = model.seen.active
    if model.was_ready and model.routed is not None:
        return _no_replica(model) or Said(
            TRUE, "Ready", f"{_serving(model)} Ray's head is away; a gateway says so."
        )
    if model.was_ready:
        return Said(UNKNOWN, "Unreachable", "Neither Serve nor a gateway can be asked how the model is.")
    why = (active.why if active is not None else "") or "Ray's head does not answer yet"
    return Said(FALSE, "ClusterNotReady", f"The Ray cluster is not ready: {why}.")


def _not_deployed(model: _Model) -> Said | None:
    if model.app is not None and model.app.status != "NOT_STARTED":
        return None
    if model.was_ready and model.routed is not None and model.ready_replicas:
        # A head that comes back answers before it has read what it served.
        text = f"{_serving(model)} Serve does not list it at the moment; a gateway says so."
        return Said(TRUE, "Ready", text)
    return Said(FALSE, "NotDeployed", "Serve has not begun to deploy it.")


def _not_running(model: _Model) -> Said | None:
    app = model.app
    if app is None or app.ready:
        return None
    if app.status == "DEPLOYING" and model.was_ready and model.routed is not None and model.ready_replicas:
        return None  # the same engine starts elsewhere too, and one of it answers
    if app.status == "UNHEALTHY":
        return Said(FALSE, "Unhealthy", f"A replica is being replaced: {app.message or 'no reason given'}")
    text = f"Serve says {app.status}; {app.running} of {app.wanted} replicas run"
    return Said(FALSE, "Deploying", f"{text}{'' if app.running else _waits_for(model)}.")


def _waits_for(model: _Model) -> str:
    """What a model without any replica waits for, as the second half of a sentence."""
    compiled, active = model.seen.decision.compiled, model.seen.active
    pool = compiled.pools.get(model.name) if compiled is not None else None
    if pool is None or active is None:
        return ""
    wait = active.waits.get(names.pool_group(pool))
    if wait is None:
        return f", and pool {pool} has no pod for it yet"
    if wait:
        return f": no pod of pool {pool} is ready: {wait}"
    return f": the engine starts, or waits for room on a pod of pool {pool}"


def _other_settings(model: _Model) -> Said | None:
    if not _is_of_before(model):
        return None
    return Said(FALSE, "Updating", "The engine still runs with the settings of before.")


def _no_gateway(model: _Model) -> Said | None:
    if model.seen.live.gateway is not None:
        return None
    text = "Serve sees it run, but no gateway can be asked whether it reaches it."
    return Said(UNKNOWN if model.was_ready else FALSE, "GatewayUnreachable", text)


def _no_replica(model: _Model) -> Said | None:
    if model.ready_replicas > 0:
        return None
    gateway = model.seen.live.gateway
    if gateway is not None and (entry := gateway.unread_entry("deployment", model.name)) is not None:
        text = f"The gateways, of an earlier release than the operator, cannot read it: {entry.why}."
        return Said(FALSE, "NotRead", text)
    return Said(FALSE, "NoReplica", "It runs, but no replica has passed the gateway's health checks yet.")


def _is_of_before(model: _Model) -> bool:
    """What Serve says is about other settings than the wanted ones."""
    return model.served_revision is not None and model.served_revision != model.wanted_revision


_CHECKS: Final[tuple[Check[_Model], ...]] = (
    _draining,
    _not_in_force,
    _no_ray_cluster,
    _failed,
    _serve_away,
    _not_deployed,
    _not_running,
    _other_settings,
    _no_gateway,
    _no_replica,
)
