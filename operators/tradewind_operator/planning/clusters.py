"""Which Ray clusters a ServingCluster has, which of them serves, and what becomes of the others. Pure.

One is *active*: it serves the endpoint. A change that its pods cannot take needs a second one, *pending*: it
is announced and held until someone approves (or `spec.upgradeStrategy` does), runs beside the first with the
same live data, and takes over when everything that answers on the active one answers on it. Then the first
is *retired*: it ends its streams, and goes.

All of it follows from what is there. Names are hashes of content, so a change that is taken back makes the
active one wanted again, and the pending one goes at once. Which one is active is in the ServingCluster's
status, written with a resourceVersion test; where that is lost, a RayCluster that has served says so itself.

What never had a request to lose is not protected: a first cluster that has not served yet is replaced without
asking, and when the active one is gone, or answers nobody for `Evidence.lost`, the pending one takes over
with whatever it has, as soon as its gateways serve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final

from tradewind.api.status import time_of
from tradewind_operator.desired import names
from tradewind_operator.desired.world import Manifest
from tradewind_operator.planning.differences import reasons_for
from tradewind_operator.planning.objects import annotations_of

ANY: Final = "true"


class UpgradeState(Enum):
    """How far a change is that needs a second Ray cluster; the value is the condition's reason."""

    NONE = "NoUpgrade"
    HELD = "Held"
    IN_PROGRESS = "InProgress"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A change that needs a second Ray cluster."""

    state: UpgradeState = UpgradeState.NONE
    name: str = ""
    """The RayCluster that is or would be made."""
    reasons: tuple[str, ...] = ()
    """Sentences on what changes."""
    missing: tuple[str, ...] = ()
    """What answers on the active one and not yet on the pending one: models, or the gateways."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen to answer in one Ray cluster, through its own gateways."""

    gateways: bool = False
    """They could be asked, have the configuration of now, and all that are wanted run."""
    models: frozenset[str] = frozenset()
    """ModelDeployments of which a gateway has reached a replica."""
    known: bool = False
    """A gateway could be asked at all."""
    lost: bool = False
    """None could be asked for so long that nobody is believed to be served."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a decision about clusters goes by."""

    clusters: Mapping[str, Manifest]
    """RayClusters of this ServingCluster that are not being deleted, by name."""
    recorded: str | None
    """The active one, by the ServingCluster's status."""
    approved: bool | str
    """True: any second cluster may be made. A name or its hash: that one."""
    evidence: Mapping[str, Evidence]
    linger: timedelta
    """How long a retired cluster may take to end its streams."""
    now: datetime


@dataclass(frozen=True, slots=True)
class ClustersPlan:
    """What to do about RayClusters."""

    active: str
    pending: str | None = None
    retired: tuple[str, ...] = ()
    create: bool = False
    """The wanted one, which is the active or the pending one."""
    delete: tuple[str, ...] = ()
    annotate: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    """RayCluster → annotations to set, or to take away (None)."""
    upgrade: Upgrade = Upgrade()

    @property
    def present(self) -> tuple[str, ...]:
        """All that are there when the plan is carried out; the active one first."""
        pending = () if self.pending is None else (self.pending,)
        return (self.active, *pending, *self.retired)


def plan_clusters(wanted: Manifest, known: Known) -> ClustersPlan:
    """Decide; `wanted` is the RayCluster that the resources of now ask for."""
    goal = wanted["metadata"]["name"]
    active = _active(goal, known)
    pending: str | None = None
    upgrade = Upgrade()
    if active != goal and not _has_served(known.clusters[active]):
        active = goal
    elif active != goal:
        reasons = reasons_for(known.clusters[active], wanted)
        if not _is_approved(goal, known.approved):
            upgrade = Upgrade(UpgradeState.HELD, goal, reasons)
        elif missing := _missing(goal, active, known):
            pending, upgrade = goal, Upgrade(UpgradeState.IN_PROGRESS, goal, reasons, missing)
        else:
            active = goal
    kept = {active, pending}
    others = {name: there for name, there in sorted(known.clusters.items()) if name not in kept}
    retired = tuple(name for name, there in others.items() if not _is_over(there, known))
    return ClustersPlan(
        active=active,
        pending=pending,
        retired=retired,
        create=goal in kept and goal not in known.clusters,
        delete=tuple(name for name in others if name not in retired),
        annotate=_annotations(active, pending, retired, known),
        upgrade=upgrade,
    )


def _active(goal: str, known: Known) -> str:
    """The one that serves; where none does, the one that will."""
    if known.recorded in known.clusters:
        return str(known.recorded)
    if known.recorded is None:
        served = [
            (str(there["metadata"].get("creationTimestamp")), name)
            for name, there in known.clusters.items()
            if _has_served(there) and names.RETIRED_ANNOTATION not in annotations_of(there)
        ]
        if served:
            return max(served)[1]
    return goal


def _has_served(cluster: Mapping[str, Any]) -> bool:
    return names.SERVED_ANNOTATION in annotations_of(cluster)


def _is_approved(goal: str, approved: bool | str) -> bool:
    if isinstance(approved, bool):
        return approved
    return approved in {ANY, goal, goal.rpartition("-")[2]}


def _missing(pending: str, active: str, known: Known) -> tuple[str, ...]:
    """What the pending one lacks of what the active one has."""
    new = known.evidence.get(pending, Evidence())
    old = known.evidence.get(active, Evidence())
    if not new.gateways:
        return ("the gateways",)
    if not old.known and not old.lost:
        return ("a word from the gateways that serve now",)
    return tuple(sorted(old.models - new.models))


def _is_over(cluster: Mapping[str, Any], known: Known) -> bool:
    """Whether one that neither serves nor will has nothing left to end."""
    if not _has_served(cluster):
        return True
    since = annotations_of(cluster).get(names.RETIRED_ANNOTATION)
    if since is None:
        return False
    try:
        return known.now - datetime.fromisoformat(since) >= known.linger
    except (TypeError, ValueError):
        return True


def _annotations(
    active: str, pending: str | None, retired: tuple[str, ...], known: Known
) -> dict[str, dict[str, str | None]]:
    """Changes of the annotations that keep what may not be forgotten."""
    changes: dict[str, dict[str, str | None]] = {}
    for name, there in known.clusters.items():
        has, change = annotations_of(there), dict[str, str | None]()
        if name in retired and names.RETIRED_ANNOTATION not in has:
            change[names.RETIRED_ANNOTATION] = time_of(known.now)
        if name in {active, pending} and names.RETIRED_ANNOTATION in has:
            change[names.RETIRED_ANNOTATION] = None
        evidence = known.evidence.get(name, Evidence())
        if name == active and names.SERVED_ANNOTATION not in has and evidence.known:
            change[names.SERVED_ANNOTATION] = time_of(known.now)
        if change:
            changes[name] = change
    return changes
