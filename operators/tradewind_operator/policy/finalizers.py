"""Which finalizers must be set or taken away. Pure: the shell does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tradewind_operator.kinds import MODEL_DEPLOYMENT, SERVING_CLUSTER
from tradewind_operator.policy.decision import Decision, Deletion
from tradewind_operator.policy.namespace import Entry

DRAIN: Final = "tradewind.dev/drain"
"""On ModelDeployments: held until Serve has ended the model."""
PROTECT: Final = "tradewind.dev/protect"
"""On ServingClusters: held while it has models."""


@dataclass(frozen=True, slots=True)
class FinalizerChange:
    """One finalizer of one resource."""

    kind: str
    name: str
    finalizer: str
    add: bool


def finalizer_changes(decision: Decision, gone: Iterable[str]) -> tuple[FinalizerChange, ...]:
    """Everything to change. Additions belong before the first apply, removals after it.

    Args:
        gone: applications that run no longer (`status.draining.ended`), by name.
    """
    ended = frozenset(gone)
    changes = []
    for entry in decision.entries.values():
        if entry.kind == MODEL_DEPLOYMENT.kind:
            changes += _change(entry, DRAIN, hold=not entry.deleting, release=entry.name in ended)
        elif entry.kind == SERVING_CLUSTER.kind:
            allowed = decision.deletion is Deletion.ALLOWED
            changes += _change(entry, PROTECT, hold=not entry.deleting, release=allowed)
    return tuple(changes)


def finalizers(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Those that a resource has."""
    return tuple(document["metadata"].get("finalizers") or ())


def _change(entry: Entry, finalizer: str, *, hold: bool, release: bool) -> list[FinalizerChange]:
    has = finalizer in finalizers(entry.document)
    if hold and not has:
        # Kubernetes refuses new finalizers on what is being deleted.
        return [FinalizerChange(entry.kind, entry.name, finalizer, add=True)]
    if entry.deleting and has and release:
        return [FinalizerChange(entry.kind, entry.name, finalizer, add=False)]
    return []
