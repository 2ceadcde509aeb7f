"""The status of a Tenant."""

from __future__ import annotations

from typing import Any

from tradewind.api.tenant import Tenant
from tradewind_operator.kinds import MODEL_DEPLOYMENT, MODEL_ROUTE
from tradewind_operator.policy.namespace import Entry
from tradewind_operator.status.conditions import ACCEPTED, accepted, written
from tradewind_operator.status.observation import Observation, common


def tenant_status(entry: Entry, seen: Observation) -> dict[str, Any]:
    """The whole new status of a Tenant: keys that open something, and models that they open."""
    said = [(ACCEPTED, accepted(seen.decision.verdicts.get(entry.key)))]
    form = seen.decision.in_force.get(entry.key)
    keys, models = 0, 0
    if form is not None and isinstance(form.resource, Tenant):
        spec = form.resource.spec
        keys, models = len(spec.keys), len(spec.models)
        if "*" in spec.models:
            models = seen.decision.count(MODEL_DEPLOYMENT.kind) + seen.decision.count(MODEL_ROUTE.kind)
    return {
        **common(entry, seen.decision),
        "conditions": written(entry.status, said, entry.generation, seen.now),
        "keys": keys,
        "models": models,
    }
