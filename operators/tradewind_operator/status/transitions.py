"""Which Events come of a change of a status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from tradewind_operator.policy.verdict import Key
from tradewind_operator.status.conditions import (
    ACCEPTED,
    ADAPTERS_READY,
    FALSE,
    HEAD_READY,
    PODS_CURRENT,
    READY,
    TRUE,
    Status,
    condition_of,
)

EventType = Literal["Normal", "Warning"]
NORMAL: Final = "Normal"
WARNING: Final = "Warning"

_TROUBLE: Final = frozenset(
    {
        "AdapterFailed",
        "Failed",
        "Unhealthy",
        "DeletionRefused",
        "GatewayFailed",
        "GatewayNotReady",
        "VariantNotReady",
        "NoReplica",
        "ReconcileError",
        "HeadLost",
        "ConfigurationNotTaken",
        "NotRead",
        "MoveFailed",
        "RayServiceOfEarlierRelease",
    }
)
"""Reasons that a person should hear of; the others are the ordinary way up or down."""
_TROUBLE_ALL_THE_SAME: Final = frozenset({"ConfigurationRefused", "ConfigurationNotRead"})
"""Of conditions that are True, because answers go on."""
_ON_ITS_WAY: Final = frozenset({READY, ADAPTERS_READY, HEAD_READY, PODS_CURRENT})
_QUIET: Final = frozenset({"NoUpgrade", "Current", "Starting"})


@dataclass(frozen=True, slots=True)
class EventNote:
    """An Event to be written."""

    kind: str
    name: str
    type: EventType
    reason: str
    message: str


def transitions(key: Key, old: Status | None, new: Status) -> list[EventNote]:
    """One Event per condition whose status or reason changed, or that fails in another way now.

    Nothing is said about a resource that is only just there and on its way.
    """
    notes = []
    for condition in new.get("conditions") or ():
        before = condition_of(old, condition["type"])
        warning = _is_warning(condition)
        seen = ("status", "reason", "message") if warning else ("status", "reason")
        if all(before.get(field) == condition[field] for field in seen) or _is_quiet(before, condition):
            continue
        message = condition["message"] or f"{condition['type']} is {condition['status']}."
        notes.append(EventNote(*key, WARNING if warning else NORMAL, condition["reason"], message))
    return notes


def _is_warning(condition: Status) -> bool:
    if condition["type"] == ACCEPTED:
        return bool(condition["status"] == FALSE)
    if condition["type"] == READY and condition["reason"] in _TROUBLE_ALL_THE_SAME:
        return True
    is_false = condition["type"] in _ON_ITS_WAY and condition["status"] == FALSE
    return bool(is_false and condition["reason"] in _TROUBLE)


def _is_quiet(before: dict[str, Any] | Status, condition: Status) -> bool:
    if condition["reason"] in _QUIET and not before:
        return True
    up = condition["type"] != READY or condition["status"] == TRUE or _is_warning(condition)
    return not up and before.get("status") != TRUE
