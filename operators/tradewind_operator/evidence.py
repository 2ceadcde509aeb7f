"""What a decision about Ray clusters goes by: what was seen to answer in each of them. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from tradewind_operator.desired import names
from tradewind_operator.desired.world import ClusterWorld
from tradewind_operator.planning.clusters import Evidence, Known
from tradewind_operator.planning.moves import GATEWAY
from tradewind_operator.planning.objects import annotations_of
from tradewind_operator.situation import Situation

_LOST_S: Final = 30.0
"""A cluster of which no gateway was reached for so long is believed to serve nobody."""
_LINGER_S: Final = 60.0
"""A retired cluster stays at least so long: callers keep connections."""
_AFTER_DRAIN_S: Final = 30.0


def known_of(situation: Situation, world: ClusterWorld, at: float, now: datetime) -> Known:
    """For `plan_clusters`.

    Args:
        at: the time of the clock that `memory.answered` is kept by.
        now: the time of day.
    """
    entry = situation.entry
    return Known(
        clusters=situation.clusters,
        recorded=entry.status.get("rayCluster"),
        approved=world.spec.upgrade_strategy.type == "NewCluster"
        or str(annotations_of(entry.document).get(names.APPROVE_ANNOTATION, "")),
        evidence={name: _evidence(situation, world, name, at) for name in situation.memory.lives},
        linger=timedelta(seconds=max(_LINGER_S, world.drain_s + _AFTER_DRAIN_S)),
        now=now,
    )


def _evidence(situation: Situation, world: ClusterWorld, name: str, at: float) -> Evidence:
    memory, compiled = situation.memory, world.compiled
    live = memory.lives[name]
    gateway = live.gateway
    if gateway is None:
        return Evidence(lost=at - memory.answered[name] > _LOST_S)
    app = (live.apps or {}).get(GATEWAY)
    ready = app is not None and app.ready and app.running >= app.wanted
    reached = {model for model, seen in gateway.deployments.items() if seen.replicas}
    return Evidence(
        gateways=ready and gateway.revision == compiled.gateway.revision,
        models=frozenset(reached & set(compiled.engines)),
        known=True,
    )
