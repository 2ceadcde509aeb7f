"""What a gateway knows of the replicas behind it, for those who run the platform."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from tradewind.api.reading import LeftOut
from tradewind.api.wire import DeploymentEntry
from tradewind.routing.replica import ReplicaDirectory, ReplicaView

_STATES = ("ready", "loading", "failed")
_MOST_LEFT_OUT: Final = 20
"""Of the entries that cannot be read; the others are only counted."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A configuration that is not in force."""

    revision: str
    """Empty where it does not say."""
    why: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Of the configuration in force, and of what was sent since."""

    since: float | None = None
    """When it came into force, in seconds of the gateway's clock; None: nothing is in force."""
    left_out: tuple[LeftOut, ...] = ()
    refused: Refusal | None = None
    """What was sent last, where that is not in force."""

    def told(self, revision: str | None, now: float) -> dict[str, Any]:
        """As JSON, bounded: the revision in force, its age in seconds, and what is the matter."""
        return {
            "revision": revision,
            "age_s": None if self.since is None else round(now - self.since, 1),
            "refused": None if self.refused is None else asdict(self.refused),
            "left_out": [asdict(entry) for entry in self.left_out[:_MOST_LEFT_OUT]],
            "left_out_count": len(self.left_out),
        }


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
