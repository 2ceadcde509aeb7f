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
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from opentelemetry.trace import Span, StatusCode, Tracer, format_trace_id

from tradewind.rayapi.client import ControlError
from tradewind_operator.api_server import ApiServer
from tradewind_operator.apply import Applier
from tradewind_operator.credentials import Credentials
from tradewind_operator.desired import names
from tradewind_operator.desired.backend import Backend
from tradewind_operator.desired.gcs import backend_in, redis_in
from tradewind_operator.desired.objects import desired_objects
from tradewind_operator.desired.raycluster import ray_cluster
from tradewind_operator.desired.world import ClusterWorld, Defaults, Manifest
from tradewind_operator.errors import Conflict, NotFound, OperatorError, Unreachable
from tradewind_operator.gathering import Gatherer
from tradewind_operator.kinds import RAY_CLUSTER, SERVING_CLUSTER, VOLUME_CLAIM
from tradewind_operator.kinds import Resource as Kind
from tradewind_operator.kube import calls_made
from tradewind_operator.memory import NEVER, Memory
from tradewind_operator.planning.clusters import ClustersPlan, Evidence, Known, UpgradeState, plan_clusters
from tradewind_operator.planning.differences import Demand, demand_of
from tradewind_operator.planning.groups import Used, config_format, group_names, patch_of
from tradewind_operator.planning.moves import GATEWAY
from tradewind_operator.planning.objects import ObjectRef, Observed, annotations_of, plan_objects
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
from tradewind_operator.status.cluster import clusters_of
from tradewind_operator.status.draining import ended
from tradewind_operator.status.live import Live
from tradewind_operator.status.observation import Observation
from tradewind_operator.status.pods import model_labels
from tradewind_operator.status.raycluster import RayClusterState
from tradewind_operator.status.transitions import WARNING, EventNote
from tradewind_operator.tending import Charge
from tradewind_operator.wakeups import Key

logger = logging.getLogger(__name__)

_SOON_S: Final = 0.2
_EFFECT_S: Final = 0.3
"""From a configuration that was sent to a look whether it has effect."""
_LOST_S: Final = 30.0
"""A cluster of which no gateway was reached for so long is believed to serve nobody."""
_LINGER_S: Final = 60.0
"""A retired cluster stays at least so long: callers keep connections."""


class ClusterTender(Protocol):
    """Sends what is missing to a Ray cluster, and reads what it says; never fails. See `tending.Tender`."""

    async def tend(
        self, charge: Charge, credentials: Credentials, first: Callable[[], Awaitable[None]]
    ) -> Live: ...


class Metrics(Protocol):
    """Told of every reconcile."""

    def reconciled(self, seconds: float, error: BaseException | None) -> None: ...


