"""What a gateway knows of the replicas behind it, for those who run the platform."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tradewind.api.wire import DeploymentEntry
from tradewind.routing.replica import ReplicaDirectory, ReplicaView

_STATES = ("ready", "loading", "failed")


def answering(
    entries: Iterable[DeploymentEntry], directory: ReplicaDirectory, learned: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """By deployment: replicas that answer, tokens of context, and how they have each LoRA adapter.

    `learned` holds context lengths in tokens that engines told.
    """
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        views = [view for view in directory.views(entry.name) if view.ready]
        length = entry.context_length or learned.get(entry.name)
        found[entry.name] = {"ready": len(views), "context_length": length}
        if entry.adapters:
            found[entry.name]["adapters"] = {name: _adapter(views, name) for name in entry.adapters}
    return found


def _adapter(views: list[ReplicaView], name: str) -> dict[str, Any]:
    """Replicas by what they say of the adapter, and the first message: of a failure, if there is one."""
    reports = sorted((view.adapter(name) for view in views), key=lambda report: report.state != "failed")
    counts = Counter[str](report.state for report in reports)
    message = next((report.message for report in reports if report.message), "")
    return {state: counts[state] for state in _STATES} | {"message": message}
