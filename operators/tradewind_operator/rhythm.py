"""When a ServingCluster is due again by itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tradewind_operator.publish import Statuses, is_settled
from tradewind_operator.status.observation import Observation

SOON_S: Final = 0.2
_EFFECT_S: Final = 0.3
"""From a configuration that was sent to a look whether it has effect."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often to look, in seconds."""

    resync_s: float = 30.0
    """At everything."""
    active_resync_s: float = 2.0
    """At the Ray clusters while something is on its way."""
    look_s: float = 5.0
    """At the Ray clusters while all is well."""

    def next_look(self, statuses: Statuses, seen: Observation) -> float:
        """Seconds until the Ray clusters are to be looked at."""
        plan, moves = seen.plan, seen.moves
        moving = bool(moves.moving or moves.waiting) or (plan is not None and len(plan.present) > 1)
        settled = is_settled(statuses) and not moving and not seen.decision.draining
        wait = self.look_s if settled else self.active_resync_s
        return min(wait, _EFFECT_S) if any(live.sent for live in seen.lives.values()) else wait
