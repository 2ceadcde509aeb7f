"""Which replicas take part: what discovery found, as far as it answers.

Discovery tells of replicas that run, late of those that died; the prober asks each of them twice a
second. Both end here, and from here in the directory that requests choose from and in the metrics.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from tradewind.api.steps import Steps
from tradewind.api.wire import DeploymentEntry
from tradewind.gateway.app import Gateway
from tradewind.gateway.prober import PACE, EngineStats, FailureReason, Fetch, LoadProber, Pace, Target
from tradewind.routing.replica import AdapterReport, ReplicaAddress, ReplicaView
from tradewind.telemetry.metrics import GatewayMetrics

_log = logging.getLogger(__name__)


class Rotation:
    """Keeps a gateway's directory current. Belongs to the gateway's event loop."""

    def __init__(self, gateway: Gateway, metrics: GatewayMetrics, fetch: Fetch, *, pace: Pace = PACE) -> None:
        self._gateway = gateway
        self._directory = gateway.directory
        self._metrics = metrics
        self._prober = LoadProber(fetch, self._answered, self._failed, wanted=self._wanted, pace=pace)
        self._views: dict[str, ReplicaView] = {}

    def updating(self, found: Mapping[DeploymentEntry, Sequence[ReplicaAddress]]) -> Steps[None]:
        """The replicas of every configured deployment, whole; one deployment a step."""
        targets: list[Target] = []
        for entry, addresses in found.items():
            for view in self._directory.views(entry.name):
                self._views.pop(view.id, None)
            self._directory.update(entry, addresses)
            for view in self._directory.views(entry.name):
                self._views[view.id] = view
                targets.append(Target(view.id, view.host, view.port, view.prefix))
            self._count(entry.name)
            yield
        self._directory.retain({entry.name for entry in found})
        watched = {target.id for target in targets}
        self._views = {name: view for name, view in self._views.items() if name in watched}
        self._prober.watch(targets)

    async def stop(self) -> None:
        """Ask no more."""
        await self._prober.stop()

    def _answered(self, replica: str, stats: EngineStats) -> None:
        view = self._views.get(replica)
        if view is None or view.deployment not in self._directory:
            return
        was_ready = view.ready
        self._directory.report(
            view,
            running=stats.running,
            waiting=stats.waiting,
            room=stats.room,
            kv_cache_use=stats.kv_cache_use,
            healthy=stats.healthy,
            adapters={name: AdapterReport(at.state, at.message) for name, at in stats.adapters.items()},
        )
        if stats.context_length:
            self._gateway.context_lengths[view.deployment] = stats.context_length
        self._measure(view.deployment)
        if view.ready != was_ready:
            _log.info("replica %s of %s: %s", replica, view.deployment, "in" if view.ready else "out")
            self._count(view.deployment)

    def _failed(self, replica: str, reason: FailureReason) -> None:
        view = self._views.get(replica)
        if view is None:
            return
        if reason is FailureReason.NOT_ASKED:
            self._directory.unheard(view)
            return
        if not view.ready:
            return
        self._directory.mark_down(view)
        _log.warning("replica %s of %s: out (%s)", replica, view.deployment, reason.value)
        self._count(view.deployment)

    def _wanted(self, replica: str) -> int:
        """What this gateway has on the replica, and its part of what waits for any of the deployment's."""
        view = self._views.get(replica)
        if view is None:
            return 0
        waiting = self._gateway.admission.load(view.deployment).waiting
        ready = sum(each.ready for each in self._directory.views(view.deployment))
        return view.outstanding + -(-waiting // max(1, ready))

    def _count(self, deployment: str) -> None:
        views = self._directory.views(deployment)
        healthy = sum(view.ready for view in views)
        self._metrics.set_replicas(deployment, healthy, len(views) - healthy)

    def _measure(self, deployment: str) -> None:
        """Load of all replicas; the KV cache's use is their mean."""
        views = self._directory.views(deployment)
        self._metrics.set_engine_load(
            deployment,
            sum(view.running for view in views),
            sum(view.waiting for view in views),
            sum(view.kv_cache_use for view in views) / len(views),
        )
