"""Writes what was found out: statuses that changed, and Events about what changed in them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from tradewind.telemetry.redaction import redact
from tradewind_operator.api_server import ApiServer
from tradewind_operator.errors import Conflict, Invalid, NotFound, OperatorError, Unreachable
from tradewind_operator.events import Events
from tradewind_operator.kinds import CUSTOM_KINDS, MODEL_DEPLOYMENT, MODEL_ROUTE, SERVING_CLUSTER, TENANT
from tradewind_operator.policy.namespace import Entry, read_entry
from tradewind_operator.policy.verdict import Key
from tradewind_operator.status.adapters import LOADING
from tradewind_operator.status.cluster import cluster_status
from tradewind_operator.status.conditions import (
    ADAPTERS_READY,
    FALSE,
    READY,
    TRUE,
    Said,
    changed,
    condition_of,
    written,
)
from tradewind_operator.status.deployment import deployment_status
from tradewind_operator.status.observation import Observation
from tradewind_operator.status.route import answering, route_status
from tradewind_operator.status.tenant import tenant_status
from tradewind_operator.status.transitions import EventNote, transitions
from tradewind_operator.wakeups import ClusterKey

logger = logging.getLogger(__name__)

RECONCILE_ERROR: Final = "ReconcileError"
_AT_LEAST_S: Final = 0.5
_AT_ONCE: Final = 4
"""A thousand new models are thousands of writes, and the Lease must be renewed beside them."""

Statuses = dict[Key, dict[str, Any]]


def statuses_of(seen: Observation) -> Statuses:
    """The new status of everything that the cluster speaks about. Pure, and slow for many resources."""
    entries = seen.decision.entries.values()
    models = {e.name: deployment_status(e, seen) for e in entries if e.kind == MODEL_DEPLOYMENT.kind}
    ready = answering(models)
    writers: dict[str, Callable[[Entry], dict[str, Any]]] = {
        MODEL_DEPLOYMENT.kind: lambda entry: models[entry.name],
        MODEL_ROUTE.kind: lambda entry: route_status(entry, seen, ready),
        TENANT.kind: lambda entry: tenant_status(entry, seen),
        SERVING_CLUSTER.kind: lambda entry: cluster_status(entry, seen),
    }
    return {entry.key: writers[entry.kind](entry) for entry in entries}


def is_settled(statuses: Statuses) -> bool:
    """Nothing is on its way: all that was accepted is ready, and nothing comes or goes."""
    return all(
        status.get("state") != "Draining"
        and condition_of(status, ADAPTERS_READY).get("reason") != LOADING
        and (not status.get("accepted") or condition_of(status, READY).get("status", TRUE) == TRUE)
        for status in statuses.values()
    )


def with_error(status: Mapping[str, Any], entry: Entry, error: Exception, now: datetime) -> dict[str, Any]:
    """A ServingCluster's status that says that the reconcile failed."""
    old = entry.status
    said = Said(FALSE, RECONCILE_ERROR, f"{safe_text(error)} The operator tries again.")
    ready = written(old, [(READY, said)], entry.generation, now)
    others = [item for item in status.get("conditions") or () if item.get("type") != READY]
    return {**status, "observedGeneration": entry.generation, "conditions": [*others, *ready]}


def safe_text(error: Exception) -> str:
    """An error for people. Only our own messages are known to quote nothing that must not be seen."""
    name = type(error).__name__
    return redact(f"{name}: {error}.") if isinstance(error, OperatorError) else f"{name}."


class ConditionsShown(Protocol):
    """Shows what the statuses say to who does not read resources. See `metrics.Conditions`."""

    def told(self, namespace: str, cluster: str, key: Key, status: Mapping[str, Any]) -> None: ...

    def keep(self, namespace: str, cluster: str, keys: Iterable[Key]) -> None: ...


class Publisher:
    """Writes statuses and Events, and shows what the statuses say."""

    def __init__(self, api: ApiServer, events: Events, shown: ConditionsShown) -> None:
        self._api = api
        self._events = events
        self._shown = shown

    async def publish(
        self,
        entries: Mapping[Key, Entry],
        cluster: ClusterKey,
        statuses: Statuses,
        trace: str,
        overtaken: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Write the statuses that differ from the documents', which are brought up to date.

        Args:
            overtaken: something has changed that matters more than the rest of many statuses, which the
                next reconcile writes; some are written all the same.

        Returns whether all were: one whose resource was changed since it was read is not.

        Raises:
            ApiError: the API server could not be asked.
        """
        gate, began = asyncio.Semaphore(_AT_ONCE), time.monotonic()

        async def write(key: Key, status: dict[str, Any]) -> bool:
            async with gate:
                if overtaken() and time.monotonic() - began > _AT_LEAST_S:
                    return False
                return await self._write(entries[key], cluster.namespace, status, trace)

        differing = [
            write(key, status)
            for key, status in statuses.items()
            if changed(entries[key].document.get("status"), status)
        ]
        try:
            return all(await asyncio.gather(*differing))
        finally:
            for key in statuses:
                self._shown.told(cluster.namespace, cluster.cluster, key, entries[key].status)

    def forget(self, cluster: ClusterKey, left: Iterable[Key] = ()) -> None:
        """Show nothing any more of what belonged to a cluster, but for what is `left` of it."""
        self._shown.keep(cluster.namespace, cluster.cluster, left)

    async def tell_of_failure(self, key: ClusterKey, error: Exception, trace: str, now: datetime) -> None:
        """Say on a ServingCluster that its reconcile failed. Never fails itself."""
        known = isinstance(error, OperatorError)
        logger.log(
            logging.WARNING if known else logging.ERROR,
            "reconcile of %s failed: %s",
            key,
            safe_text(error),
            exc_info=None if known else error,
            extra={"trace_id": trace},
        )
        try:
            document = await self._api.get(SERVING_CLUSTER, key.namespace, key.cluster)
            entry = read_entry(SERVING_CLUSTER.kind, document)
            status = with_error(document.get("status") or {}, entry, error, now)
            await self.publish({entry.key: entry}, key, {entry.key: status}, trace)
        except (NotFound, Unreachable):
            return
        except Exception as second:
            logger.warning("the failure of %s could not be told: %s", key, safe_text(second))

    async def _write(self, entry: Entry, namespace: str, status: dict[str, Any], trace: str) -> bool:
        document: Any = entry.document
        uid, version = (str(document["metadata"][field]) for field in ("uid", "resourceVersion"))
        try:
            written = await self._api.put_status(
                CUSTOM_KINDS[entry.kind], namespace, entry.name, uid, version, status
            )
        except (NotFound, Conflict):
            # Gone, or written by someone since it was read: the next reconcile reads it anew.
            return False
        except Invalid as error:
            # Another object of its name by now, or a bug of ours: neither may stop the others.
            logger.warning("a status was refused: %s", error, extra={"namespace": namespace})
            return False
        notes = transitions(entry.key, document.get("status"), status)
        document["status"] = status
        document["metadata"]["resourceVersion"] = written["metadata"]["resourceVersion"]
        for note in notes:
            await self.tell(entry, note, trace)
        return True

    async def tell(self, entry: Entry, note: EventNote, trace: str) -> None:
        """Write an Event. Never fails."""
        await self._events.emit(
            entry.document, note.type, note.reason, note.message, action="Reconcile", trace=trace
        )
