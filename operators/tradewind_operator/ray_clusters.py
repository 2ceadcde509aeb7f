"""Brings the Ray clusters of one ServingCluster, and all that belongs to them, to what is wanted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tradewind_operator.api_server import ApiServer
from tradewind_operator.apply import Applier
from tradewind_operator.desired.objects import desired_objects
from tradewind_operator.desired.world import ClusterWorld, Manifest
from tradewind_operator.errors import Conflict, OperatorError
from tradewind_operator.evidence import known_of
from tradewind_operator.kinds import SERVING_CLUSTER
from tradewind_operator.planning.clusters import ClustersPlan, UpgradeState, plan_clusters
from tradewind_operator.planning.differences import demand_of
from tradewind_operator.planning.groups import Used, patch_of
from tradewind_operator.planning.moves import GATEWAY
from tradewind_operator.planning.objects import plan_objects
from tradewind_operator.situation import Situation
from tradewind_operator.status.cluster import clusters_of
from tradewind_operator.status.live import Live
from tradewind_operator.status.observation import Observation
from tradewind_operator.status.pods import model_labels


class RayClusters:
    """Plans, records which RayCluster serves, and carries out."""

    def __init__(
        self, api: ApiServer, applier: Applier, clock: Callable[[], float], now: Callable[[], datetime]
    ) -> None:
        self._api = api
        self._applier = applier
        self._clock = clock
        self._now = now

    async def bring_in(self, situation: Situation) -> tuple[Observation, OperatorError | None]:
        """Carry out what is decided. Returns what is seen then, and what went wrong, which must not keep the
        status from being told."""
        world, wanted = situation.world, situation.wanted
        if world is None or wanted is None:
            return situation.observe(self._now()), None
        plan = plan_clusters(wanted, known_of(situation, world, self._clock(), self._now()))
        demand, problem = None, None
        if plan.upgrade.state is not UpgradeState.NONE:
            demand = await asyncio.to_thread(demand_of, wanted, world.compiled.serve_config)
        try:
            await self._record(situation, plan)
            await self._carry_out(situation, world, wanted, plan)
            await self._label_pods(situation)
        except OperatorError as error:
            problem = error
        return situation.observe(self._now(), plan, demand), problem

    async def _record(self, situation: Situation, plan: ClustersPlan) -> None:
        """Write down which RayCluster serves before anything is done about it.

        Raises:
            Conflict: the ServingCluster has changed; it is read anew.
        """
        key, entry = situation.key, situation.entry
        fields = clusters_of(situation.observe(self._now(), plan))
        if all(entry.status.get(name) == value for name, value in fields.items()):
            return
        document: Any = entry.document
        status = {**entry.status, **fields}
        status = {name: value for name, value in status.items() if value is not None}
        uid, version = (str(document["metadata"][field]) for field in ("uid", "resourceVersion"))
        try:
            written = await self._api.put_status(
                SERVING_CLUSTER, key.namespace, key.cluster, uid, version, status
            )
        except Conflict:
            situation.memory.mark()
            raise
        document["status"] = status
        document["metadata"]["resourceVersion"] = written["metadata"]["resourceVersion"]

    async def _carry_out(
        self, situation: Situation, world: ClusterWorld, wanted: Manifest, plan: ClustersPlan
    ) -> None:
        """What is given up goes first, so that its pools are free for what comes."""
        cluster, observed = situation.key.cluster, situation.memory.observed
        for name in plan.delete:
            await self._applier.delete_cluster(situation.ref(name), observed)
        new = [wanted] if plan.create else []
        stateful = situation.without_claim([*situation.clusters.values(), *new])
        objects = await asyncio.to_thread(desired_objects, world, plan.active, plan.present[1:], stateful)
        await self._applier.carry_out(plan_objects(objects, observed), cluster, observed)
        for manifest in new:
            await self._applier.create_cluster(manifest, cluster, observed)
        for name, change in plan.annotate.items():
            patch = {"metadata": {"annotations": dict(change)}}
            await self._applier.patch_cluster(situation.ref(name), patch, observed)
        for name in plan.present:
            if name not in plan.retired:
                stays = name != plan.active or plan.pending is None
                await self._change_groups(situation, wanted, name, stays=stays)

    async def _change_groups(self, situation: Situation, wanted: Manifest, name: str, *, stays: bool) -> None:
        there = situation.observed_cluster(name)
        if there is None:
            return
        patch = patch_of(there, wanted, _used(situation, name), stays=stays)
        observed = situation.memory.observed
        if patch is not None and not await self._applier.patch_cluster(situation.ref(name), patch, observed):
            situation.memory.mark()

    async def _label_pods(self, situation: Situation) -> None:
        memory = situation.memory
        nodes = {
            name: {app: status.nodes for app, status in live.apps.items() if app != GATEWAY}
            for name, live in memory.lives.items()
            if live.apps is not None
        }
        changes = await asyncio.to_thread(model_labels, memory.pods or (), nodes)
        await self._applier.label_pods(situation.key.namespace, changes)


def _used(situation: Situation, name: str) -> Used:
    """Worker groups of a RayCluster that something is on."""
    live, pods = situation.memory.lives.get(name, Live()), situation.memory.pods
    if pods is None:
        return Used(live.placed)
    here = [pod for pod in pods if pod.ray_cluster == name]
    inhabited: dict[str, set[str]] = {pod.group: set() for pod in here}
    for pod in here:
        if not pod.ending:
            inhabited[pod.group].add(pod.name)
    if live.apps is None:
        return Used(live.placed, inhabited)
    hosts = {address for app in live.apps.values() for address in app.occupied}
    return Used(live.placed, inhabited, Counter(pod.group for pod in here if pod.address in hosts))
