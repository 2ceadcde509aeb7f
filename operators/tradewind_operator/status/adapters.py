"""How the LoRA adapters of a ModelDeployment are, from what its replicas told a gateway. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tradewind_operator.status.conditions import FALSE, TRUE, UNKNOWN, Said
from tradewind_operator.status.live import AdapterLive

_READY, _LOADING, _FAILED = "Ready", "Loading", "Failed"
_MOST_TOLD: Final = 3
_NOT_YET: Final = AdapterLive()

LOADING: Final = "AdapterLoading"
"""Reason of a condition that will soon be another one."""


def rows(wanted: Iterable[str], live: Mapping[str, AdapterLive]) -> list[dict[str, Any]]:
    """`status.adapters`: one row each, in the resource's order."""
    return [_row(name, live.get(name, _NOT_YET)) for name in wanted]


def _row(name: str, at: AdapterLive) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "state": _state(at), "readyReplicas": at.ready}
    return row | ({"message": at.message} if at.message else {})


def _state(at: AdapterLive) -> str:
    """Failed where any replica says so: the others' answers do not make it well."""
    if at.failed:
        return _FAILED
    return _READY if at.ready and not at.loading else _LOADING


def said(rows: list[dict[str, Any]], *, known: bool, new_engine: bool) -> Said:
    """The condition AdaptersReady.

    Args:
        known: a gateway could be asked.
        new_engine: what runs has other settings, perhaps no room for adapters.
    """
    if new_engine:
        text = (
            "A new engine is needed, and starts: what runs has other settings. Adapters alone come and go "
            "in a running engine that has some, or was given room by engine.args.maxLoras."
        )
        return Said(FALSE, "NewEngine", text)
    if not known:
        return Said(UNKNOWN, "GatewayUnreachable", "No gateway can be asked how the adapters are.")
    failed = [row for row in rows if row["state"] == _FAILED]
    if failed:
        return Said(FALSE, "AdapterFailed", f"{_told(failed)} The others and the model itself answer.")
    loading = [row for row in rows if row["state"] == _LOADING]
    if loading:
        return Said(FALSE, LOADING, f"{_told(loading)} Requests for it wait.")
    answer = "adapter answers" if len(rows) == 1 else "adapters answer"
    return Said(TRUE, "AdaptersReady", f"{len(rows)} {answer}.")


def _told(some: list[dict[str, Any]]) -> str:
    parts = [f"{row['name']}: {row.get('message') or 'no replica has told of it yet'}" for row in some]
    more = len(parts) - _MOST_TOLD
    return "; ".join(parts[:_MOST_TOLD]) + (f"; and {more} more." if more > 0 else ".")
