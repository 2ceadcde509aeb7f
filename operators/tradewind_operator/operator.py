"""The operator as a whole: what listens, who leads, and what a leader does until it is told to stop.

health server ─ from the first moment
Lease ─ wait until this replica leads
  ├── renew the Lease     (lost: everything stops at once, the process ends)
  ├── watches → router → queue
  ├── ConfigMap of the release → its ServingCluster
  └── queue → reconciler
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from tradewind.telemetry.otlp import target_of
from tradewind.telemetry.setup import Tracing, setup_tracing
from tradewind_operator.desired import names
from tradewind_operator.desired.world import Defaults, Endpoint, Images
from tradewind_operator.errors import ApiError, SettingsError
from tradewind_operator.events import Events
from tradewind_operator.gathering import Gatherer
from tradewind_operator.health import HealthServer, Probes
from tradewind_operator.kinds import CUSTOM, RAY_CLUSTER, WATCHED, Resource
from tradewind_operator.kube import Connection, Kube, connect
from tradewind_operator.leader import Elector, LeaseTerms
from tradewind_operator.metrics import OperatorMetrics
from tradewind_operator.policy.images import AllowedImages
from tradewind_operator.publish import Publisher
from tradewind_operator.queue import WorkQueue
from tradewind_operator.reconcile import Reconciler, ReconcileSettings
from tradewind_operator.release_cluster import Place, ReleaseCluster
from tradewind_operator.rhythm import Rhythm
from tradewind_operator.settings import ALL_NAMESPACES, Settings
from tradewind_operator.tending import Tender
from tradewind_operator.wakeups import ClusterKey, Wakeups
from tradewind_operator.watching import Heartbeats, Scope, Watches, missing, quiet_kopf

logger = logging.getLogger(__name__)

SERVICE: Final = "tradewind-operator"
_DRAIN_S: Final = 3.0
_KINDS_S: Final = 5.0
_LEASE_CALL_S: Final = 5.0


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        SettingsError: the API server or the health port cannot be used as the settings say.
        LeaseLost: another replica leads.
    """
    connection = await connect(settings.kubeconfig, settings.namespace)
    identity = settings.identity or f"{socket.gethostname()}_{secrets.token_hex(4)}"
    stop = _stop_on_signals()
    async with AsyncExitStack() as stack:
        tracing = _tracing(identity, os.environ)
        stack.push_async_callback(asyncio.to_thread, tracing.shutdown)
        operator = Operator(settings, connection, identity, tracing)
        stack.push_async_callback(operator.close)
        await operator.start()
        await operator.lead(stop)


