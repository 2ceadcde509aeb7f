"""Replicas of deployments as one gateway sees them, and the choice of one for a request.

Choice is filter -> score -> pick. A replica can take a request when it is healthy, not down, has
fewer than `capacity` of this gateway's requests on it, has said that it serves the request's adapter (if
it is for one) and is not excluded. Its score is an estimate
of the work on it (`ReplicaView.score`); the least wins, chance settles ties.

A replica's bound is one for all gateways together. How much of it is this gateway's, `capacity`, the replica
says with each report; where it has not spoken, all of it is. Somebody else may have been faster: then it
answers that it is full, which is no failure, and no more is sent until a request of ours has ended there or
it has reported again.

Everything here belongs to one event loop: there are no locks, and no call waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from random import Random
from typing import Literal, NamedTuple

from tradewind.api.wire import DeploymentEntry

SCAN_UP_TO = 16
"""Replicas that are all compared; of more, two drawn at random are (power of two choices)."""
_DRAWS = 8


class ReplicaAddress(NamedTuple):
    """Where a replica listens."""

    host: str
    port: int
    incarnation: str = ""
    """Identity of the process, if discovery knows it: another one on the same port starts fresh."""

    @property
    def id(self) -> str:
        """`host:port`, brackets around an IPv6 host."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class AdapterReport(NamedTuple):
    """How a replica has a LoRA adapter, in its own words."""

    state: Literal["loading", "ready", "failed"]
    message: str = ""


_UNKNOWN = AdapterReport("loading")


class ReplicaView:
    """One incarnation of a replica. A request holds the object, so that what it does to it (release,
    down) can never reach a later replica on the same address."""

    __slots__ = (
        "adapters",
        "bound",
        "capacity",
        "deployment",
        "down",
        "fresh_until",
        "generation",
        "healthy",
        "host",
        "id",
        "incarnation",
        "kv_cache_use",
        "others",
        "outstanding",
        "port",
        "prefix",
        "running",
        "waiting",
    )

    def __init__(self, deployment: DeploymentEntry, address: ReplicaAddress, generation: int = 0) -> None:
        self.id = address.id
        self.host = address.host
        self.port = address.port
        self.incarnation = address.incarnation
        self.generation = generation
        """Grows with every view a directory makes."""
        self.deployment = deployment.name
        self.prefix = deployment.prefix
        self.bound = deployment.max_ongoing_requests
        """Requests that it takes of all gateways together, as configured."""
        self.capacity = self.bound
        """Requests of this gateway that it may have now."""
        self.outstanding = 0
        """Requests that this gateway has on it."""
        self.healthy = True
        self.down = False
        """It refused a connection. Cleared by a probe that succeeds, or by a new incarnation."""
        self.running = 0
        """Sequences in the engine, as last reported."""
        self.waiting = 0
        self.kv_cache_use = 0.0
        """0..1, as last reported."""
        self.others = 0.0
        """Part of the score that the last report adds to `outstanding`."""
        self.fresh_until = 0.0
        """Clock reading up to which the report counts."""
        self.adapters: Mapping[str, AdapterReport] = {}
        """By name in the deployment, as last reported."""

    def __repr__(self) -> str:
        state = "down" if self.down else "ready" if self.healthy else "unhealthy"
        return f"<ReplicaView {self.deployment} {self.id} {state} {self.outstanding}/{self.capacity}>"

    @property
    def ready(self) -> bool:
        """Answers, as far as known. It may be full."""
        return self.healthy and not self.down

    def adapter(self, name: str) -> AdapterReport:
        """How it has the adapter; one that it has not spoken of yet may come."""
        return self.adapters.get(name, _UNKNOWN)

    def serves(self, adapter: str | None) -> bool:
        """Whether requests for the adapter, None for the model itself, belong here."""
        return adapter is None or self.adapter(adapter).state == "ready"

    def score(self, now: float) -> float:
        """Estimate of the sequences on the replica, plus its KV-cache use as a fraction of one.

        `outstanding` is exact and current; the report adds what it showed beyond our own requests
        at that time (other gateways' requests, several sequences per request). With no fresh
        report only `outstanding` counts, else an old one would keep the replica idle for ever.
        """
        return self.outstanding + self.others if now < self.fresh_until else self.outstanding


def choose(
    views: Sequence[ReplicaView],
    *,
    now: float,
    rng: Random,
    exclude: Collection[str] = (),
    adapter: str | None = None,
) -> ReplicaView | None:
    """The replica to use, or None when none can take the request. `exclude` holds replica ids.

    O(replicas) up to SCAN_UP_TO. Beyond, two random replicas that can take the request are compared:
    constant work, a maximum load close to that of the full comparison, and gateways that have the
    same stale picture do not all run to the same replica. If the draws do not find two, all are compared.
    """
    if adapter is not None:
        views = [view for view in views if view.serves(adapter)]
    if len(views) > SCAN_UP_TO:
        pair = _draw_two(views, rng, exclude)
        if pair is not None:
            first, second = pair
            return second if second.score(now) < first.score(now) else first
    best: ReplicaView | None = None
    least = 0.0
    ties = 1
    for view in views:
        if view.down or not view.healthy or view.outstanding >= view.capacity or view.id in exclude:
            continue
        score = view.outstanding + view.others if now < view.fresh_until else view.outstanding
        if best is None or score < least:
            best, least, ties = view, score, 1
        elif score == least:
            ties += 1
            if rng.random() * ties < 1.0:  # each of the tied ends up with the same chance
                best = view
    return best


