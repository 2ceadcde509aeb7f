"""One ServingCluster in one reconcile: what is known of it, and what its Ray cluster is to be. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tradewind_operator.desired import names
from tradewind_operator.desired.backend import Backend
from tradewind_operator.desired.gcs import backend_in, redis_in
from tradewind_operator.desired.world import ClusterWorld, Defaults, Manifest
from tradewind_operator.kinds import RAY_CLUSTER, SERVING_CLUSTER, VOLUME_CLAIM
from tradewind_operator.memory import Memory
from tradewind_operator.planning.clusters import ClustersPlan
from tradewind_operator.planning.differences import Demand
from tradewind_operator.planning.objects import ObjectRef
from tradewind_operator.policy.decision import Decision
from tradewind_operator.policy.namespace import Entry
from tradewind_operator.status.observation import Observation
from tradewind_operator.status.raycluster import RayClusterState
from tradewind_operator.wakeups import ClusterKey


@dataclass(frozen=True, slots=True)
class Situation:
    """What the steps of one reconcile go by. They bring `memory` up to date with what they do."""

    key: ClusterKey
    memory: Memory
    decision: Decision
    world: ClusterWorld | None
    """What manifests are made from; None while nothing is in force, or all stays as it is."""
    wanted: Manifest | None
    """The RayCluster that the resources of now ask for; None where `world` is."""

    @property
    def entry(self) -> Entry:
        """The ServingCluster. Raises KeyError where there is none."""
        return self.decision.entries[SERVING_CLUSTER.kind, self.key.cluster]

    @property
    def clusters(self) -> dict[str, Manifest]:
        """RayClusters that are there and do not go, by name."""
        return clusters_in(self.memory)

    def ref(self, name: str) -> ObjectRef:
        """Of a RayCluster."""
        return _ref(self.key, name)

    def observed_cluster(self, name: str) -> Manifest | None:
        """A RayCluster as it was seen last, one that goes included."""
        return self.memory.observed.get(self.ref(name))

    def without_claim(self, manifests: Iterable[Manifest]) -> list[str]:
        """Names of those RayClusters that keep their state on a volume which is not there."""
        claims = {ref.name for ref in self.memory.observed if ref.kind == VOLUME_CLAIM.kind}
        return [
            name
            for manifest in manifests
            if backend_in(manifest["spec"]) is Backend.ROCKSDB
            and names.gcs_claim(name := str(manifest["metadata"]["name"])) not in claims
        ]

    def observe(
        self, now: datetime, plan: ClustersPlan | None = None, demand: Demand | None = None
    ) -> Observation:
        """What statuses are made of, with what was decided about the RayClusters."""
        memory, pods = self.memory, self.memory.pods or ()
        return Observation(
            decision=self.decision,
            now=now,
            clusters={name: RayClusterState.of(there, pods) for name, there in self.clusters.items()},
            lives=memory.lives,
            plan=plan,
            demand=demand or Demand(),
            earlier=memory.earlier,
        )


def clusters_in(memory: Memory) -> dict[str, Manifest]:
    """RayClusters that are there and do not go, by name."""
    return {
        ref.name: there
        for ref, there in sorted(memory.observed.items())
        if ref.kind == RAY_CLUSTER.kind and not there["metadata"].get("deletionTimestamp")
    }


def world_of(key: ClusterKey, memory: Memory, decision: Decision, defaults: Defaults) -> ClusterWorld | None:
    """What the manifests are made from; None while nothing is in force, or an earlier release's RayService
    keeps all as it is."""
    if memory.earlier is not None or decision.spec is None or decision.compiled is None:
        return None
    entry = decision.entries[SERVING_CLUSTER.kind, key.cluster]
    running = memory.observed.get(_ref(key, str(entry.status.get("rayCluster"))))
    # Those that go still use theirs.
    specs = [there["spec"] for ref, there in memory.observed.items() if ref.kind == RAY_CLUSTER.kind]
    return ClusterWorld(
        name=key.cluster,
        namespace=key.namespace,
        uid=str(entry.document["metadata"]["uid"]),
        spec=decision.spec,
        compiled=decision.compiled,
        defaults=defaults,
        storage_class_exists=memory.storage_class_exists,
        running_backend=None if running is None else backend_in(running["spec"]),
        redis_in_use=tuple(sorted(filter(None, map(redis_in, specs)))),
    )


def _ref(key: ClusterKey, name: str) -> ObjectRef:
    return ObjectRef(RAY_CLUSTER.api_version, RAY_CLUSTER.kind, key.namespace, name)
