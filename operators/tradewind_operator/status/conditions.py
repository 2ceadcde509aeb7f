"""Kubernetes conditions: how one is decided, written and compared.

A condition comes out of an ordered chain of small checks over one gathered input: the first that has
something to say decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from tradewind.api.status import time_of
from tradewind_operator.policy.verdict import MAX_MESSAGE, Verdict

Status = Mapping[str, Any]
"""A resource's `status`, camelCase."""

ACCEPTED = "Accepted"
ADAPTERS_READY = "AdaptersReady"
READY = "Ready"
CLUSTER_UPGRADE = "ClusterUpgrade"
HEAD_READY = "HeadReady"
PODS_CURRENT = "PodsCurrent"

TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"


@dataclass(frozen=True, slots=True)
class Said:
    """What a check says: a condition without its type and time."""

    status: str
    """True, False or Unknown."""
    reason: str
    message: str
    """A sentence for people; never empty: the API server refuses that."""


Input = TypeVar("Input")
Check = Callable[[Input], Said | None]
"""Says something, or leaves it to the next."""


def first(checks: Iterable[Check[Input]], given: Input, otherwise: Said) -> Said:
    """What the first check says that says anything."""
    for check in checks:
        if (said := check(given)) is not None:
            return said
    return otherwise


def accepted(verdict: Verdict | None) -> Said | None:
    """The condition `Accepted` of a verdict; None without one."""
    if verdict is None:
        return None
    return Said(TRUE if verdict.accepted else FALSE, verdict.reason.value, verdict.message)


def condition_of(status: Status | None, kind: str) -> Mapping[str, Any]:
    """The condition of a type in a status; empty when there is none."""
    for condition in (status or {}).get("conditions") or ():
        if condition.get("type") == kind:
            return dict(condition)
    return {}


def written(
    old: Status | None, said: Sequence[tuple[str, Said | None]], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Conditions by type as they are written; None keeps the old one, if there is one.

    `lastTransitionTime` stays while the status is the same.
    """
    conditions = []
    for kind, new in said:
        before = condition_of(old, kind)
        if new is None:
            conditions += [dict(before)] if before else []
            continue
        same = before.get("status") == new.status and before.get("lastTransitionTime")
        conditions.append(
            {
                "type": kind,
                "status": new.status,
                "reason": new.reason,
                "message": new.message[:MAX_MESSAGE],
                "lastTransitionTime": before["lastTransitionTime"] if same else time_of(now),
                "observedGeneration": generation,
            }
        )
    return conditions


def listed(found: Sequence[str]) -> str:
    """Names in a sentence, ten at most."""
    return ", ".join(found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")


def changed(old: Status | None, new: Status) -> bool:
    """Whether the new status must be written."""
    return dict(old or {}) != dict(new)
