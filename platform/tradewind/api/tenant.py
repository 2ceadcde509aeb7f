"""Tenant: who may call, with which keys, and which models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tradewind.api.model import ApiModel, Fault, ResourceModel, repeated
from tradewind.api.secrets import ApiKeyRef

_RATES = "this version limits requests in flight (ServingCluster spec.gateway.maxOngoingRequests), not rates"

Allowed = Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9._/:-]{0,255})$", max_length=256)]
"""A route's or deployment's name, `<deployment>:<adapter>`, or `*`."""


class TenantSpec(ApiModel):
    """Keys and rights of one tenant."""

    planned: ClassVar[Mapping[str, str]] = {
        "rates": _RATES,
        "requestRate": _RATES,
        "tokenRate": _RATES,
        "limits": _RATES,
        "budget": "this version has no budgets",
        "priority": "this version treats all tenants alike",
        "routes": "name routes and deployments in spec.models",
    }

    keys: Annotated[tuple[ApiKeyRef, ...], Field(min_length=1, max_length=16)]
    """API keys; any of them is good, so that a key can be replaced without an outage."""
    models: Annotated[tuple[Allowed, ...], Field(min_length=1, max_length=256)] = ("*",)
    """Routes and deployments this tenant may call; `*` is all."""

    def faults(self) -> Iterable[Fault]:
        yield from repeated(self.models, ("models",), "model")
        if "*" in self.models and len(self.models) > 1:
            yield Fault(("models",), "found '*' beside names; allowed: ['*'] alone, or names")
        references = (key.model_dump_json() for key in self.keys)
        for fault in repeated(references, ("keys",), "key"):
            yield Fault(fault.path, "found the same reference a second time; allowed: each once")


class Tenant(ResourceModel):
    """API keys and what they open. Without any Tenant the platform serves loopback only."""

    kind: Literal["Tenant"]
    """Always `Tenant`."""
    spec: TenantSpec
