"""The ServingCluster that comes with a release of the chart.

The chart cannot make it: Helm refuses a resource whose definition is in the same release. It writes the
manifest into a ConfigMap, and the leading operator sees to it that the ServingCluster is there:

- missing, by whatever hand: it is made again;
- the ConfigMap says something else than what was applied last, after an upgrade, a rollback or a sync: it is
  applied, on the server's side and with a field manager of the chart's own. What is no longer in the values
  goes, what others set stays;
- neither: nothing is written. What somebody changed by hand stays until the next change of the chart;
- no ConfigMap, because the release is gone or `cluster.create` is false: nothing is written or deleted.

What was applied last is on the ServingCluster itself, as a digest: no revision is missed while no operator
runs, and none is applied twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from tradewind.api.wire import digest
from tradewind_operator.errors import ApiError, NotFound, OperatorError
from tradewind_operator.kinds import CONFIG_MAP, SERVING_CLUSTER, Resource

logger = logging.getLogger(__name__)

MANIFEST: Final = "cluster.json"
FIELD_MANAGER: Final = "tradewind-chart"
RELEASE: Final = "tradewind.dev/release"
DIGEST: Final = "tradewind.dev/release-digest"
PERIOD_S: Final = 5.0
TELL_AGAIN_S: Final = 600.0
"""What is wrong is told again so often while it lasts: Events go after an hour."""

Object = dict[str, Any]


class ReleaseError(OperatorError):
    """The ConfigMap cannot be carried out: says what was found and what would be right."""


class Clusters(Protocol):
    """What is needed of the API."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object: ...

    async def apply(self, manifest: Mapping[str, Any], *, manager: str) -> Object: ...


class Teller(Protocol):
    """See `events.Events`."""

    async def emit(
        self,
        about: Mapping[str, Any],
        kind: Literal["Normal", "Warning"],
        reason: str,
        note: str,
        *,
        action: str,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where the chart writes: a ConfigMap of the operator's own namespace."""

    namespace: str
    config_map: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A ServingCluster as the chart wants it."""

    name: str
    release: str
    digest: str
    manifest: Object
    """With the digest among its annotations."""


def wanted(config_map: Mapping[str, Any]) -> Wanted:
    """Read the ConfigMap. Raises ReleaseError when it does not hold a ServingCluster of its namespace."""
    metadata = config_map["metadata"]
    at = f"ConfigMap {metadata['name']}, key {MANIFEST}"
    try:
        manifest = json.loads((config_map.get("data") or {})[MANIFEST])
        kind = (manifest["apiVersion"], manifest["kind"])
        name, namespace = str(manifest["metadata"]["name"]), manifest["metadata"]["namespace"]
        release = str(manifest["metadata"]["annotations"][RELEASE])
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError(
            f"{at}: found no ServingCluster ({type(error).__name__}); allowed: one with a name, a namespace"
            f" and the annotation {RELEASE}, in JSON, as the chart writes it"
        ) from None
    if kind != (SERVING_CLUSTER.api_version, SERVING_CLUSTER.kind) or namespace != metadata["namespace"]:
        raise ReleaseError(
            f"{at}: found {kind[1]} ({kind[0]}) of namespace {namespace}; allowed: a {SERVING_CLUSTER.kind}"
            f" ({SERVING_CLUSTER.api_version}) of namespace {metadata['namespace']}"
        )
    marked = digest(manifest)
    manifest["metadata"]["annotations"][DIGEST] = marked
    return Wanted(name, release, marked, manifest)


def to_be_applied(want: Wanted, found: Mapping[str, Any] | None) -> bool:
    """Whether `want` must be written, when the ServingCluster is `found` (None: there is none).

    Raises ReleaseError when it is another release's. One that no release has made is taken over.
    """
    if found is None:
        return True
    metadata = found["metadata"]
    annotations = metadata.get("annotations") or {}
    owner = annotations.get(RELEASE, want.release)
    if owner != want.release:
        raise ReleaseError(
            f"ServingCluster {want.name}: found one of release {owner}; allowed: set cluster.name of release"
            f" {want.release} to another name, or cluster.create=false to use that one"
        )
    if metadata.get("deletionTimestamp"):
        return False  # it is made again when it is gone
    return bool(annotations.get(DIGEST) != want.digest)


class ReleaseCluster:
    """Keeps the ServingCluster of one release until cancelled.

    Args:
        observe: told the ServingCluster's namespace and name and, after every look, whether what the chart
            says is in force; None when the chart says nothing.
    """

    def __init__(
        self,
        api: Clusters,
        events: Teller,
        place: Place,
        observe: Callable[[str, str, bool | None], None],
        *,
        period_s: float = PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._events = events
        self._place = place
        self._observe = observe
        self._period_s = period_s
        self._clock = clock
        self._sleep = sleep
        self._told = ""
        self._told_at = float("-inf")

    async def run(self) -> None:
        """Look, and look again, for ever. Nothing that is wrong with the ServingCluster ends it."""
        while True:
            await self.look()
            await self._sleep(self._period_s)

    async def look(self) -> None:
        """Once: read the ConfigMap and the ServingCluster, and write what must be written."""
        place = self._place
        try:
            config = await self._find(CONFIG_MAP, place.config_map)
        except ApiError as error:
            return self._log(str(error))
        if config is None:
            self._observe(place.namespace, "", None)
            return self._log(f"no ConfigMap {place.config_map}: the ServingCluster is left as it is")
        try:
            want = wanted(config)
        except ReleaseError as error:
            self._observe(place.namespace, "", False)
            return await self._tell(config, str(error))
        try:
            found = await self._find(SERVING_CLUSTER, want.name)
            if to_be_applied(want, found):
                await self._apply(want, found)
        except (ReleaseError, ApiError) as error:
            self._observe(place.namespace, want.name, False)
            return await self._tell(config, str(error))
        self._observe(place.namespace, want.name, True)
        self._told = ""
        return None

    async def _find(self, resource: Resource, name: str) -> Object | None:
        try:
            return await self._api.get(resource, self._place.namespace, name)
        except NotFound:
            return None

    async def _apply(self, want: Wanted, found: Object | None) -> None:
        made = await self._api.apply(want.manifest, manager=FIELD_MANAGER)
        logger.info(
            "the release's ServingCluster was applied",
            extra={"cluster": want.name, "release": want.release, "digest": want.digest},
        )
        verb = "Changed" if found is not None else "Made"
        note = (
            f"{verb} as release {want.release} says. What the release says comes from ConfigMap"
            f" {self._place.config_map}: without that, or with cluster.create=false, it is left alone."
        )
        about = {"apiVersion": SERVING_CLUSTER.api_version, "kind": SERVING_CLUSTER.kind} | made
        await self._events.emit(about, "Normal", "AppliedByRelease", note, action="ApplyRelease")

    async def _tell(self, config: Object, text: str) -> None:
        """Log it and say it in an Event of the ConfigMap; the same again only after a while."""
        if text == self._told and self._clock() - self._told_at < TELL_AGAIN_S:
            return
        self._log(text)
        self._told_at = self._clock()
        about = {"apiVersion": CONFIG_MAP.api_version, "kind": CONFIG_MAP.kind} | config
        await self._events.emit(about, "Warning", "ReleaseNotApplied", text, action="ApplyRelease")

    def _log(self, text: str) -> None:
        if text != self._told:
            logger.warning("the release's ServingCluster: %s", text)
        self._told = text
