"""One reconcile of one ServingCluster: read, decide, apply, look, tell.

Level-triggered: what is done depends on what is there, never on which event came. How much is read depends
on what is known to have changed, so that a change costs few requests:

- everything (custom resources, Secrets, all that the cluster owns) at first, after a failure, and every
  `resyncSeconds`, which catches whatever no watch has told;
- the custom resources of the kinds that have changed, and the RayService;
- the RayService alone when only that has changed, or something is on its way.

The steps of pure computation run in a thread: with a thousand models they take long enough for a Lease or
a probe to be late.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol

from opentelemetry.trace import Span, StatusCode, Tracer, format_trace_id

from tradewind_operator.api import Api
from tradewind_operator.apply import Applier
from tradewind_operator.credentials import Credentials
from tradewind_operator.desired.objects import desired_objects
from tradewind_operator.desired.world import ClusterWorld, Defaults
from tradewind_operator.errors import Conflict, NotFound, OperatorError, Unreachable
from tradewind_operator.gathering import Gatherer
from tradewind_operator.kinds import RAY_SERVICE, SERVING_CLUSTER
from tradewind_operator.kinds import Resource as Kind
from tradewind_operator.kube import calls_made
from tradewind_operator.memory import Memory
from tradewind_operator.plan import Plan, plan
from tradewind_operator.policy.decision import Decision
from tradewind_operator.policy.finalizers import finalizer_changes
from tradewind_operator.policy.namespace import read_entry
from tradewind_operator.publish import (
    Publisher,
    Statuses,
    is_settled,
    safe_text,
    statuses_of,
    with_error,
)
from tradewind_operator.reading import read_ray_clusters, service_ref
from tradewind_operator.routing import Key
from tradewind_operator.status.cluster import cluster_status
from tradewind_operator.status.draining import ended
from tradewind_operator.status.live import Live, Upgrade, UpgradeState
from tradewind_operator.status.observation import Observation
from tradewind_operator.status.transitions import WARNING, EventNote

logger = logging.getLogger(__name__)

_SOON_S: Final = 0.2


class Eyes(Protocol):
    """Reads what a platform says about itself; never fails."""

    async def read(self, serve_url: str, gateway_url: str, credentials: Credentials) -> Live: ...


class Metrics(Protocol):
    """Told of every reconcile."""

    def reconciled(self, seconds: float, error: BaseException | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What the settings say about reconciles."""

    defaults: Defaults
    serve_url: Callable[[str, str], str]
    """Of namespace and cluster."""
    gateway_url: Callable[[str, str], str]
    resync_s: float = 30.0
    active_resync_s: float = 2.0