class Operator:
    """One process. `start` it, let it `lead` until told to stop, `close` it."""

    def __init__(self, settings: Settings, connection: Connection, identity: str, tracing: Tracing) -> None:
        self.metrics = OperatorMetrics()
        self._settings = settings
        self._kube = Kube(connection, observe=self.metrics.requested)
        self._lease_kube = Kube(
            connection, attempts=1, timeout_s=_LEASE_CALL_S, observe=self.metrics.requested
        )
        self._tender = Tender()
        self._wakeups = Wakeups()
        self._reconciler = self._make_reconciler(identity, tracing)
        self.queue: WorkQueue[ClusterKey] = WorkQueue(self._reconciler, workers=settings.workers)
        self._watches = Watches(connection, self._scope(connection), self._seen, self._await_kinds)
        self._elector = self._make_elector(connection, identity)
        self._release = self._make_release(connection, identity)
        self._missing: list[str] = []
        self._leads = False
        probes = Probes(
            dead=self._watches.heartbeats.silent,
            unready=self._unready,
            registry=self.metrics.registry if settings.metrics else None,
        )
        self.health = HealthServer(probes, settings.health_host, settings.health_port)
        self.metrics.watch_queue(self.queue.depth)
        self.metrics.watch_ages(self._watches.heartbeats.ages)
        quiet_kopf()

    async def start(self) -> None:
        """Answer probes. Raises SettingsError when the port cannot be had."""
        settings = self._settings
        try:
            await self.health.start()
        except OSError as error:
            raise SettingsError(
                f"healthHost {settings.health_host}, healthPort {settings.health_port}: cannot listen there:"
                f" {error.strerror or error}"
            ) from error

    async def lead(self, stop: asyncio.Event) -> None:
        """Wait to lead, then work until `stop`.

        Raises:
            LeaseLost: another replica leads; nothing is written any more.
        """
        if self._elector is not None and not await _before(self._elector.acquire(), stop):
            return
        self._leads = True
        self.metrics.leads(True)
        tasks = [asyncio.create_task(self.queue.run()), asyncio.create_task(self._watches.run())]
        if self._release is not None:
            tasks.append(asyncio.create_task(self._release.run()))
        if self._elector is not None:
            tasks.append(asyncio.create_task(self._elector.hold()))
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            if stopping in done:
                await self.queue.drain(_DRAIN_S)
            for task in done - {stopping}:
                task.result()
        finally:
            await _cancel([*tasks, stopping])
            self._leads = False
            self.metrics.leads(False)
            if self._elector is not None:
                await self._elector.release()

    async def close(self) -> None:
        """Give up connections and the port."""
        for part in (self.health.stop(), self._tender.close(), self._kube.close(), self._lease_kube.close()):
            await part

    def _seen(self, kind: Resource, change: str | None, body: dict[str, Any]) -> None:
        for key in self._wakeups.seen(kind, change, body):
            if kind in CUSTOM:
                self._reconciler.changed(key, kind)
            else:
                self._reconciler.woken(key)
            self.queue.add(key)

    def _know(self, namespace: str, clusters: Any) -> None:
        for key in self._wakeups.know(namespace, clusters):
            self.queue.add(key)

    def _unready(self) -> list[str]:
        if not self._leads:
            return []
        heartbeats = self._watches.heartbeats
        return self._missing or ([] if heartbeats.complete else ["not everything was listed yet"])

    async def _await_kinds(self, heartbeats: Heartbeats) -> bool:
        """Returns once the API server knows every kind; whether that took waiting."""
        waited = False
        while True:
            try:
                served = {root: await self._kube.served(root) for root in {kind.root for kind in WATCHED}}
            except ApiError as error:
                logger.warning("it is not known which kinds there are: %s", error)
                return waited
            before, self._missing = self._missing, missing(WATCHED, served)
            if not self._missing:
                return waited
            heartbeats.stop()
            waited = True
            if self._missing != before:
                for sentence in self._missing:
                    logger.error(sentence)
            await asyncio.sleep(_KINDS_S)

    def _scope(self, connection: Connection) -> Scope:
        settings = self._settings
        namespaces = settings.namespaces or (connection.namespace,)
        return Scope(
            kinds=WATCHED,
            namespaces=() if ALL_NAMESPACES in namespaces else namespaces,
            selectors={RAY_CLUSTER: f"{names.MANAGED_BY_LABEL}={names.MANAGER}"},
            period_s=settings.watch_seconds,
        )

    def _make_reconciler(self, identity: str, tracing: Tracing) -> Reconciler:
        settings = self._settings
        terms = ReconcileSettings(
            defaults=defaults_of(settings),
            serve_url=settings.serve_url,
            gateway_url=settings.endpoint,
            rhythm=Rhythm(settings.resync_seconds, settings.active_resync_seconds, settings.look_seconds),
        )
        gatherer = Gatherer(
            self._kube,
            allowed_images(settings),
            settings.resync_seconds,
            self._know,
            settings.secret_seconds,
        )
        publisher = Publisher(self._kube, Events(self._kube, identity), self.metrics.conditions)
        tracer = tracing.provider.get_tracer("tradewind.operator")
        return Reconciler(self._kube, gatherer, self._tender, publisher, terms, self.metrics, tracer)

    def _make_release(self, connection: Connection, identity: str) -> ReleaseCluster | None:
        config_map = self._settings.cluster_config_map
        if config_map is None:
            return None
        place = Place(connection.namespace, config_map)
        return ReleaseCluster(self._kube, Events(self._kube, identity), place, self.metrics.release_cluster)

    def _make_elector(self, connection: Connection, identity: str) -> Elector | None:
        election = self._settings.leader_election
        if not election.enabled:
            return None
        terms = LeaseTerms(
            namespace=election.lease_namespace or connection.namespace,
            name=election.lease_name,
            identity=identity,
            duration_s=election.duration_seconds,
            renew_s=election.renew_seconds,
            retry_s=election.retry_seconds,
        )
        return Elector(self._lease_kube, terms)


def defaults_of(settings: Settings) -> Defaults:
    """What the settings say for every ServingCluster."""
    images = settings.images
    return Defaults(
        images=Images(images.head, images.gateway, images.engine_cpu, images.engine_cuda),
        image_pull_secrets=settings.image_pull_secrets,
        environment=settings.environment,
        endpoint=Endpoint(
            settings.endpoint_service.type,
            settings.endpoint_service.annotations,
            settings.endpoint_service.load_balancer_class,
            settings.endpoint_service.load_balancer_source_ranges,
        ),
    )


def allowed_images(settings: Settings) -> AllowedImages:
    """The allow-list; the operator's own images are always on it."""
    images = settings.images
    own = (images.head, images.gateway, images.engine_cpu, images.engine_cuda)
    return AllowedImages(tuple(dict.fromkeys((*settings.allowed_images, *own))))


def _tracing(identity: str, environ: Mapping[str, str]) -> Tracing:
    """By `OTEL_*`; without any, spans go nowhere: nobody would read files in this pod."""
    if target_of("traces", environ) == "default":
        os.environ["OTEL_TRACES_EXPORTER"] = "none"
    return setup_tracing(SERVICE, identity)


def _stop_on_signals() -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _before(work: Awaitable[None], stop: asyncio.Event) -> bool:
    """Whether the work was done before `stop` was set; else it is cancelled."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task.done()
    finally:
        await _cancel([task, stopping])


async def _cancel(tasks: list[asyncio.Future[Any]]) -> None:
    """End them all; what they raise was looked at, or does not matter any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
