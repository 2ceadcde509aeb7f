"""Gathers what a decision needs, as far as it may have changed, and decides."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from typing import Final

from tradewind_operator.api_server import ApiServer
from tradewind_operator.credentials import ClusterSecrets, Values, digest_values, read_secrets
from tradewind_operator.kinds import CUSTOM, RAY_CLUSTER
from tradewind_operator.memory import Memory
from tradewind_operator.policy.decide import decide
from tradewind_operator.policy.images import AllowedImages
from tradewind_operator.policy.namespace import Namespace
from tradewind_operator.policy.secrets import wanted_secrets
from tradewind_operator.reading import (
    read_documents,
    read_earlier,
    read_owned,
    read_pods,
    read_ray_clusters,
    read_storage_class,
)
from tradewind_operator.status.conditions import ACCEPTED, FALSE, condition_of
from tradewind_operator.wakeups import ClusterKey

_SECRETS_PER_S: Final = 50.0
"""People's Secrets are read again at this rate at most, however many there are."""

Homes = Callable[[str, Iterable[str]], None]
"""Told a namespace and all its ServingClusters, those included that are only spoken of."""


class Gatherer:
    """Brings a memory up to date with the API server.

    Args:
        resync_s: what was read is believed for so long, unless a watch has told otherwise.
        secrets_s: people's Secrets are believed for so long: nothing watches them, and a key that was taken
            out of one must soon open nothing any more.
    """

    def __init__(
        self, api: ApiServer, allowed: AllowedImages, resync_s: float, homes: Homes, secrets_s: float = 1.0
    ) -> None:
        self._api = api
        self._allowed = allowed
        self._resync_s = resync_s
        self._secrets_s = secrets_s
        self._homes = homes
        self._no_hash_key = secrets.token_bytes(32)

    async def gather(self, key: ClusterKey, memory: Memory, now: float) -> bool:
        """Read what is due and decide where there is something new.

        Returns whether there is something to carry out or to look at.

        Raises:
            OperatorError: something could not be read.
        """
        full, looks = now - memory.full_at >= self._resync_s, now >= memory.look_at
        if full:
            memory.observed = await read_owned(self._api, key.namespace, key.cluster)
            memory.storage_class_exists = await read_storage_class(self._api)
            memory.earlier = await read_earlier(self._api, key.namespace, key.cluster)
        elif looks or memory.changed:
            kept = {ref: there for ref, there in memory.observed.items() if ref.kind != RAY_CLUSTER.kind}
            memory.observed = kept | await read_ray_clusters(self._api, key.namespace, key.cluster)
        if full or memory.decision is None:
            memory.mark()
        decided = await self._decide(key, memory, now, full=full)
        if decided and _refuses_more(memory):
            # News of a kind may be ahead of those of another that they go with.
            memory.mark()
            await self._decide(key, memory, now, full=full)
        if full or looks or decided:
            memory.pods = await read_pods(self._api, key.namespace, key.cluster)
        if full:
            memory.full_at = now
        return full or looks or decided

    def secrets_due(self, memory: Memory) -> float:
        """When people's Secrets are to be read again."""
        names = {item.name for item in memory.wanted}
        return memory.secrets_at + max(self._secrets_s, len(names) / _SECRETS_PER_S)

    async def _decide(self, key: ClusterKey, memory: Memory, now: float, *, full: bool) -> bool:
        """Returns whether there was anything new to decide."""
        changed = memory.changed
        if changed:
            # Before the reading: what changes while it is done counts as new.
            kinds, memory.stale = memory.stale, set()
            documents = await read_documents(self._api, key.namespace, kinds, memory.documents)
            memory.documents, memory.listed_all = documents, kinds >= set(CUSTOM)
            memory.namespace = await asyncio.to_thread(Namespace.of, documents)
        namespace = memory.namespace
        assert namespace is not None
        before = dict(memory.secrets)
        values = await self._read_secrets(key, namespace, memory, now, full=full)
        if not changed and memory.secrets == before:
            return False
        if not changed and memory.documents is not None:
            # What was accepted since they were listed stands in them by now, and may have to go on.
            memory.namespace = namespace = await asyncio.to_thread(Namespace.of, memory.documents)
        memory.decision = await asyncio.to_thread(
            decide, key.cluster, namespace, memory.secrets, self._allowed
        )
        self._homes(key.namespace, namespace.homes())
        if memory.decision.compiled is not None:
            await self._put_tokens(key, namespace, memory, values)
        return True

    async def _read_secrets(
        self, key: ClusterKey, namespace: Namespace, memory: Memory, now: float, *, full: bool
    ) -> Values:
        """Returns the values that were read, for the tokens; only what may be known of them is kept."""
        uid = _uid(namespace, key.cluster)
        before = memory.credentials
        if uid is None:
            memory.credentials = None
        elif full or before is None:
            memory.credentials = await ClusterSecrets(self._api, *key, uid).ensure()
        hash_key = memory.credentials.hash_key if memory.credentials is not None else self._no_hash_key
        wanted = wanted_secrets(namespace)
        due = now >= self.secrets_due(memory) or before is None or before.hash_key != hash_key
        names = {item.name for item in (wanted if due else wanted - memory.wanted)}
        values = await read_secrets(self._api, key.namespace, names)
        fresh = dict(digest_values((item for item in wanted if item.name in names), values, hash_key))
        places = {(item.name, item.key) for item in wanted}
        kept = {place: value for place, value in memory.secrets.items() if place in places}
        memory.secrets, memory.wanted = kept | fresh, wanted
        if due:
            memory.secrets_at = now
        if full:
            memory.tokens = None
        return values

    async def _put_tokens(
        self, key: ClusterKey, namespace: Namespace, memory: Memory, values: Values
    ) -> None:
        assert memory.decision is not None
        assert memory.decision.compiled is not None
        uses, uid = frozenset(memory.decision.compiled.secrets), _uid(namespace, key.cluster)
        if uses == memory.tokens or uid is None:
            return
        unread = {use.name for use in uses} - values.keys()
        values = {**values, **await read_secrets(self._api, key.namespace, unread)}
        await ClusterSecrets(self._api, *key, uid).put_tokens(uses, values)
        memory.tokens = uses


def _refuses_more(memory: Memory) -> bool:
    """Something is refused that was not before, on the ground of lists of different moments."""
    decision = memory.decision
    return (
        not memory.listed_all
        and decision is not None
        and any(condition_of(entry.status, ACCEPTED).get("status") != FALSE for entry in decision.refused)
    )


def _uid(namespace: Namespace, cluster: str) -> str | None:
    """Of the ServingCluster; None where there is none."""
    entry = namespace.clusters.get(cluster)
    return None if entry is None else str(entry.document["metadata"]["uid"])
