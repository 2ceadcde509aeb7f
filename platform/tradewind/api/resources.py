"""The kinds of custom resource, and how plain data becomes one of them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from tradewind.api.cluster import ServingCluster
from tradewind.api.deployment import ModelDeployment
from tradewind.api.explain import explain
from tradewind.api.model import API_VERSION, Fault
from tradewind.api.route import ModelRoute
from tradewind.api.tenant import Tenant

Resource = ServingCluster | ModelDeployment | ModelRoute | Tenant

KINDS: Final[dict[str, type[ServingCluster | ModelDeployment | ModelRoute | Tenant]]] = {
    "ServingCluster": ServingCluster,
    "ModelDeployment": ModelDeployment,
    "ModelRoute": ModelRoute,
    "Tenant": Tenant,
}
_PLANNED_KINDS: Final = ("Experiment",)


class InvalidResourceError(ValueError):
    """A resource that breaks its model. `faults` holds everything that is wrong with it."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = faults


def plural(kind: str) -> str:
    """As the API server's paths name a kind: `modeldeployments` of ModelDeployment."""
    return f"{kind.lower()}s"


def parse_resource(data: Mapping[str, Any]) -> Resource:
    """The resource that JSON-able `data` describes, field names in camelCase.

    Raises:
        InvalidResourceError: with a fault for everything that is wrong.
    """
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidResourceError([_kind_fault(kind)])
    if data.get("apiVersion") != API_VERSION:
        found = data.get("apiVersion")
        message = f"found {found!r}; allowed: {API_VERSION}" if found else f"missing; allowed: {API_VERSION}"
        raise InvalidResourceError([Fault(("apiVersion",), message)])
    model = KINDS[kind]
    try:
        return model.model_validate_json(json.dumps(data), by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidResourceError(explain(error, model, data)) from None


def _kind_fault(kind: object) -> Fault:
    allowed = ", ".join(KINDS)
    if kind is None:
        return Fault(("kind",), f"missing; allowed: {allowed}")
    if kind in _PLANNED_KINDS:
        return Fault(("kind",), f"found {kind!r}, which this version does not do; allowed: {allowed}")
    near = difflib.get_close_matches(str(kind), KINDS, n=1)
    return Fault(
        ("kind",), f"found {str(kind)[:60]!r}; allowed: {allowed}", f"did you mean {near[0]}?" if near else ""
    )
