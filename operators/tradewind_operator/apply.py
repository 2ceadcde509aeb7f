"""Carries a plan out. The only writer of what the operator owns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from opentelemetry.trace import Span, Tracer

from tradewind_operator.api_server import ApiServer
from tradewind_operator.desired.metadata import is_ours
from tradewind_operator.desired.world import Manifest
from tradewind_operator.errors import AlreadyExists, Conflict, NotFound, NotOurs
from tradewind_operator.kinds import CUSTOM_KINDS, POD, RAY_CLUSTER, resource_of
from tradewind_operator.kinds import Resource as Kind
from tradewind_operator.planning.objects import ObjectRef, ObjectsPlan, Observed
from tradewind_operator.policy.finalizers import FinalizerChange
from tradewind_operator.policy.namespace import Entry
from tradewind_operator.policy.verdict import Key

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 8


class Applier:
    """Applies, deletes and patches, in the plan's order, with a span for each."""

    def __init__(self, api: ApiServer, tracer: Tracer) -> None:
        self._api = api
        self._tracer = tracer

    async def carry_out(self, plan: ObjectsPlan, cluster: str, observed: Observed) -> None:
        """Do all of it, and bring `observed` up to date.

        Raises:
            NotOurs: someone else's object has a name that is needed.
            ApiError: the API server refused something; what came before it is done.
        """
        for manifest in plan.apply:
            with self._span("apply", manifest["kind"], manifest["metadata"]["name"]):
                await self._apply(manifest, cluster, observed)
        for ref in plan.delete:
            with self._span("delete", ref.kind, ref.name):
                await self._delete(ref, observed)

    async def create_cluster(self, manifest: Manifest, cluster: str, observed: Observed) -> None:
        """Make a RayCluster. It is not applied: from then on its groups are the autoscaler's, too.

        Raises:
            NotOurs: someone else has one of that name.
            ApiError: the API server refused it.
        """
        ref = ObjectRef.of(manifest)
        with self._span("create", ref.kind, ref.name):
            try:
                observed[ref] = await self._api.create(manifest)
            except AlreadyExists:
                await self._check_owner(RAY_CLUSTER, ref, cluster)

    async def patch_cluster(self, ref: ObjectRef, patch: Mapping[str, Any], observed: Observed) -> bool:
        """Merge a patch into a RayCluster. Returns False when it was written since it was read, or is gone.

        Raises:
            ApiError: the API server refused it.
        """
        with self._span("patch", ref.kind, ref.name):
            try:
                observed[ref] = await self._api.merge_patch(RAY_CLUSTER, ref.namespace, ref.name, patch)
            except (NotFound, Conflict) as error:
                logger.info("not patched: %s", error)
                observed.pop(ref, None)
                return False
        return True

    async def delete_cluster(self, ref: ObjectRef, observed: Observed) -> None:
        """Delete a RayCluster and its pods. Raises ApiError."""
        with self._span("delete", ref.kind, ref.name):
            await self._delete(ref, observed)

    async def label_pods(self, namespace: str, changes: Mapping[str, Mapping[str, str | None]]) -> None:
        """Change labels by pod; one that is gone is left alone. Raises ApiError."""
        for name, labels in changes.items():
            try:
                await self._api.merge_patch(POD, namespace, name, {"metadata": {"labels": dict(labels)}})
            except (NotFound, Conflict) as error:
                logger.info("not labelled: %s", error)

    async def change_finalizers(
        self, namespace: str, changes: Iterable[FinalizerChange], entries: Mapping[Key, Entry]
    ) -> None:
        """Set or take away finalizers, and bring the documents of the entries up to date.

        Raises:
            Conflict: a resource was changed since it was read; the others are done.
            ApiError: the API server could not be asked.
        """
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(change: FinalizerChange) -> None:
            async with gate:
                with self._span("finalize", change.kind, change.name):
                    await self._change_finalizer(namespace, change, entries[change.kind, change.name])

        results = await asyncio.gather(*map(one, changes), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _change_finalizer(self, namespace: str, change: FinalizerChange, entry: Entry) -> None:
        document: Any = entry.document
        metadata = document["metadata"]
        others = [name for name in metadata.get("finalizers") or () if name != change.finalizer]
        wanted = [*others, change.finalizer] if change.add else others
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": wanted}}
        try:
            found = await self._api.merge_patch(CUSTOM_KINDS[change.kind], namespace, change.name, patch)
        except NotFound:
            return
        metadata.update({key: found["metadata"].get(key) for key in ("resourceVersion", "finalizers")})

    async def _apply(self, manifest: Manifest, cluster: str, observed: Observed) -> None:
        ref = ObjectRef.of(manifest)
        if ref not in observed:
            # What is not known to be ours by its labels may be there all the same, as someone else's.
            await self._check_owner(resource_of(manifest), ref, cluster)
        observed[ref] = await self._api.apply(manifest)

    async def _check_owner(self, kind: Kind, ref: ObjectRef, cluster: str) -> None:
        try:
            found = await self._api.get(kind, ref.namespace, ref.name)
        except NotFound:
            return
        if not is_ours(found, cluster):
            raise NotOurs(
                f"{ref.kind} {ref.namespace}/{ref.name} was not made by Tradewind and stays as it is;"
                " rename it or the ServingCluster"
            )

    async def _delete(self, ref: ObjectRef, observed: Observed) -> None:
        found = observed[ref]
        try:
            await self._api.delete(resource_of(found), ref.namespace, ref.name, found["metadata"].get("uid"))
        except (NotFound, Conflict) as error:
            logger.info("nothing to delete: %s", error)
        observed.pop(ref)

    def _span(self, verb: str, kind: str, name: str) -> AbstractContextManager[Span]:
        return self._tracer.start_as_current_span(
            f"{verb} {kind}",
            attributes={"k8s.object.kind": kind, "k8s.object.name": name},
            record_exception=False,
        )