@dataclass(frozen=True, slots=True)
class ReconcileSettings:
    """What the settings say about reconciles."""

    defaults: Defaults
    serve_url: Callable[[str, str], str]
    """Of namespace and RayCluster."""
    gateway_url: Callable[[str, str], str]
    resync_s: float = 30.0
    active_resync_s: float = 2.0
    look_s: float = 5.0


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
        self._api = api
        self._gatherer = gatherer
        self._tender = tender
        self._publisher = publisher
        self._settings = settings
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

    def woken(self, key: Key) -> None:
        """A RayCluster has changed: it is time to look."""
        if (memory := self._memories.get(key)) is not None:
            memory.look_at = NEVER

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
            return _SOON_S
        await self._tell_of_credentials(memory, decision, trace, known=created_before)
        world = self._world(key, memory, decision) if memory.earlier is None else None
        wanted = await asyncio.to_thread(ray_cluster, world) if world is not None else None
        await self._tend(key, memory, decision, world, wanted)
        seen, problem = await self._bring_in(key, memory, decision, world, wanted)
        statuses = await asyncio.to_thread(statuses_of, seen)
        own = ("ServingCluster", key.cluster)
        if problem is not None and own in statuses:
            statuses[own] = with_error(statuses[own], decision.entries[own], problem, self._now())
        complete = await self._publisher.publish(
            decision.entries, key, statuses, trace, overtaken=lambda: memory.changed
        )
        if not complete:
            memory.mark()
        await self._release(key, memory, seen)
        if problem is not None:
            raise problem
        return self._again(memory, statuses, seen)

    async def _tend(
        self,
        key: Key,
        memory: Memory,
        decision: Decision,
        world: ClusterWorld | None,
        wanted: Manifest | None,
    ) -> None:
        """Every Ray cluster gets the live data of now, whatever else is the matter; and says how it is."""
        clusters = _clusters(memory)
        credentials = memory.credentials
        if credentials is None:
            memory.lives = {}
            return
        made = [
            self._tender.tend(
                self._charge(key, memory, decision, world, wanted, there),
                credentials,
                lambda name=name: self._configured(key, memory, name),  # type: ignore[misc]
            )
            for name, there in clusters.items()
        ]
        memory.lives = dict(zip(clusters, await asyncio.gather(*made), strict=True))
        now = self._clock()
        before = memory.answered
        memory.answered = {
            name: now if live.gateway is not None else before.get(name, now)
            for name, live in memory.lives.items()
        }

    def _charge(
        self,
        key: Key,
        memory: Memory,
        decision: Decision,
        world: ClusterWorld | None,
        wanted: Manifest | None,
        there: Manifest,
    ) -> Charge:
        name = str(there["metadata"]["name"])
        ready = Counter(
            pod.group for pod in memory.pods or () if pod.ray_cluster == name and pod.ready and not pod.ending
        )
        readable = config_format(there) == names.CONFIG_FORMAT
        return Charge(
            name=name,
            serve_url=self._settings.serve_url(key.namespace, name),
            gateway_url=self._settings.gateway_url(key.namespace, name),
            groups=tuple(group_names(there)),
            wanted=tuple(group_names(wanted)) if wanted is not None else (),
            up=frozenset(
                group for group, count in ready.items() if world is not None and count >= world.gateways
            ),
            compiled=decision.compiled if readable and wanted is not None else None,
            retired=names.RETIRED_ANNOTATION in annotations_of(there),
        )

    async def _configured(self, key: Key, memory: Memory, name: str) -> None:
        """Note on a RayCluster, before Serve is given applications, that it may have some."""
        ref = _ref(key, name)
        there = memory.observed.get(ref)
        if there is None or names.CONFIGURED_ANNOTATION in annotations_of(there):
            return
        mark = {"metadata": {"annotations": {names.CONFIGURED_ANNOTATION: "true"}}}
        try:
            memory.observed[ref] = await self._api.merge_patch(RAY_CLUSTER, key.namespace, name, mark)
        except OperatorError as error:
            raise ControlError(
                f"it could not be noted that Serve is configured: {safe_text(error)}"
            ) from error

    async def _bring_in(
        self,
        key: Key,
        memory: Memory,
        decision: Decision,
        world: ClusterWorld | None,
        wanted: Manifest | None,
    ) -> tuple[Observation, OperatorError | None]:
        """Carry out what is decided. Returns what is seen then, and what went wrong, which must not keep the
        status from being told."""
        if world is None or wanted is None:
            return self._observe(memory, decision, None), None
        plan = plan_clusters(wanted, self._known(memory, decision, world))
        demand = None
        if plan.upgrade.state is not UpgradeState.NONE:
            demand = await asyncio.to_thread(demand_of, wanted, world.compiled.serve_config)
        try:
            await self._record(key, memory, decision, plan)
            await self._carry_out(key, memory, world, wanted, plan)
            await self._label_pods(key, memory)
        except OperatorError as error:
            return self._observe(memory, decision, plan, demand), error
        return self._observe(memory, decision, plan, demand), None

    def _known(self, memory: Memory, decision: Decision, world: ClusterWorld) -> Known:
        entry = decision.entries["ServingCluster", decision.cluster]
        annotations = entry.document["metadata"].get("annotations") or {}
        return Known(
            clusters=_clusters(memory),
            recorded=entry.status.get("rayCluster"),
            approved=world.spec.upgrade_strategy.type == "NewCluster"
            or str(annotations.get(names.APPROVE_ANNOTATION, "")),
            evidence={name: self._evidence(memory, decision, name) for name in memory.lives},
            linger=timedelta(seconds=max(_LINGER_S, world.drain_s + 30.0)),
            now=self._now(),
        )

    def _evidence(self, memory: Memory, decision: Decision, name: str) -> Evidence:
        live, compiled = memory.lives[name], decision.compiled
        assert compiled is not None
        gateway = live.gateway
        if gateway is None:
            return Evidence(lost=self._clock() - memory.answered[name] > _LOST_S)
        app = (live.apps or {}).get(GATEWAY)
        ready = app is not None and app.ready and app.running >= app.wanted
        reached = {model for model, seen in gateway.deployments.items() if seen.replicas}
        return Evidence(
            gateways=ready and gateway.revision == compiled.gateway.revision,
            models=frozenset(reached & set(compiled.engines)),
            known=True,
        )

    async def _record(self, key: Key, memory: Memory, decision: Decision, plan: ClustersPlan) -> None:
        """Write down which RayCluster serves before anything is done about it.

        Raises:
            Conflict: the ServingCluster has changed; it is read anew.
        """
        entry = decision.entries["ServingCluster", key.cluster]
        fields = clusters_of(self._observe(memory, decision, plan))
        if all(entry.status.get(name) == value for name, value in fields.items()):
            return
        document: Any = entry.document
        status = {**entry.status, **fields}
        status = {name: value for name, value in status.items() if value is not None}
        metadata = document["metadata"]
        try:
            written = await self._api.put_status(
                SERVING_CLUSTER,
                key.namespace,
                key.cluster,
                str(metadata["uid"]),
                str(metadata["resourceVersion"]),
                status,
            )
        except Conflict:
            memory.mark()
            raise
        document["status"] = status
        metadata["resourceVersion"] = written["metadata"]["resourceVersion"]

    async def _carry_out(
        self, key: Key, memory: Memory, world: ClusterWorld, wanted: Manifest, plan: ClustersPlan
    ) -> None:
        """What is given up goes first, so that its pools are free for what comes."""
        observed, applier = memory.observed, self._applier
        for name in plan.delete:
            await applier.delete_cluster(_ref(key, name), observed)
        stateful = _without_claim([*_clusters(memory).values(), *([wanted] if plan.create else [])], observed)
        objects = await asyncio.to_thread(desired_objects, world, plan.active, plan.present[1:], stateful)
        await applier.carry_out(plan_objects(objects, observed), key.cluster, observed)
        if plan.create:
            await applier.create_cluster(wanted, key.cluster, observed)
        for name, change in plan.annotate.items():
            await applier.patch_cluster(
                _ref(key, name), {"metadata": {"annotations": dict(change)}}, observed
            )
        for name in plan.present:
            there = observed.get(_ref(key, name))
            if there is None or name in plan.retired:
                continue
            patch = patch_of(there, wanted, self._used(memory, name))
            if patch is not None and not await applier.patch_cluster(_ref(key, name), patch, observed):
                memory.mark()

    def _used(self, memory: Memory, name: str) -> Used:
        live, pods = memory.lives.get(name, Live()), memory.pods
        inhabited = None if pods is None else {pod.group for pod in pods if pod.ray_cluster == name}
        return Used(live.placed, inhabited)

    async def _label_pods(self, key: Key, memory: Memory) -> None:
        nodes = {
            name: {app: status.nodes for app, status in live.apps.items() if app != GATEWAY}
            for name, live in memory.lives.items()
            if live.apps is not None
        }
        changes = await asyncio.to_thread(model_labels, memory.pods or (), nodes)
        await self._applier.label_pods(key.namespace, changes)

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
        if not known and not _clusters(memory):
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
            await self._publisher.publish({entry.key: entry}, key, {entry.key: status}, trace)
        except (NotFound, Unreachable):
            return
        except Exception as second:
            logger.warning("the failure of %s could not be told: %s", key, safe_text(second))

    def _world(self, key: Key, memory: Memory, decision: Decision) -> ClusterWorld | None:
        """What the manifests are made from; None while nothing is in force."""
        if decision.spec is None or decision.compiled is None:
            return None
        return ClusterWorld(
            name=key.cluster,
            namespace=key.namespace,
            uid=str(decision.entries["ServingCluster", key.cluster].document["metadata"]["uid"]),
            spec=decision.spec,
            compiled=decision.compiled,
            defaults=self._settings.defaults,
            storage_class_exists=memory.storage_class_exists,
            running_backend=self._running_backend(key, memory, decision),
            redis_in_use=tuple(sorted(filter(None, map(redis_in, _specs(memory))))),
        )

    def _running_backend(self, key: Key, memory: Memory, decision: Decision) -> Backend | None:
        recorded = decision.entries["ServingCluster", key.cluster].status.get("rayCluster")
        there = memory.observed.get(_ref(key, str(recorded)))
        return None if there is None else backend_in(there["spec"])

    def _observe(
        self, memory: Memory, decision: Decision, plan: ClustersPlan | None, demand: Demand | None = None
    ) -> Observation:
        pods = memory.pods or ()
        return Observation(
            decision=decision,
            now=self._now(),
            clusters={name: RayClusterState.of(there, pods) for name, there in _clusters(memory).items()},
            lives=memory.lives,
            plan=plan,
            demand=demand or Demand(),
            earlier=memory.earlier,
        )

    def _again(self, memory: Memory, statuses: Statuses, seen: Observation) -> float:
        """Seconds until this is due by itself; notes when the Ray clusters are to be looked at."""
        plan, moves = seen.plan, seen.moves
        moving = bool(moves.moving or moves.waiting) or (plan is not None and len(plan.present) > 1)
        settled = is_settled(statuses) and not moving and not seen.decision.draining
        wait = self._settings.look_s if settled else self._settings.active_resync_s
        if any(live.sent for live in seen.lives.values()):
            wait = min(wait, _EFFECT_S)
        memory.look_at = self._clock() + wait
        return self._next_due(memory)

    def _next_due(self, memory: Memory) -> float:
        dues = [memory.look_at, memory.full_at + self._settings.resync_s]
        if memory.wanted:
            dues.append(self._gatherer.secrets_due(memory))
        return max(_SOON_S, min(dues) - self._clock())


