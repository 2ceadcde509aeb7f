"""Kubernetes Events (events.k8s.io/v1): what happened to a resource, for `kubectl describe` and `events`.

The same thing said again within ten minutes raises the count of the Event that is there. An Event is a
courtesy: when it cannot be written, that is logged and nothing else fails.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from tradewind.telemetry.redaction import redact
from tradewind_operator.errors import ApiError, NotFound
from tradewind_operator.kinds import EVENT, Resource

logger = logging.getLogger(__name__)

CONTROLLER: Final = "tradewind.dev/operator"
AGAIN_S: Final = 600.0
_MAX_NOTE: Final = 1_000
_MAX_DISTINCT: Final = 10
"""Different notes for one reason on one object in ten minutes; more count as the last of them."""
_MAX_REMEMBERED: Final = 10_000

Type = Literal["Normal", "Warning"]


class EventWriter(Protocol):
    """What Events need of the API."""

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]: ...

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, Any]
    ) -> dict[str, Any]: ...


@dataclass(slots=True)
class _Said:
    name: str
    note: str
    at: float
    count: int = 1


class Events:
    """Writes Events about objects, each thing once.

    Args:
        instance: which replica speaks.
        random_name: 16 hex digits or so, for an Event's name.
    """

    def __init__(
        self,
        api: EventWriter,
        instance: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        random_name: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self._api = api
        self._instance = instance[:128]
        self._clock = clock
        self._now = now
        self._random_name = random_name
        self._said: dict[tuple[str, str], list[_Said]] = {}

    async def emit(
        self, about: Mapping[str, Any], kind: Type, reason: str, note: str, *, action: str, trace: str = ""
    ) -> None:
        """Say that `reason` happened to the object `about`.

        Args:
            note: a sentence for people; what looks like a secret is cut out.
            action: what the operator was doing, in CamelCase.
            trace: id of the trace in which it happened.
        """
        uid, at = str(about["metadata"].get("uid")), self._clock()
        note = redact(note)[:_MAX_NOTE]
        before = [said for said in self._said.get((uid, reason), []) if at - said.at < AGAIN_S]
        same = next((said for said in before if said.note == note), None)
        if same is None and len(before) >= _MAX_DISTINCT:
            same = before[-1]
        try:
            if same is not None and await self._again(about["metadata"]["namespace"], same):
                return
            before = [said for said in before if said is not same]
            said = _Said(f"{about['metadata']['name'][:230]}.{self._random_name()}", note, at)
            await self._api.create(self._event(about, said.name, kind, reason, note, action, trace))
        except ApiError as error:
            logger.warning("an Event was not written: %s", error)
            return
        self._remember((uid, reason), [*before, said])

    async def _again(self, namespace: str, said: _Said) -> bool:
        """Raise the count; False when the Event is gone."""
        series = {"count": said.count + 1, "lastObservedTime": self._timestamp()}
        try:
            await self._api.merge_patch(EVENT, namespace, said.name, {"series": series})
        except NotFound:
            return False
        said.count += 1
        return True

    def _event(
        self,
        about: Mapping[str, Any],
        name: str,
        kind: Type,
        reason: str,
        note: str,
        action: str,
        trace: str,
    ) -> dict[str, Any]:
        metadata = about["metadata"]
        regarding = {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata.get("uid"),
            "resourceVersion": metadata.get("resourceVersion"),
        }
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {
                "namespace": metadata["namespace"],
                "name": name,
                "annotations": {"tradewind.dev/trace": trace} if trace else {},
            },
            "eventTime": self._timestamp(),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": action,
            "reason": reason,
            "type": kind,
            "regarding": {key: value for key, value in regarding.items() if value},
            "note": f"{note} (trace {trace})" if trace else note,
        }

    def _remember(self, key: tuple[str, str], said: list[_Said]) -> None:
        self._said.pop(key, None)
        self._said[key] = said
        while len(self._said) > _MAX_REMEMBERED:
            del self._said[next(iter(self._said))]

    def _timestamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