class Reconciler:
    """Reconciles by key; the work of a WorkQueue, which never has one key worked on twice at a time."""

    def __init__(
        self,
        api: Api,
        gatherer: Gatherer,
        eyes: Eyes,
        publisher: Publisher,
        terms: Terms,
        metrics: Metrics,
        tracer: Tracer,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._gatherer = gatherer
        self._eyes = eyes
        self._publisher = publisher
        self._terms = terms
        self._metrics = metrics
        self._tracer = tracer
        self._applier = Applier(api, tracer)
        self._clock = clock
        self._now = now
        self._memories: dict[Key, Memory] = {}

    def changed(self, key: Key, *kinds: Kind) -> None:
        """Custom resources of its namespace, of these kinds or of any, have changed: the decision is old."""
        if (memory := self._memories.get(key)) is not None:
            memory.mark(*kinds)

    async def __call__(self, key: Key) -> float | None:
        """Returns seconds until the key is due again by itself; None when there is nothing of it.

        Raises:
            Exception: whatever went wrong, after the ServingCluster's status says so.
        """
        calls: Counter[str] = Counter()
        calls_made.set(calls)
        began = time.monotonic()
        with self._tracer.start_as_current_span(
            "reconcile",
            attributes={"tradewind.cluster": key.cluster, "k8s.namespace.name": key.namespace},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            trace, failure = format_trace_id(span.get_span_context().trace_id), None
            memory = self._memories.setdefault(key, Memory())
            try:
                return await self._reconcile(key, memory, trace)
            except Exception as error:
                failure = error
                memory.distrust()
                await self._report(key, error, trace)
                raise
            finally:
                self._metrics.reconciled(time.monotonic() - began, failure)
                _describe(span, failure, calls)

    async def _reconcile(self, key: Key, memory: Memory, trace: str) -> float | None:
        created_before = memory.credentials is not None
        await self._gatherer.gather(key, memory, self._clock())
        decision = memory.decision
        assert decision is not None
        if not decision.entries:
            del self._memories[key]
            return None
        try:
            await self._applier.change_finalizers(
                key.namespace, finalizer_changes(decision, ()), decision.entries
            )
        except Conflict:
            memory.mark()
            return _SOON_S
        await self._tell_of_credentials(memory, decision, trace, known=created_before)
        problem, waiting = await self._bring_in(key, memory, decision, trace)
        memory.live = await self._look(key, memory)
        seen = self._observe(key, memory, decision)
        statuses = await asyncio.to_thread(statuses_of, seen)
        own = ("ServingCluster", key.cluster)
        if problem is not None:
            statuses[own] = with_error(statuses[own], decision.entries[own], problem, self._now())
        await self._publisher.publish(
            decision.entries, key.namespace, statuses, trace, overtaken=lambda: memory.changed
        )
        await self._release(key, memory, seen)
        if problem is not None:
            raise problem
        return self._again(statuses, decision, waiting=waiting)

    async def _bring_in(
        self, key: Key, memory: Memory, decision: Decision, trace: str
    ) -> tuple[OperatorError | None, bool]:
        """Apply what is decided. Returns what went wrong, which must not keep the status from being told,
        and whether another pass has to follow."""
        if decision.compiled is None or decision.spec is None:
            return None, False
        seen = self._observe(key, memory, decision)
        world = self._world(key, seen)
        planned = await asyncio.to_thread(lambda: plan(desired_objects(world), memory.observed))
        memory.upgrade = _upgrade(planned, memory, seen)
        try:
            if memory.upgrade.state is UpgradeState.NEEDED:
                await self._announce(key, memory, decision, trace)
            await self._applier.carry_out(planned, key.cluster, memory.observed)
            if planned.upgrade is not None and planned.upgrade.kind == "in-place":
                await self._resize(key, memory, world)
        except OperatorError as error:
            return error, False
        return None, planned.waiting

    async def _resize(self, key: Key, memory: Memory, world: ClusterWorld) -> None:
        """Bring new sizes into the Ray clusters that run."""
        service = memory.observed.get(service_ref(key.namespace, key.cluster))
        memory.observed |= await read_ray_clusters(self._api, service)
        planned = await asyncio.to_thread(lambda: plan(desired_objects(world), memory.observed))
        await self._applier.carry_out(planned, key.cluster, memory.observed)

    async def _announce(self, key: Key, memory: Memory, decision: Decision, trace: str) -> None:
        """Say that a second Ray cluster will be built, before it is."""
        entry = decision.entries["ServingCluster", key.cluster]
        status = cluster_status(entry, self._observe(key, memory, decision))
        await self._publisher.publish(decision.entries, key.namespace, {entry.key: status}, trace)
        memory.upgrade = Upgrade(UpgradeState.IN_PROGRESS, memory.upgrade.reasons, memory.upgrade.gpus)

    async def _look(self, key: Key, memory: Memory) -> Live:
        service = memory.observed.get(service_ref(key.namespace, key.cluster))
        if service is None or memory.credentials is None or not service.get("status"):
            return Live()
        serve, gateway = self._terms.serve_url(*key), self._terms.gateway_url(*key)
        return await self._eyes.read(serve, gateway, memory.credentials)

    async def _release(self, key: Key, memory: Memory, seen: Observation) -> None:
        """Let go what has ended."""
        decision = seen.decision
        removals = [change for change in finalizer_changes(decision, ended(seen)) if not change.add]
        try:
            await self._applier.change_finalizers(key.namespace, removals, decision.entries)
        except Conflict:
            memory.mark()
        if removals:
            memory.mark()

    async def _tell_of_credentials(
        self, memory: Memory, decision: Decision, trace: str, *, known: bool
    ) -> None:
        """Credentials that were made anew under a running cluster: it has others in memory."""
        made = memory.credentials
        if made is None or not made.created:
            return
        memory.credentials = replace(made, created=False)
        if not known and not any(ref.kind == RAY_SERVICE.kind for ref in memory.observed):
            return
        entry = decision.entries.get(("ServingCluster", decision.cluster))
        if entry is not None:
            text = (
                f"Secret {decision.cluster}-auth was gone or lacked keys, and has new ones: pods that run"
                " keep the old ones until they are made anew."
            )
            note = EventNote(entry.kind, entry.name, WARNING, "CredentialsRecreated", text)
            await self._publisher.tell(entry, note, trace)

    async def _report(self, key: Key, error: Exception, trace: str) -> None:
        """Say on the ServingCluster that the reconcile failed. Never fails itself."""
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
            status = with_error(document.get("status") or {}, entry, error, self._now())
            await self._publisher.publish({entry.key: entry}, key.namespace, {entry.key: status}, trace)
        except (NotFound, Unreachable):
            return
        except Exception as second:
            logger.warning("the failure of %s could not be told: %s", key, safe_text(second))

    def _world(self, key: Key, seen: Observation) -> ClusterWorld:
        decision, service = seen.decision, seen.service
        assert decision.spec is not None
        assert decision.compiled is not None
        return ClusterWorld(
            name=key.cluster,
            namespace=key.namespace,
            uid=str(decision.entries["ServingCluster", key.cluster].document["metadata"]["uid"]),
            spec=decision.spec,
            compiled=decision.compiled,
            defaults=self._terms.defaults,
            active_ray_cluster=service.active if service is not None else None,
        )

    def _observe(self, key: Key, memory: Memory, decision: Decision) -> Observation:
        service = memory.observed.get(service_ref(key.namespace, key.cluster))
        return Observation(decision, service, memory.live, memory.upgrade, self._now())

    def _again(self, statuses: Statuses, decision: Decision, *, waiting: bool) -> float:
        settled = is_settled(statuses) and not waiting and not decision.draining
        return self._terms.resync_s if settled else self._terms.active_resync_s


def _upgrade(planned: Plan, memory: Memory, seen: Observation) -> Upgrade:
    """What the status says about a second Ray cluster, until it has taken over."""
    change = planned.upgrade
    if change is not None and change.kind == "new-cluster":
        state = UpgradeState.HELD if change.held else UpgradeState.NEEDED
        return Upgrade(state, change.reasons, change.gpus)
    service = seen.service
    under_way = service is not None and (
        service.upgrading or not service.current or service.pending is not None
    )
    keeps = memory.upgrade.state is UpgradeState.IN_PROGRESS and under_way
    return memory.upgrade if keeps else Upgrade()


def _describe(span: Span, failure: Exception | None, calls: Counter[str]) -> None:
    span.set_attribute("tradewind.result", "error" if failure is not None else "ok")
    span.set_attribute("tradewind.api_calls", calls.total())
    if failure is not None:
        span.set_attribute("error.type", type(failure).__name__)
        span.set_status(StatusCode.ERROR)