def _clusters(memory: Memory) -> dict[str, Manifest]:
    """RayClusters that are there and do not go, by name."""
    return {
        ref.name: there
        for ref, there in sorted(memory.observed.items())
        if ref.kind == RAY_CLUSTER.kind and not there["metadata"].get("deletionTimestamp")
    }


def _specs(memory: Memory) -> list[Manifest]:
    """Of all RayClusters, those that go included."""
    return [there["spec"] for ref, there in memory.observed.items() if ref.kind == RAY_CLUSTER.kind]


def _without_claim(clusters: list[Manifest], observed: Observed) -> list[str]:
    """RayClusters that keep their state on a volume which is not there."""
    claims = {ref.name for ref in observed if ref.kind == VOLUME_CLAIM.kind}
    return [
        name
        for there in clusters
        if backend_in(there["spec"]) is Backend.ROCKSDB
        and names.gcs_claim(name := str(there["metadata"]["name"])) not in claims
    ]


def _ref(key: Key, name: str) -> ObjectRef:
    return ObjectRef(RAY_CLUSTER.api_version, RAY_CLUSTER.kind, key.namespace, name)


def _describe(span: Span, failure: Exception | None, calls: Counter[str]) -> None:
    span.set_attribute("tradewind.result", "error" if failure is not None else "ok")
    span.set_attribute("tradewind.api_calls", calls.total())
    if failure is not None:
        span.set_attribute("error.type", type(failure).__name__)
        span.set_status(StatusCode.ERROR)
