"""The model list: what a tenant may put in `model`, in OpenAI's shape plus what Anthropic's SDK needs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tradewind.api.problems import Code
from tradewind.api.wire import DeploymentEntry
from tradewind.gateway.auth import Tenant
from tradewind.gateway.problems import Refused
from tradewind.routing.table import CompiledRoute, RouteTable

OWNER = "tradewind"


def list_models(table: RouteTable, tenant: Tenant, learned: Mapping[str, int]) -> dict[str, Any]:
    """Body of GET /v1/models: routes in the configuration's order, then deployments.

    `learned` holds context lengths in tokens that engines told, by deployment.
    """
    cards = [_card(route, learned) for name, route in table.routes.items() if tenant.may_call(name)]
    return {
        "object": "list",
        "data": cards,
        "has_more": False,
        "first_id": cards[0]["id"] if cards else None,
        "last_id": cards[-1]["id"] if cards else None,
    }


def show_model(table: RouteTable, tenant: Tenant, name: str, learned: Mapping[str, int]) -> dict[str, Any]:
    """Body of GET /v1/models/{id}. Raises Refused (model_not_allowed, model_not_found)."""
    check_permission(tenant, name)
    route = table.routes.get(name)
    if route is None:
        raise not_found()
    return _card(route, learned)


def check_permission(tenant: Tenant, model: str) -> None:
    """Raises Refused (model_not_allowed).

    Asked before the name is looked up: to a tenant with a list of models, every name that is not on
    it looks the same, whether it exists or not.
    """
    if not tenant.may_call(model):
        raise Refused(Code.MODEL_NOT_ALLOWED, "This key may not call the model.", param="model")


def not_found(similar: list[str] | None = None) -> Refused:
    """The refusal for a name that nothing has; `similar` are names the caller may learn of."""
    hint = f" Did you mean {' or '.join(similar)}?" if similar else ""
    return Refused(
        Code.MODEL_NOT_FOUND,
        f"There is no model of that name.{hint} GET /v1/models lists them.",
        param="model",
    )


def _card(route: CompiledRoute, learned: Mapping[str, int]) -> dict[str, Any]:
    deployments = [variant.deployment for variant in route.variants]
    lengths = [_context_length(entry, learned) for entry in deployments]
    known = [length for length in lengths if length is not None]
    # A caller does not know which variant it gets: only what all of them hold is a promise.
    length = min(known) if len(known) == len(lengths) else None
    created = max(entry.created for entry in deployments)
    return {
        "id": route.model,
        "object": "model",
        "type": "model",
        "display_name": route.model,
        "created": created,
        "created_at": datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z"),
        "owned_by": OWNER,
        "kind": route.kind,
        "family": _same([entry.family for entry in deployments]),
        "task": _same([entry.task.value for entry in deployments]),
        "max_model_len": length,
        "context_length": length,
    }


def _context_length(entry: DeploymentEntry, learned: Mapping[str, int]) -> int | None:
    return entry.context_length or learned.get(entry.name)


def _same(values: list[str]) -> str:
    return values[0] if len(set(values)) == 1 else "mixed"