def _draw_two(
    views: Sequence[ReplicaView], rng: Random, exclude: Collection[str]
) -> tuple[ReplicaView, ReplicaView] | None:
    first: ReplicaView | None = None
    count = len(views)
    for _ in range(_DRAWS):
        view = views[int(rng.random() * count)]
        if view.down or not view.healthy or view.outstanding >= view.capacity or view.id in exclude:
            continue
        if first is None:
            first = view
        elif view is not first:
            return first, view
    return None


class ReplicaDirectory:
    """Replicas per deployment, kept up to date by discovery and by health probes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, report_ttl_s: float = 10.0) -> None:
        """A load report counts for `report_ttl_s` seconds of `clock`."""
        self._clock = clock
        self._report_ttl_s = report_ttl_s
        self._views: dict[str, tuple[ReplicaView, ...]] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._generation = 0

    def __contains__(self, deployment: str) -> bool:
        return deployment in self._views

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call `listener(deployment)` after every change that may let a request in, or when it is dropped."""
        self._listeners.append(listener)

    def views(self, deployment: str) -> tuple[ReplicaView, ...]:
        """Current replicas; empty for a deployment that discovery has not told of."""
        return self._views.get(deployment, ())

    def deployments(self) -> tuple[str, ...]:
        return tuple(self._views)

    def any_ready(self, deployment: str, exclude: Collection[str] = (), adapter: str | None = None) -> bool:
        """Some replica is ready and has the adapter, full or not. `exclude` holds ids that do not count."""
        return any(
            view.ready and view.serves(adapter) and view.id not in exclude for view in self.views(deployment)
        )

    def refused(self, deployment: str, adapter: str | None) -> bool:
        """Every replica that is ready says that it cannot load the adapter: it is of no use to wait."""
        ready = [view for view in self.views(deployment) if view.ready] if adapter is not None else []
        return bool(ready) and all(view.adapter(adapter or "").state == "failed" for view in ready)

    def update(self, deployment: DeploymentEntry, addresses: Iterable[ReplicaAddress]) -> None:
        """Take over what discovery found: the full set of the deployment's replicas.

        Known replicas keep their counts, load and being down; prefix and bound follow the entry.
        One that is gone and comes back is a new view.
        """
        known = {(view.id, view.incarnation): view for view in self.views(deployment.name)}
        current: dict[str, ReplicaView] = {}
        for address in addresses:
            view = known.get((address.id, address.incarnation))
            if view is None:
                self._generation += 1
                view = ReplicaView(deployment, address, self._generation)
            view.prefix = deployment.prefix
            if view.bound != deployment.max_ongoing_requests:
                view.bound = view.capacity = deployment.max_ongoing_requests
            current[view.id] = view
        self._views[deployment.name] = tuple(current.values())
        self._changed(deployment.name)

    def retain(self, deployments: Collection[str]) -> None:
        """Drop every deployment that is not named: it has left the configuration."""
        for name in [name for name in self._views if name not in deployments]:
            del self._views[name]
            self._changed(name)

    def mark_down(self, view: ReplicaView) -> None:
        """A connection was refused: no more requests until `mark_up`, `report` or a new incarnation.

        Discovery that still lists it does not bring it back: it may be slow to notice.
        """
        view.down = True

    def mark_up(self, view: ReplicaView) -> None:
        """A health probe got an answer."""
        view.down = False
        self._changed(view.deployment)

    def full(self, view: ReplicaView) -> None:
        """It has refused a request for being full, which still counts as `outstanding`."""
        view.capacity = min(view.capacity, max(0, view.outstanding - 1))

    def unheard(self, view: ReplicaView) -> None:
        """It could not be asked, for a reason that is not its own: what it said of our share is too old."""
        view.capacity = view.bound

    def report(
        self,
        view: ReplicaView,
        *,
        running: int,
        waiting: int,
        room: int | None = None,
        kv_cache_use: float = 0.0,
        healthy: bool = True,
        adapters: Mapping[str, AdapterReport] | None = None,
    ) -> None:
        """Take over the engine's own statistics, which are a successful probe as well.

        Counts are sequences in the engine; `room` is what this gateway may have on it; `kv_cache_use` is
        0..1.
        """
        view.capacity = view.bound if room is None else min(view.bound, room)
        view.running = running
        view.waiting = waiting
        view.kv_cache_use = kv_cache_use
        view.others = max(0, running + waiting - view.outstanding) + kv_cache_use
        view.fresh_until = self._clock() + self._report_ttl_s
        view.healthy = healthy
        view.adapters = adapters or {}
        self.mark_up(view)

    def _changed(self, deployment: str) -> None:
        for listener in self._listeners:
            listener(deployment)
