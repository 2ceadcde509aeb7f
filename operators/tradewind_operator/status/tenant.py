"""The status of a Tenant."""

from __future__ import annotations

from typing import Any

from tradewind_operator.kinds import MODEL_DEPLOYMENT, MODEL_ROUTE
from tradewind_operator.policy.namespace import Entry
from tradewind_operator.status.conditions import ACCEPTED, accepted, written
from tradewind_operator.status.observation import Observation, common


def tenant_status(entry: Entry, seen: Observation) -> dict[str, Any]:
    """The whole new status of a Tenant: keys that open something, and models that they open.

    Those of other clusters of the namespace count too, as far as they can be known here.
    """
    said = [(ACCEPTED, accepted(seen.decision.verdicts.get(entry.key)))]
    decision, keys, models = seen.decision, 0, 0
    if (tenant := decision.tenants.get(entry.name)) is not None:
        keys, models = len(tenant.spec.keys), len(tenant.spec.models)
        if "*" in tenant.spec.models:
            here = decision.count(MODEL_DEPLOYMENT.kind) + decision.count(MODEL_ROUTE.kind)
            models = here + decision.elsewhere
    return {
        **common(entry, decision),
        "conditions": written(entry.status, said, entry.generation, seen.now),
        "keys": keys,
        "models": models,
    }
