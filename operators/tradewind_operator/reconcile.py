"""One reconcile of one ServingCluster: read, decide, send live data, carry out, look, tell.

Level-triggered: what is done depends on what is there, never on which event came. How much is read depends
on what is known to have changed:

- everything (custom resources, Secrets, all that the cluster owns) at first, after a failure, and every
  `resyncSeconds`, which catches whatever no watch has told;
- the custom resources of the kinds that have changed, the RayClusters and the pods;
- the RayClusters and the pods alone when only those have changed, something is on its way, or it is time to
  look whether all is well;
- the Secrets that resources name, between those, because nothing watches them.

Live data (routes, weights, keys, limits) is sent to every Ray cluster before anything else is done, and each
part goes on where another fails. The steps of pure computation run in a thread: with a thousand models they
take long enough for a Lease or a probe to be late.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from opentelemetry.trace import Span, StatusCode, Tracer, format_trace_id

from tradewind_operator.api_server import ApiServer
from tradewind_operator.apply import Applier
from tradewind_operator.desired.raycluster import ray_cluster
from tradewind_operator.desired.world import Defaults
from tradewind_operator.errors import Conflict
from tradewind_operator.gathering import Gatherer
from tradewind_operator.kinds import SERVING_CLUSTER
from tradewind_operator.kinds import Resource as Kind
from tradewind_operator.kube import calls_made
from tradewind_operator.live_data import Address, ClusterTender, LiveData
from tradewind_operator.memory import NEVER, Memory
from tradewind_operator.policy.decision import Decision
from tradewind_operator.policy.finalizers import finalizer_changes
from tradewind_operator.publish import Publisher, statuses_of, with_error
from tradewind_operator.ray_clusters import RayClusters
from tradewind_operator.rhythm import SOON_S, Rhythm
from tradewind_operator.situation import Situation, clusters_in, world_of
from tradewind_operator.status.draining import ended
from tradewind_operator.status.observation import Observation
from tradewind_operator.status.transitions import WARNING, EventNote
from tradewind_operator.wakeups import ClusterKey


class Metrics(Protocol):
    """Told of every reconcile."""

    def reconciled(self, seconds: float, error: BaseException | None) -> None: ...


@dataclass(frozen=True, slots=True)
class ReconcileSettings:
    """What the settings say about reconciles."""

    defaults: Defaults
    serve_url: Address
    gateway_url: Address
    rhythm: Rhythm


class Reconciler:
    """Reconciles by key; the work of a WorkQueue, which never has one key worked on twice at a time."""

    def __init__(
        self,
        api: ApiServer,
        gatherer: Gatherer,
        tender: ClusterTender,
        publisher: Publisher,
        settings: ReconcileSettings,
        metrics: Metrics,
        tracer: Tracer,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._gatherer = gatherer
        self._publisher = publisher
        self._settings = settings
        self._metrics = metrics
        self._tracer = tracer
        self._applier = Applier(api, tracer)
        self._live_data = LiveData(api, tender, settings.serve_url, settings.gateway_url, clock)
        self._ray_clusters = RayClusters(api, self._applier, clock, now)
        self._clock = clock
        self._now = now
        self._memories: dict[ClusterKey, Memory] = {}

    def changed(self, key: ClusterKey, *kinds: Kind) -> None:
        """Custom resources of its namespace, of these kinds or of any, have changed: the decision is old."""
        if (memory := self._memories.get(key)) is not None:
            memory.mark(*kinds)

    def woken(self, key: ClusterKey) -> None:
        """A RayCluster has changed: it is time to look."""
        if (memory := self._memories.get(key)) is not None:
            memory.look_at = NEVER

    async def __call__(self, key: ClusterKey) -> float | None:
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
                await self._publisher.tell_of_failure(key, error, trace, self._now())
                raise
            finally:
                self._metrics.reconciled(time.monotonic() - began, failure)
                _describe(span, failure, calls)

    async def _reconcile(self, key: ClusterKey, memory: Memory, trace: str) -> float | None:
        created_before = memory.credentials is not None
        busy = await self._gatherer.gather(key, memory, self._clock())
        decision = memory.decision
        assert decision is not None
        self._publisher.forget(key, left=decision.entries)
        if not decision.entries:
            del self._memories[key]
            return None
        if not busy:
            return self._next_due(memory)
        try:
            await self._applier.change_finalizers(
                key.namespace, finalizer_changes(decision, ()), decision.entries
            )
        except Conflict:
            memory.mark()
            return SOON_S
        await self._tell_of_credentials(memory, decision, trace, known=created_before)
        world = world_of(key, memory, decision, self._settings.defaults)
        wanted = await asyncio.to_thread(ray_cluster, world) if world is not None else None
        return await self._act(Situation(key, memory, decision, world, wanted), trace)

    async def _act(self, situation: Situation, trace: str) -> float:
        """Send, carry out and tell. Returns seconds until the key is due again.

        Raises:
            OperatorError: something could not be carried out; everything is told all the same.
        """
        key, memory, entries = situation.key, situation.memory, situation.decision.entries
        await self._live_data.send(situation)
        seen, problem = await self._ray_clusters.bring_in(situation)
        statuses = await asyncio.to_thread(statuses_of, seen)
        own = (SERVING_CLUSTER.kind, key.cluster)
        if problem is not None and own in statuses:
            statuses[own] = with_error(statuses[own], entries[own], problem, self._now())
        complete = await self._publisher.publish(
            entries, key, statuses, trace, overtaken=lambda: memory.changed
        )
        if not complete:
            memory.mark()
        await self._release(key, memory, seen)
        if problem is not None:
            raise problem
        memory.look_at = self._clock() + self._settings.rhythm.next_look(statuses, seen)
        return self._next_due(memory)

    async def _release(self, key: ClusterKey, memory: Memory, seen: Observation) -> None:
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
        if not known and not clusters_in(memory):
            return
        entry = decision.entries.get((SERVING_CLUSTER.kind, decision.cluster))
        if entry is not None:
            text = (
                f"Secret {decision.cluster}-auth was gone or lacked keys, and has new ones: pods that run"
                " keep the old ones until they are made anew."
            )
            note = EventNote(entry.kind, entry.name, WARNING, "CredentialsRecreated", text)
            await self._publisher.tell(entry, note, trace)

    def _next_due(self, memory: Memory) -> float:
        dues = [memory.look_at, memory.full_at + self._settings.rhythm.resync_s]
        if memory.wanted:
            dues.append(self._gatherer.secrets_due(memory))
        return max(SOON_S, min(dues) - self._clock())


def _describe(span: Span, failure: Exception | None, calls: Counter[str]) -> None:
    span.set_attribute("tradewind.result", "error" if failure is not None else "ok")
    span.set_attribute("tradewind.api_calls", calls.total())
    if failure is not None:
        span.set_attribute("error.type", type(failure).__name__)
        span.set_status(StatusCode.ERROR)
